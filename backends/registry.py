"""Devices by name: the entry-point group `hxtrain.backends`, looked up lazily.

A package adds a device with

    [project.entry-points."hxtrain.backends"]
    mychip = "my_package:MyBackend"

whose target is a callable that returns a `Backend` for keyword settings.
"""

from __future__ import annotations

import inspect
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .contract import Backend

GROUP = "hxtrain.backends"


class UnknownBackendError(ValueError):
    """No device of that name is registered, or it does not know a setting."""


def available_backends() -> dict[str, EntryPoint]:
    """Return the registered devices by name; nothing is imported."""
    return {point.name: point for point in sorted(entry_points(group=GROUP))}


def create_backend(name: str, **settings: Any) -> Backend:
    """Create the device called `name` with its settings.

    Raises:
        UnknownBackendError: the name or a setting is not known; the text lists what is.
    """
    known = available_backends()
    if name not in known:
        raise UnknownBackendError(
            f"backend={name!r} is not registered; known: {', '.join(known) or 'none'}. "
            f"Is the package that provides it installed (entry-point group {GROUP!r})?"
        )
    factory = known[name].load()
    accepted = inspect.signature(factory).parameters
    unknown = sorted(set(settings) - set(accepted))
    if unknown:
        raise UnknownBackendError(
            f"backend {name!r} has no setting {', '.join(map(repr, unknown))}; it accepts: {', '.join(accepted) or 'none'}"
        )
    backend = factory(**settings)
    if not isinstance(backend, Backend):
        raise UnknownBackendError(f"backend {name!r} gave a {type(backend).__name__}, not a Backend")
    return backend
