"""A measured layer. Another form of its spikes and membranes is computed when a graph or a user reads it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hxtrain.backends import Spikes

from .conversion import count_events, group_grid, membranes, to_grid, to_spikes
from .events import GroupedEvents

_NO_CHANGE = nullcontext()


def normal_mode() -> AbstractContextManager[None]:
    """Return a context without torch's inference mode: values that are kept must serve training, too."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else _NO_CHANGE


class SpikeGrid:
    """Spikes of a layer on the time grid, at most one per neuron and step: as a grid, or on the CPU as events.

    The compiled loops use events, since a grid is nearly all zeros. The other form is computed when it is first read,
    and is kept. Neither form may be changed in place.

    Args:
        grid: Zeros and ones `[T, B, N]`.
        grouped: Spikes as events; used without a grid.
        shape: T, B, N; required with `grouped`.
        dtype: Type of the grid; used with `grouped`.

    Raises:
        ValueError: there is neither a grid nor events with a shape.
    """

    def __init__(
        self,
        grid: Tensor | None = None,
        grouped: GroupedEvents | None = None,
        shape: tuple[int, int, int] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if grid is not None:
            steps, samples, neurons = grid.shape
            self.grid = grid
            self.shape = (steps, samples, neurons)
            self.dtype = grid.dtype
        elif grouped is not None and shape is not None:
            self.grouped = grouped
            self.shape = shape
            self.dtype = dtype
        else:
            raise ValueError("spikes need a grid, or events and their shape; neither is given")

    def to(self, dtype: torch.dtype) -> SpikeGrid:
        """Return the same spikes with a grid of type `dtype`."""
        if dtype == self.dtype:
            return self
        if "grouped" in vars(self):
            return SpikeGrid(None, self.grouped, self.shape, dtype)
        return SpikeGrid(self.grid.to(dtype))

    def __repr__(self) -> str:
        """Describe the spikes in a line."""
        steps, samples, neurons = self.shape
        return f"SpikeGrid({self.number} spikes, {samples} samples, {neurons} neurons, {steps} steps)"

    @property
    def number(self) -> int:
        """Number of spikes."""
        return len(self.grouped.units) if "grouped" in vars(self) else int(self.grid.sum())

    @cached_property
    def grid(self) -> Tensor:
        """Zeros and ones `[T, B, N]`."""
        with normal_mode():
            return to_grid(self.grouped, self.shape, self.dtype)

    @cached_property
    def grouped(self) -> GroupedEvents:
        """Spikes as events; a grid must be on the CPU."""
        with normal_mode():
            return group_grid(self.grid)

    def times(self, dt: float) -> Spikes:
        """Return the spikes as events at the starts of their steps of width `dt` (s)."""
        if "grouped" in vars(self) or self.grid.device.type == "cpu":
            return to_spikes(self.grouped, self.shape, dt)
        return Spikes.from_grid(self.grid, dt)

    @cached_property
    def counts(self) -> Tensor:
        """Numbers of spikes `[B, N]`."""
        with normal_mode():
            if "grouped" not in vars(self):
                return self.grid.sum(0)
            return count_events(self.grouped, *self.shape[:2]).to(self.dtype)


class MembraneSource(Protocol):
    """Membranes that are computed when they are read."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """T, B, N."""

    def trace(self) -> Tensor:
        """Return the membranes `[T, B, N]`."""


class Codes:
    """Membranes as a device recorded them; the first trace sample of each trial is its leak.

    Args:
        codes: Codes of the membranes, uint8 `[B, T, N]`, on the CPU.
        unit: Number of codes from leak to threshold.

    Attributes:
        shape: T, B, N.
    """

    def __init__(self, codes: Tensor, unit: float) -> None:
        samples, steps, neurons = codes.shape
        self.codes = codes
        self.unit = unit
        self.shape: tuple[int, int, int] = (steps, samples, neurons)

    def __repr__(self) -> str:
        """Describe the codes in a line."""
        return f"Codes({list(self.codes.shape)} [B, T, N], {self.unit:.4g} from leak to threshold)"

    def trace(self) -> Tensor:
        """Return the membranes `[T, B, N]`."""
        return membranes(self.codes, self.unit)


@dataclass(eq=False, repr=False)
class MeasuredLayer:
    """A measured layer.

    Attributes:
        fired: Spikes; None for a readout.
        membrane: Membranes `[T, B, N]` with leak 0 and threshold 1, or the data from which they are computed.
        anchors: Tensors that represent spikes, membranes and numbers of spikes in the graph, with their shapes.
    """

    fired: SpikeGrid | None
    membrane: Tensor | MembraneSource
    anchors: tuple[Tensor | None, Tensor | None, Tensor | None] = (None, None, None)

    def __repr__(self) -> str:
        """Describe the layer in a line."""
        steps, samples, neurons = self.membrane.shape
        spikes = "readout" if self.fired is None else f"{self.fired.number} spikes"
        return f"{type(self).__name__}({samples} samples, {neurons} neurons, {steps} steps, {spikes})"

    @cached_property
    def spikes(self) -> Tensor | None:
        """Spikes on the time grid `[T, B, N]`, in the graph if the layer is; None for a readout."""
        return None if self.fired is None else _with_gradient(self.fired.grid, self.anchors[0])

    @cached_property
    def counts(self) -> Tensor | None:
        """Numbers of spikes `[B, N]`, the sum of `spikes` over time, in the graph if the layer is; None for a readout.

        Their gradient costs less than that of the sum.
        """
        return None if self.fired is None else _with_gradient(self.fired.counts, self.anchors[2])

    @cached_property
    def trace(self) -> Tensor:
        """Membranes `[T, B, N]`, leak 0, threshold 1, in the graph if the layer is."""
        if isinstance(self.membrane, Tensor):
            return self.membrane
        with normal_mode():
            value = self.membrane.trace()
        return _with_gradient(value, self.anchors[1])


def _with_gradient(value: Tensor, anchor: Tensor | None) -> Tensor:
    """Return a value with the gradient of its anchor, if any.

    The value is in the graph even if it is first read in a context without gradients.
    """
    if anchor is None:
        return value
    with normal_mode(), torch.enable_grad():
        result: Tensor = _Value.apply(anchor, value)  # type: ignore[no-untyped-call]
    return result


class _Value(torch.autograd.Function):
    """The value of one tensor, the gradient of another: (anchor, value) -> value."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
