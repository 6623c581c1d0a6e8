r"""Voltage-based plasticity: the membrane of the output and two low-pass filters of it decide (Clopath et al. 2010).

For an input spike train S and a membrane u with leak 0 and threshold 1, per spike and per time::

    dw = -a_ltd S [u_minus - theta_minus]+  +  a_ltp x [u - theta_plus]+ [u_plus - theta_minus]+ dt / tau_x
    tau_minus du_minus/dt = u - u_minus        tau_plus du_plus/dt = u - u_plus
    x += 1 at input spikes                     tau_x dx/dt = -x

On the time grid every step reads what the steps before left in the filters and in x, then updates them; filters start
at the first sample of a trial. A recorded membrane is reset at a spike instead of rising above theta_plus, so each step
with an output spike gets the waveform of one: u + `spike`.

The published constants of visual cortex (theta_minus -70.6 mV, theta_plus -45.3 mV, a_ltd 14e-5 / mV, a_ltp 8e-5 per
mV^2, 15, 10 and 7 ms) are scaled to a leak of -70.6 mV, a threshold of -50.4 mV and a speedup of 1000. The amplitudes
are relative to a_ltd; a learning rate of 0.0028 gives the published ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hxtrain.backends import INPUT, Spikes
from hxtrain.network import Activity, LayerActivity, Network
from hxtrain.neurons.conversion import group_events
from hxtrain.neurons.events import GroupedEvents

from .inputs import input_events
from .plasticity import Plasticity, reported_loss
from .rule import Batch, Need, Step
from .streaming import StreamingRule, Window


class Memory(NamedTuple):
    """State of a projection within a trial, float64 arrays.

    Attributes:
        minus: Filter of the membranes for depression `[B, N]`.
        plus: Filter of the membranes for potentiation `[B, N]`.
        trace: Trace of the inputs `[B, J]`.
        potentiation: Sum of potentiation at an amplitude of 1 per step `[N, J]`.
        depression: Sum of depression at an amplitude of 1 `[J, N]`.
    """

    minus: Any
    plus: Any
    trace: Any
    potentiation: Any
    depression: Any


@dataclass
class Clopath(Plasticity, StreamingRule):
    """Plasticity by the voltage of the output (Clopath et al. 2010); it takes a trial a few steps at a time.

    Attributes:
        a_ltd: Amplitude of depression.
        a_ltp: Amplitude of potentiation.
        theta_minus: Filtered membrane above which synapses change (leak 0, threshold 1).
        theta_plus: Membrane above which synapses are potentiated.
        tau_minus: Time constant of the filter for depression (s of the device).
        tau_plus: Time constant of the filter for potentiation (s of the device).
        tau_x: Time constant of the trace of input spikes (s of the device).
        spike: Height of a spike above the recorded membrane (threshold - leak).
        window: Time steps taken at a time; results do not depend on it.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUT_SPIKES, Need.SPIKES, Need.MEMBRANES})
    solves: ClassVar[str] = "prototypes of digits without labels (experiment=clopath_digits)"

    a_ltd: float = 1.0
    a_ltp: float = 11.5
    theta_minus: float = 0.0
    theta_plus: float = 1.25
    tau_minus: float = 10e-6
    tau_plus: float = 7e-6
    tau_x: float = 15e-6
    spike: float = 4.0
    window: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("tau_minus", "tau_plus", "tau_x")
        self.require_not_negative("a_ltd", "a_ltp", "spike")

    @torch.no_grad()
    def step(self, net: Network, batch: Batch) -> Step:
        """Run a batch, follow its events `window` steps at a time, and leave the negative mean change in `.grad`.

        Events need no dense window, so that this is faster than `observe`, with the same result.
        """
        activity: Activity = net(batch.spikes, batch.masks)
        self.begin(net, batch)
        events = {INPUT: _grouped(input_events(net, batch), net.dt, net.steps)}
        membranes = {}
        for layer, measured in zip(net.layers, activity.layers, strict=True):
            if measured.fired is not None:
                events[layer.name] = _fired(measured)
                membranes[layer.name] = measured.trace
        for first in range(0, net.steps, self.window):
            self._follow(net, events, membranes, first, min(first + self.window, net.steps))
        return Step(activity, self.finish(net, batch, activity))

    def begin(self, net: Network, batch: Batch) -> None:
        """Forget the trials before."""
        self._memories: dict[str, Memory] = {}

    def observe(self, net: Network, batch: Batch, window: Window) -> None:
        """Take the next time steps of all samples."""
        events = {INPUT: _of_grid(window.inputs)}
        membranes = {}
        for layer, spikes, membrane in zip(net.layers, window.spikes, window.membranes, strict=True):
            if spikes is not None and membrane is not None:
                events[layer.name] = _of_grid(spikes)
                membranes[layer.name] = membrane
        self._follow(net, events, membranes, 0, len(window.inputs))

    def _follow(
        self, net: Network, events: dict[str, GroupedEvents], membranes: dict[str, Tensor], first: int, last: int
    ) -> None:
        """Follow all learned projections in consecutive steps.

        Args:
            net: Network of the trial.
            events: Events by population, grouped by sample and step.
            membranes: Membranes of the spiking layers `[T, B, N]`.
            first: First step of those in events and membranes.
            last: Step after the last one.
        """
        from .clopath_kernel import follow

        shares = (-math.expm1(-net.dt / tau) for tau in (self.tau_minus, self.tau_plus))
        constants = np.array(
            [self.theta_minus, self.theta_plus, self.spike, *shares, math.exp(-net.dt / self.tau_x)], np.float64
        )
        for projection in net.projections:
            if not projection.synapses.is_trainable or projection.post not in membranes:
                continue
            pre = events[projection.pre]
            post = events[projection.post]
            membrane = membranes[projection.post].detach().cpu().contiguous().numpy()
            is_start = projection.name not in self._memories
            if is_start:
                self._memories[projection.name] = _memory(membrane.shape[1], pre.sources, post.sources)
            memory = self._memories[projection.name]
            follow(first, last, is_start, *_arrays(pre), *_arrays(post), membrane, constants, *memory)

    def change(self, net: Network, name: str) -> Tensor:
        """Return the change of a projection so far, summed over the samples `[N, J]`, at a maximum of 1."""
        memory = self._memories[name]
        potentiation = self.a_ltp * net.dt / self.tau_x * torch.from_numpy(memory.potentiation)
        return potentiation - self.a_ltd * torch.from_numpy(memory.depression).T

    def finish(self, net: Network, batch: Batch, activity: Activity) -> float:
        """Leave the negative mean changes in `.grad`; returns the mean loss of the batch."""
        for projection, pathway in self.pathways(net, batch, activity):
            change = self.change(net, projection.name).to(pathway.weight.device)
            self.leave_change(projection, pathway, pathway.maximum * change)
        return reported_loss(self.objective, batch, activity)


def _memory(samples: int, inputs: int, outputs: int) -> Memory:
    """Return the state of a projection before the first step."""
    shapes = (samples, outputs), (samples, outputs), (samples, inputs), (outputs, inputs), (inputs, outputs)
    return Memory(*(np.zeros(shape) for shape in shapes))


def _grouped(spikes: Spikes, dt: float, steps: int) -> GroupedEvents:
    """Return events grouped by sample and step, on the CPU, where the loop runs."""
    return group_events(spikes.to("cpu"), dt, steps)


def _of_grid(grid: Tensor) -> GroupedEvents:
    """Return the events of a grid with their numbers `[W, B, N]`."""
    return _grouped(Spikes.from_grid(grid.detach().cpu(), 1.0), 1.0, len(grid))


def _fired(measured: LayerActivity) -> GroupedEvents:
    """Return the spikes of a layer grouped by sample and step."""
    assert measured.fired is not None  # a readout has none
    grid: Tensor | None = vars(measured.fired).get("grid")
    return measured.fired.grouped if grid is None or grid.device.type == "cpu" else _of_grid(grid)


def _arrays(events: GroupedEvents) -> tuple[Any, Any]:
    """Return offsets and units as the loop takes them."""
    return events.offsets.numpy(), events.units.numpy()
