"""Requests to a server or broker that need no lease."""

from __future__ import annotations

from typing import TypeVar

from hxtrain.backends.recording import DeviceError

from .link import Link, LinkSettings
from .protocol import Empty, Operation, Report, Text

Body = TypeVar("Body")


def ask(settings: LinkSettings, op: Operation, kind: type[Body]) -> Body:
    """Return the answer to a request without content.

    Args:
        settings: Settings of the connection.
        op: Operation of the request.
        kind: Type of the answer.

    Raises:
        DeviceError: The server cannot be reached, or answers something else.
    """
    link = Link(settings)
    try:
        reply = link.request(op, Empty())
    finally:
        link.close()
    try:
        return reply.read(kind)
    except DeviceError as error:
        alternative = "a single chip (hxtrain serve status)" if settings.is_pool else "a pool (hxtrain pool status)"
        raise DeviceError(f"{settings.peer}: {error}. Is it {alternative}, or another version of hxtrain?") from None


def ask_status(settings: LinkSettings) -> Report:
    """Return the server's report: holder of the chip, queue, and counts.

    Raises:
        DeviceError: The server cannot be reached.
        ValueError: The address is one of a pool.
    """
    if settings.is_pool:
        raise ValueError(f"address={settings.address} is a pool of chips; ask it with: {settings.question}")
    return ask(settings, "status", Report)


def ask_metrics(settings: LinkSettings) -> str:
    """Return the metrics of a server or broker in Prometheus' text format.

    Raises:
        DeviceError: The server cannot be reached.
    """
    return ask(settings, "metrics", Text).text
