"""Events grouped by sample and step, and gradients of a layer: what engines take and give."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Grouped(NamedTuple):
    """Events grouped by sample and step.

    Attributes:
        offsets: int64 `[B T + 1]`: events of sample b in step t begin at `offsets[b * T + t]`.
        units: sources, int64 `[E]`.
        sources: number of sources.
    """

    offsets: Tensor
    units: Tensor
    sources: int


class Grads(NamedTuple):
    """Gradients of the loss with respect to a layer's spikes `[T, B, N]`, membranes `[T, B, N]` and numbers of spikes
    `[B, N]`; None where it does not depend on them."""

    spikes: Tensor | None = None
    traces: Tensor | None = None
    counts: Tensor | None = None
