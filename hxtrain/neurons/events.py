"""Events grouped by sample and step, and gradients of a layer: arguments and results of engines."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
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


class SortedEvents(NamedTuple):
    """Events sorted by sample and time, with a factor each.

    Attributes:
        offsets: First event of each sample, and the number of events, int64 `[B + 1]`.
        unit: Source of each event, int64 `[E]`.
        time: Time of each event, float64 `[E]`.
        factor: Factor of each event, float64 `[E]`.
    """

    offsets: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int64]
    time: npt.NDArray[np.floating[Any]]
    factor: npt.NDArray[np.floating[Any]]


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
