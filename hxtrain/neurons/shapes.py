"""Checks of the shapes of arguments of compiled loops, which do not check bounds and would read foreign memory."""

from __future__ import annotations

import torch
from torch import Tensor

from .events import GroupedEvents


def require(name: str, tensor: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Refuse a tensor with another shape or type; None is accepted.

    Raises:
        ValueError: the shape or type differs; the message has the expected one.
    """
    if tensor is not None and (tensor.shape != shape or tensor.dtype != dtype):
        raise ValueError(f"{name}: expected {dtype} {shape}, got {tensor.dtype} {tuple(tensor.shape)}")


def require_events(name: str, events: GroupedEvents | None, groups: int, sources: int) -> None:
    """Refuse events with another number of groups or sources; None is accepted.

    Raises:
        ValueError: the events differ; the message has the expected shape.
    """
    if events is None:
        return
    if events.sources != sources:
        raise ValueError(f"{name} have {events.sources} sources, the weights {sources}; they must match")
    offsets = events.offsets
    units = events.units
    if offsets.shape != (groups + 1,) or units.dim() != 1 or not offsets.dtype == units.dtype == torch.int64:
        require(f"{name}: offsets", offsets, (groups + 1,), torch.int64)
        require(f"{name}: units", units, (units.numel(),), torch.int64)
    last = offsets[-1].item()
    if last > units.shape[0]:
        raise ValueError(f"{name}: offsets reach {last}, but there are {units.shape[0]} events")
