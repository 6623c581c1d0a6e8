"""The layers that run in Triton kernels on a GPU.

Triton comes with torch for CUDA on Linux, and is imported with the first of these layers. Without Triton, all layers
run in torch.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from hxtrain.neurons.model import Model

from .cpu import KINDS


def supports(tensor: Tensor, model: Model, recurrent: Tensor | None) -> bool:
    """Return whether the kernels support a layer: its tensor, model and recurrent weights, if any."""
    is_supported = tensor.device.type == "cuda" and tensor.dtype == torch.float32 and model.surrogate in KINDS
    return is_supported and recurrent is None and model.saturation is None and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


@cache
def kernels() -> Any:
    """Return the kernels."""
    from . import triton_kernels

    return triton_kernels
