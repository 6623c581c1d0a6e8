"""The versions that a result depends on."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version

from .progress import Progress


@cache
def versions() -> dict[str, str]:
    """Return the versions of hxtrain, torch, numba and Python."""
    return {
        **{name: version(name) for name in ("hxtrain", "torch", "numba")},
        "python": platform.python_version(),
    }


def warn_of_versions(saved: dict[str, str], progress: Progress) -> None:
    """Warn if a checkpoint to continue was written by other versions."""
    if saved != versions():
        progress.warn(
            f"the checkpoint is of {saved}, this is {versions()}: "
            "the run continues, but not necessarily to the very same weights"
        )
