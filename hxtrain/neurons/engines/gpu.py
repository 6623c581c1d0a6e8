"""Which layers run on a GPU's own kernels.

Triton, which comes with torch for CUDA on Linux, is imported with the first of them. Without it, layers run in torch.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from hxtrain.neurons.model import Model

from .cpu import KINDS


def takes(tensor: Tensor, model: Model, recurrent: Tensor | None) -> bool:
    """Return whether the kernels take a layer: its tensor, model and recurrent weights, if any."""
    known = tensor.device.type == "cuda" and tensor.dtype == torch.float32 and model.surrogate in KINDS
    return known and recurrent is None and model.saturation is None and _installed()


@cache
def _installed() -> bool:
    return find_spec("triton") is not None


@cache
def kernels() -> Any:
    """Return the kernels."""
    from . import triton_kernels

    return triton_kernels
