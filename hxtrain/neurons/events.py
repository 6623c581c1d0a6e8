"""Events grouped by sample and step, and gradients of a layer: arguments and results of engines."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class GroupedEvents(NamedTuple):
    """Events grouped by sample and step.

    Attributes:
        offsets: Start of each group, int64 `[B T + 1]`: events of sample b in step t begin at `offsets[b * T + t]`.
        units: Source of each event, int64 `[E]`.
        sources: Number of sources.
    """

    offsets: Tensor
    units: Tensor
    sources: int


class Grads(NamedTuple):
    """Gradients of the loss with respect to a layer's outputs; None for an output that the loss does not depend on.

    Attributes:
        spikes: Gradient of the spikes `[T, B, N]`.
        traces: Gradient of the membranes `[T, B, N]`.
        counts: Gradient of the numbers of spikes `[B, N]`.
    """

    spikes: Tensor | None = None
    traces: Tensor | None = None
    counts: Tensor | None = None
