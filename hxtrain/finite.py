"""Checks for NaN and infinity: of gradients and weights in every step, and of tensors that are saved or loaded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Return whether no value is NaN or infinite; the sum of each tensor shows this unless it overflows."""
    sums = [tensor.detach().sum() for tensor in tensors]
    if sums and sums[0].is_cuda:
        sums = [torch.stack(sums).sum()]  # the host waits once
    if all(math.isfinite(value.item()) for value in sums):
        return True
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first tensor that holds a NaN or an infinity; None if all are finite.

    Args:
        tensors: Names and values, such as `module.named_parameters()` or `module.state_dict().items()`.
    """
    return next((name for name, values in tensors if not all_finite([values])), None)
