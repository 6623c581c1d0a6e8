"""Versions that a result depends on."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

from hxtrain._version import __version__

from .progress import Progress


@cache
def versions() -> dict[str, str]:
    """Return the versions of hxtrain, torch, numba and Python; with a GPU, also its name and the version of Triton."""
    entries = {"hxtrain": __version__, "torch": version("torch"), "numba": version("numba")}
    entries["python"] = platform.python_version()
    if torch.cuda.is_available():
        entries["gpu"] = torch.cuda.get_device_name()
        if find_spec("triton") is not None:
            entries["triton"] = version("triton")
    return entries


@cache
def processor() -> str:
    """Return the name of the CPU, which affects the last bits of float sums."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def warn_of_versions(saved: dict[str, str], progress: Progress) -> None:
    """Warn if other versions wrote the checkpoint of a resumed run."""
    if saved != versions():
        progress.warn(
            f"the checkpoint is of {saved}, this is {versions()}: "
            "the run continues, but not necessarily to the very same weights"
        )
