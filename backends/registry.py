"""Devices by name: the entry-point group `hxtrain.backends`, looked up lazily.

A package adds a device with

    [project.entry-points."hxtrain.backends"]
    mychip = "my_package:MyBackend"

whose target is a callable that returns a `Backend` for keyword settings.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from .contract import Backend

GROUP = "hxtrain.backends"
SOURCE = Path(__file__).parents[1]
"""Root of a clone that is used without installation."""


class UnknownBackendError(ValueError):
    """No device of that name is registered, or it does not know a setting."""


def available_backends() -> dict[str, EntryPoint]:
    """Return the registered devices by name; nothing is imported."""
    return {point.name: point for point in sorted(entry_points(group=GROUP))}


def accepted_settings(name: str) -> set[str]:
    """Return the keyword settings of a device.

    Raises:
        UnknownBackendError: No device of that name is registered.
    """
    return set(inspect.signature(_factory(name)).parameters)


def required_settings(name: str) -> set[str]:
    """Return the keyword settings that a device requires, e.g. its address.

    Raises:
        UnknownBackendError: No device of that name is registered.
    """
    parameters = inspect.signature(_factory(name)).parameters.values()
    return {p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def create_backend(name: str, **settings: Any) -> Backend:
    """Create the device called `name` with its settings.

    Raises:
        UnknownBackendError: The name or a setting is not known; the text lists the known ones.
    """
    accepted = accepted_settings(name)
    unknown = sorted(set(settings) - accepted)
    if unknown:
        raise UnknownBackendError(
            f"backend {name!r} has no setting {', '.join(map(repr, unknown))}; "
            f"it accepts: {', '.join(sorted(accepted)) or 'none'}"
        )
    try:
        backend = _factory(name)(**settings)
    except TypeError as error:
        raise UnknownBackendError(f"backend {name!r} does not take the settings {settings}: {error}") from error
    if not isinstance(backend, Backend):
        raise UnknownBackendError(f"backend {name!r} gave a {type(backend).__name__}, not a Backend")
    return backend


def _factory(name: str) -> Callable[..., object]:
    backends = available_backends()
    if not backends:
        raise UnknownBackendError(
            f"backend={name!r} is not registered, nor is any other: hxtrain is imported from {SOURCE}, but not "
            f"installed; run: pip install {SOURCE}"
        )
    if not isinstance(name, str) or name not in backends:
        raise UnknownBackendError(
            f"backend={name!r} is not registered; known: {', '.join(backends)}. "
            f"Is the package that provides it installed (entry-point group {GROUP!r})?"
        )
    point = backends[name]
    try:
        factory: Callable[..., object] = point.load()
    except Exception as error:  # a package of another author may raise anything
        package = "" if point.dist is None else f" of the package {point.dist.name}"
        raise UnknownBackendError(
            f"backend={name!r} cannot be imported: its entry point {point.value!r}{package} fails with "
            f"{type(error).__name__}: {error}. Install that package again, with its modules in it"
        ) from error
    return factory
