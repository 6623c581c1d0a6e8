"""Whether weights are numbers: asked after each step, before a checkpoint is written, and after one was read."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first tensor that holds a NaN or an infinity; None where all are finite.

    Args:
        tensors: names and values, such as `module.named_parameters()` or `module.state_dict().items()`.
    """
    return next((name for name, values in tensors if not bool(torch.isfinite(values).all())), None)
