"""The versions that a result depends on."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version


@cache
def versions() -> dict[str, str]:
    """Return the versions of hxtrain, torch, numba and Python."""
    return {
        **{name: version(name) for name in ("hxtrain", "torch", "numba")},
        "python": platform.python_version(),
    }
