"""Requests to a server that need no lease."""

from __future__ import annotations

from .link import Link, LinkSettings
from .protocol import Empty, Report, Text


def ask_status(settings: LinkSettings) -> Report:
    """Return the server's report: holder of the chip, queue, and counts.

    Raises:
        DeviceError: The server cannot be reached.
    """
    link = Link(settings)
    try:
        return link.request("status", Empty()).read(Report)
    finally:
        link.close()


def ask_metrics(settings: LinkSettings) -> str:
    """Return the server's metrics in Prometheus' text format.

    Raises:
        DeviceError: The server cannot be reached.
    """
    link = Link(settings)
    try:
        return link.request("metrics", Empty()).read(Text).text
    finally:
        link.close()
