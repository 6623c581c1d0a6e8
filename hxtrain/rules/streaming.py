"""Rules that take a trial in pieces.

The state of such a rule need not grow with the length of a trial. What was measured does: a device gives the recording
of whole trials, and the activity of the pass stays until the end of the step, with the spikes and membranes on the time
grid from which windows are cut.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.network import Activity, LayerActivity, Network
from hxtrain.neurons import GridEvents, GroupedEvents

from .rule import Batch, LearningRule, Need, Step


class Window(NamedTuple):
    """Consecutive time steps of a pass: `W` steps of `B` samples.

    Attributes:
        first: Index of the first step.
        inputs: Input events on the time grid `[W, B, J]`.
        spikes: Spikes of each layer `[W, B, N]`; None for a layer that does not spike.
        membranes: Membranes of each layer `[W, B, N]`, leak 0, threshold 1; None if the rule does not need them.
        events: Events of the inputs and of each layer, with the same content as the grids, where the window is the
            whole trial on the CPU; empty elsewhere.
    """

    first: int
    inputs: Tensor
    spikes: list[Tensor | None]
    membranes: list[Tensor | None]
    events: Sequence[GroupedEvents | None] = ()


@dataclass
class StreamingRule(LearningRule):
    """Base of rules that see the time steps of a trial in order, a window at a time.

    What a rule keeps from window to window is its own, and should not depend on the number of windows. The activity of
    the whole pass is at hand in `finish`; a rule that computes on it alone is no streaming one.

    Attributes:
        window: Time steps that `observe` gets at a time; results do not depend on it.
    """

    window: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1:
            raise ValueError(f"rule.window={self.window} must be at least 1 time step")

    @abstractmethod
    def begin(self, net: Network, batch: Batch) -> None:
        """Set the state of a trial to its start."""

    @abstractmethod
    def observe(self, net: Network, batch: Batch, window: Window) -> None:
        """Take the next time steps of all samples."""

    @abstractmethod
    def finish(self, net: Network, batch: Batch, activity: Activity) -> float:
        """Leave the gradients in `.grad` after the last window; returns the mean loss of the batch."""

    @torch.no_grad()
    def step(self, net: Network, batch: Batch) -> Step:
        """Run a batch, and show it to the rule a window at a time."""
        reads_membranes = Need.MEMBRANES in self.needs
        with net.twin.recording() if reads_membranes else nullcontext():
            activity: Activity = net(batch.spikes, batch.masks)
        self.begin(net, batch)
        inputs = batch.spikes if activity.inputs is None else activity.inputs
        for window in windows(net, inputs, activity.layers, self.window, reads_membranes):
            self.observe(net, batch, window)
        return Step(activity, self.finish(net, batch, activity))


def windows(
    net: Network, spikes: Spikes | GridEvents, layers: list[LayerActivity], length: int, membranes: bool = True
) -> Iterator[Window]:
    """Return the windows of a pass in order; the last one may be shorter.

    Args:
        net: Network of the pass.
        spikes: Input events of the pass.
        layers: Activity of each layer.
        length: Time steps per window.
        membranes: Whether membranes are read; they are computed then, also where a device recorded none.
    """
    if isinstance(spikes, Spikes):
        spikes = GridEvents(net.arrivals(spikes.to(net.torch_device)), net.dt, net.steps)
    for first in range(0, net.steps, length):
        last = min(first + length, net.steps)
        layer_spikes = [None if layer.spikes is None else layer.spikes[first:last] for layer in layers]
        layer_membranes = [layer.trace[first:last] if membranes else None for layer in layers]
        events: list[GroupedEvents | None] = []
        if length >= net.steps and net.torch_device.type == "cpu":
            events = [spikes.grouped, *(None if layer.fired is None else layer.fired.grouped for layer in layers)]
        yield Window(first, spikes.counts(first, last), layer_spikes, layer_membranes, events)
