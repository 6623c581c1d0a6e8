"""Engines of the emulator: readable in torch, compiled for the CPU, kernels on a GPU. All compute the same."""

from __future__ import annotations

import os

import torch

from .cpu import CpuEngine
from .engine import Engine, Setup
from .gpu import GpuEngine
from .readable import ReadableEngine

__all__ = ["CpuEngine", "Engine", "GpuEngine", "ReadableEngine", "Setup", "make_engine"]

ALIASES = {"compiled": "cpu", "fused": "gpu", "stepwise": "readable"}
"""Names of older versions."""


def make_engine(name: str, device: torch.device, dtype: torch.dtype = torch.float32) -> Engine:
    """Return an engine.

    Args:
        name: `cpu`, `gpu` or `readable`.
        device: torch device of the emulation.
        dtype: precision of the readable engine.

    Raises:
        ValueError: the name is not known, or the engine does not run on the device.
    """
    name = ALIASES.get(name, name)
    if name == "readable":
        return ReadableEngine(device, dtype)
    if name == "cpu":
        if device.type != "cpu":
            raise ValueError(f"engine='cpu' runs on the CPU, not on device={str(device)!r}; use engine='gpu'")
        return CpuEngine()
    if name == "gpu":
        if device.type != "cuda" and not os.environ.get("TRITON_INTERPRET"):
            raise ValueError(f"engine='gpu' runs on a GPU (cuda), not on device={str(device)!r}; use another engine")
        return GpuEngine(device)
    raise ValueError(f"engine={name!r} is not known; choose 'cpu', 'gpu' or 'readable'")
