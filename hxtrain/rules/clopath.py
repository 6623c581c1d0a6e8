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
from typing import ClassVar

import torch
from torch import Tensor

from hxtrain.backends import INPUT
from hxtrain.network import Activity, Network

from .plasticity import Plasticity, reported_loss
from .rule import Batch, Need
from .streaming import StreamingRule, Window


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
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUT_SPIKES, Need.SPIKES, Need.MEMBRANES})
    solves: ClassVar[str] = "depression at low and potentiation at high rates of the output"

    a_ltd: float = 1.0
    a_ltp: float = 11.5
    theta_minus: float = 0.0
    theta_plus: float = 1.25
    tau_minus: float = 10e-6
    tau_plus: float = 7e-6
    tau_x: float = 15e-6
    spike: float = 4.0

    step = StreamingRule.step

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("tau_minus", "tau_plus", "tau_x")
        self.require_not_negative("a_ltd", "a_ltp", "spike")

    def begin(self, net: Network, batch: Batch) -> None:
        """Set the filters of a trial to their start."""
        self._filters: dict[str, tuple[Tensor, Tensor]] = {}
        self._traces: dict[str, Tensor] = {}
        self._changes: dict[str, Tensor] = {}

    def observe(self, net: Network, batch: Batch, window: Window) -> None:
        """Take the next time steps of all samples."""
        trains = {INPUT: window.inputs}
        for layer, spikes in zip(net.layers, window.spikes, strict=True):
            if spikes is not None:
                trains[layer.name] = spikes
        for layer, membranes in zip(net.layers, window.membranes, strict=True):
            if layer.name not in trains or membranes is None:
                continue
            voltages = membranes.double() + self.spike * trains[layer.name].double()
            factors = [self._factors(net.dt, layer.name, voltage) for voltage in voltages]
            for projection in layer.projections:
                if projection.synapses.is_trainable:
                    self._follow(net.dt, projection.name, trains[projection.pre].double(), factors)

    def _factors(self, dt: float, name: str, voltage: Tensor) -> tuple[Tensor, Tensor]:
        """Return depression per input spike and potentiation per step `[B, N]`, and update the filters.

        Args:
            dt: Width of the step (s).
            name: Name of the population.
            voltage: Its membranes with spikes `[B, N]`.
        """
        minus, plus = self._filters.get(name, (voltage, voltage))
        depression = self.a_ltd * (minus - self.theta_minus).clamp(min=0)
        potentiation = (voltage - self.theta_plus).clamp(min=0) * (plus - self.theta_minus).clamp(min=0)
        slow = minus + (voltage - minus) * -math.expm1(-dt / self.tau_minus)
        self._filters[name] = (slow, plus + (voltage - plus) * -math.expm1(-dt / self.tau_plus))
        return depression, self.a_ltp * dt / self.tau_x * potentiation

    def _follow(self, dt: float, name: str, inputs: Tensor, factors: list[tuple[Tensor, Tensor]]) -> None:
        """Add the change of a projection in consecutive steps.

        Args:
            dt: Width of a step (s).
            name: Name of the projection.
            inputs: Spikes of its sources `[W, B, J]`.
            factors: Depression and potentiation of its targets in each step.
        """
        trace = self._traces.get(name, torch.zeros_like(inputs[0]))
        change = self._changes.get(name, 0.0)
        for spikes, (depression, potentiation) in zip(inputs, factors, strict=True):
            change = change + potentiation.T @ trace - depression.T @ spikes
            trace = trace * math.exp(-dt / self.tau_x) + spikes
        self._traces[name] = trace
        self._changes[name] = torch.as_tensor(change)

    def finish(self, net: Network, batch: Batch, activity: Activity) -> float:
        """Leave the negative mean changes in `.grad`; returns the mean loss of the batch."""
        for projection, pathway in self.pathways(net, batch, activity):
            self.leave_change(projection, pathway, pathway.maximum * self._changes[projection.name])
        return reported_loss(self.objective, batch, activity)
