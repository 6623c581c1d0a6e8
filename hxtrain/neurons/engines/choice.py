"""The choice of engine, in one place.

- `gpu`: float32 on a GPU with Triton, numbered surrogates, without saturation, recurrent layers of at most
  `LARGEST_ON_GPU` neurons; no gradients that know a refractory period.
- `cpu`: float32 and float64 on the CPU, numbered surrogates, with and without recurrence; gradients with saturation
  only from events.
- `readable`: everything.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from hxtrain.neurons.model import Model

from .engine import Engine
from .readable import READABLE
from .surrogates import NUMBERS

GPU = "cuda"
"""Type of the torch devices that Triton's kernels run on."""
LARGEST_ON_GPU = 512
"""Largest recurrent layer (neurons) whose state and weights fit a program of the kernels."""


def engine_for(
    tensor: Tensor,
    model: Model,
    recurrent: Tensor | None = None,
    backward: bool = False,
    dense: bool = False,
) -> Engine:
    """Return the engine for a layer.

    Args:
        tensor: Tensor with the device and the precision of the computation.
        model: Model of the layer.
        recurrent: Recurrent weights; None without recurrence.
        backward: Whether the gradient is to be computed.
        dense: Whether the inputs are values on a grid, not events.
    """
    return _compiled(tensor, model, recurrent, backward, dense) or READABLE


@cache
def engine_of(kind: str) -> Engine:
    """Return the engine for data without a model, such as measured spikes, on a type of torch device."""
    return _cpu() if kind == "cpu" else READABLE


def _compiled(tensor: Tensor, model: Model, recurrent: Tensor | None, backward: bool, dense: bool) -> Engine | None:
    """Return the compiled engine that supports a layer; None if there is none. The arguments are as in `engine_for`."""
    kind = tensor.device.type
    if not isinstance(model.surrogate, Hashable) or model.surrogate not in NUMBERS:
        return None
    is_small = recurrent is None or len(recurrent) <= LARGEST_ON_GPU
    is_in_kernel = is_small and model.saturation is None and not (backward and model.holds_gradient)
    if kind == GPU and is_in_kernel and tensor.dtype == torch.float32 and _has_triton():
        return _gpu()
    is_loop = not backward or not (dense and model.saturation is not None)
    if kind == "cpu" and is_loop and tensor.dtype in (torch.float32, torch.float64):
        return _cpu()
    return None


@cache
def _cpu() -> Engine:
    """Return the engine for the CPU; numba is imported with it, which takes its time."""
    from .cpu import CpuEngine

    return CpuEngine()


@cache
def _gpu() -> Engine:
    """Return the engine for GPUs; Triton comes with torch for CUDA on Linux."""
    from .gpu import GpuEngine

    return GpuEngine()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
