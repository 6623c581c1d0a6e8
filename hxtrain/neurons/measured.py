"""A layer as measured: what a graph or a user wants of it in another form is made when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hxtrain.neurons.engines import cpu as compiled
from hxtrain.neurons.engines.cpu import Codes, Unrecorded
from hxtrain.neurons.events import Grouped


class Fired:
    """Spikes of a layer on the time grid, at most one per neuron and step: as a grid, or on the CPU as events.

    The loops want events, for a grid is nearly all zeros; what is not at hand is made when it is asked for, for good:
    neither is to be changed in place.

    Args:
        grid: zeros and ones `[T, B, N]`.
        grouped: the same as events, if there is no grid; with it `shape` (T, B, N) and the `dtype` of a grid.

    Raises:
        ValueError: neither is given.
    """

    def __init__(
        self,
        grid: Tensor | None = None,
        grouped: Grouped | None = None,
        shape: tuple[int, int, int] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if grid is not None:
            steps, samples, neurons = grid.shape
            self.grid, self.shape, self.dtype = grid, (steps, samples, neurons), grid.dtype
        elif grouped is not None and shape is not None:
            self.grouped, self.shape, self.dtype = grouped, shape, dtype
        else:
            raise ValueError("spikes need a grid, or events and their shape; neither is given")

    def to(self, dtype: torch.dtype) -> Fired:
        """Return the same spikes, of which a grid has another precision."""
        if dtype == self.dtype:
            return self
        if "grouped" in vars(self):
            return Fired(None, self.grouped, self.shape, dtype)
        return Fired(self.grid.to(dtype))

    def __repr__(self) -> str:
        """Describe the spikes in a line."""
        steps, samples, neurons = self.shape
        return f"Fired({self.number} spikes, {samples} samples, {neurons} neurons, {steps} steps)"

    @property
    def number(self) -> int:
        """Number of spikes."""
        return len(self.grouped.units) if "grouped" in vars(self) else int(self.grid.sum())

    @cached_property
    def grid(self) -> Tensor:
        """Zeros and ones `[T, B, N]`."""
        with torch.inference_mode(False):  # it must serve training, too
            return compiled.to_grid(self.grouped, self.shape, self.dtype)

    @cached_property
    def grouped(self) -> Grouped:
        """The spikes as events; of a grid on the CPU, and of no other."""
        with torch.inference_mode(False):
            return compiled.group_grid(self.grid)

    @cached_property
    def counts(self) -> Tensor:
        """Numbers of spikes `[B, N]`."""
        if "grouped" not in vars(self):
            return self.grid.sum(0)
        return compiled.count_events(self.grouped, *self.shape[:2]).to(self.dtype)


@dataclass(eq=False, repr=False)
class Measured:
    """A layer as measured.

    Attributes:
        fired: spikes; None for a readout.
        membrane: `[T, B, N]`, leak 0, threshold 1, or what it follows from.
        counts: numbers of spikes `[B, N]`, the sum of `spikes` over time; None if not wanted in the graph, and for a
            readout. Their gradient costs less than that of the sum.
        anchors: what stands for spikes and membranes in the graph, of their shape.
    """

    fired: Fired | None
    membrane: Tensor | Codes | Unrecorded
    counts: Tensor | None = None
    anchors: tuple[Tensor | None, Tensor | None] = (None, None)

    def __repr__(self) -> str:
        """Describe the layer in a line."""
        steps, samples, neurons = self.membrane.shape
        spikes = "readout" if self.fired is None else f"{self.fired.number} spikes"
        return f"{type(self).__name__}({samples} samples, {neurons} neurons, {steps} steps, {spikes})"

    @cached_property
    def spikes(self) -> Tensor | None:
        """Spikes on the time grid `[T, B, N]`, in the graph if the layer is; None for a readout."""
        return None if self.fired is None else _valued(self.anchors[0], self.fired.grid)

    @cached_property
    def trace(self) -> Tensor:
        """Membranes `[T, B, N]`, leak 0, threshold 1, in the graph if the layer is."""
        if isinstance(self.membrane, Tensor):
            return self.membrane
        with torch.inference_mode(False):
            value = self.membrane.trace()
        return _valued(self.anchors[1], value)


def _valued(anchor: Tensor | None, value: Tensor) -> Tensor:
    """Return a value with the gradient of its anchor, if it has one; in the graph whoever was the first to ask."""
    if anchor is None:
        return value
    with torch.inference_mode(False), torch.enable_grad():
        found: Tensor = _Value.apply(anchor, value)  # type: ignore[no-untyped-call]
    return found


class _Value(torch.autograd.Function):
    """The value of one tensor, the gradient of another: (anchor, value) -> value."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
