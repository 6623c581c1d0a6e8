r"""The smallest device that is right: an ideal, readable chip. Copy it to write your own backend.

Current-based leaky integrate-and-fire neurons, integrated exactly on a fixed sub-step `h`::

    dI/dt = -I / tau_syn          I jumps by the integer weight at an event
    dV/dt = -(V - leak) / tau_mem + synaptic_drive * I
    V > threshold  ->  spike, V := reset for the refractory period

An event acts from its own time on. Thresholds are looked at once per sub-step; the time of a spike within it is
interpolated. Potentials are real numbers here; a recording rounds them to trace codes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from .chips import BRAINSCALES2
from .contract import (
    INPUT,
    Backend,
    Capabilities,
    Circuit,
    Cost,
    Population,
    Recording,
    Stimulus,
    check_circuit,
    check_run,
)
from .spikes import Spikes

SUBSTEPS = 4
"""Sub-steps per trace sample."""
CAPABILITIES = replace(
    BRAINSCALES2,
    name="reference",
    trace_memory=None,
    timestamp_resolution=BRAINSCALES2.trace_interval / 32,  # 95 % of the interpolated stamps are closer
    power=None,
    forced_reset=False,
    deterministic=True,
)
"""The chip's limits, but any number of trials per run."""


class ReferenceBackend(Backend):
    """An ideal chip without mismatch, noise, saturation or memory limit."""

    def __init__(self) -> None:
        self._circuit: Circuit | None = None

    @property
    def capabilities(self) -> Capabilities:
        """The chip's limits, but any number of trials per run."""
        return CAPABILITIES

    @property
    def identity(self) -> Mapping[str, str]:
        """Return the device's name; it has no individuals."""
        return {"backend": "reference", "chip": "ideal", "chip_hash": "none"}

    def open(self) -> None:
        """Nothing to connect to."""

    def close(self) -> None:
        """Forget the configuration."""
        self._circuit = None

    def configure(self, circuit: Circuit) -> None:
        """Remember the circuit.

        Raises:
            ValueError: it does not fit, or trials that follow closely are asked for; they are independent here.
        """
        check_circuit(circuit, CAPABILITIES)
        if circuit.trial_time is not None:
            raise ValueError("trial_time: trials of the reference device are always independent; use trial_time=None")
        self._circuit = circuit

    def run(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        """Run trials, one sub-step after the other."""
        circuit = check_run(self._circuit, weights, stimulus, CAPABILITIES.weight_max)
        batch, h, steps = stimulus.spikes.samples, circuit.dt / SUBSTEPS, circuit.samples * SUBSTEPS
        state = {p.name: _Neurons(p, batch, h) for p in circuit.populations}
        driven = [
            state[p.post].arrivals(stimulus.spikes, steps) if p.pre == INPUT else None for p in circuit.projections
        ]
        traces: dict[str, list[Tensor]] = {p.name: [] for p in circuit.populations}
        times: dict[str, list[Tensor]] = {p.name: [] for p in circuit.populations}
        for k in range(steps):
            for name, neurons in state.items():
                if k % SUBSTEPS == 0:
                    traces[name].append((neurons.v + 0.5).clamp(0, 255).to(torch.uint8))
            received = {name: torch.zeros(2, *neurons.v.shape) for name, neurons in state.items()}
            for p, external in zip(circuit.projections, driven, strict=True):
                sent = state[p.pre].sent(state[p.post]) if external is None else external[:, k]
                received[p.post] += sent @ weights[p.name].float().t()
            for name, neurons in state.items():
                neurons.step(*received[name])
                times[name].append(torch.where(neurons.fired, (k + 1) * h - neurons.age, torch.inf))
        spiking = [p.name for p in circuit.populations if p.threshold is not None]
        return Recording(
            spikes={name: _spikes(torch.stack(times[name], dim=1)) for name in spiking},
            traces={name: torch.stack(codes, dim=1) for name, codes in traces.items()},
            cost=Cost(batch * CAPABILITIES.trial_time, None, "estimated"),
        )


class _Neurons:
    """State of one population.

    Membrane `v`, synaptic current, rest of the refractory period (s), whether it spiked in the last sub-step and
    for how long (s) at its end, each `[B, N]`.
    """

    def __init__(self, p: Population, batch: int, h: float) -> None:
        self.p, self.h = p, h
        self.v = torch.full((batch, p.size), p.leak)
        self.current, self.held, self.age = (torch.zeros(batch, p.size) for _ in range(3))
        self.fired = torch.zeros(batch, p.size, dtype=torch.bool)

    def arrivals(self, spikes: Spikes, steps: int) -> Tensor:
        """Return what the events of each sub-step add to current and membrane at its end `[2, steps, B, inputs]`."""
        k = spikes.bins(self.h)
        inside = k < steps
        k, sample, unit = k[inside], spikes.sample[inside], spikes.unit[inside]
        effects = self.response(((k + 1).double() * self.h - spikes.time[inside].double()).float())
        grid = torch.zeros(2, steps, spikes.samples, spikes.units)
        return torch.stack(
            [g.index_put_((k, sample, unit), e, accumulate=True) for g, e in zip(grid, effects, strict=True)]
        )

    def sent(self, to: _Neurons) -> Tensor:
        """Return the same for the population `to`, from the own spikes of the sub-step before `[2, B, N]`."""
        return to.response(self.h + self.age) * self.fired

    def response(self, time: Tensor) -> Tensor:
        """Return current and membrane (above leak) at times (s) after an event of weight 1, `[2, ...]`."""
        return torch.stack([torch.exp(-time / self.p.tau_syn), self.charge(time)])

    def charge(self, time: Tensor) -> Tensor:
        """Return the membrane (above leak) at times (s) after a current of 1 began to decay."""
        rate = 1 / self.p.tau_mem - 1 / self.p.tau_syn
        integral = time if abs(rate * self.h) < 1e-9 else torch.expm1(time * rate) / rate
        return CAPABILITIES.synaptic_drive * torch.exp(-time / self.p.tau_mem) * integral

    def step(self, current: Tensor, membrane: Tensor) -> None:
        """Advance one sub-step, at whose end new events have added so much to current and membrane."""
        p, h, before = self.p, self.h, self.v
        free = (h - self.held).clamp(min=0)  # the part of the sub-step behind the refractory period
        released = self.current * torch.exp((free - h) / p.tau_syn)
        self.v = p.leak + (before - p.leak) * torch.exp(-free / p.tau_mem) + self.charge(free) * released
        self.v = self.v + membrane * (free / h)
        self.current = self.current * math.exp(-h / p.tau_syn) + current
        self.held = (self.held - h).clamp(min=0)
        if p.threshold is not None:
            self.fired = self.v > p.threshold
            self.age = free * ((self.v - p.threshold) / (self.v - before)).nan_to_num().clamp(0, 1)
            self.v = torch.where(self.fired, torch.tensor(p.reset), self.v)
            self.held = torch.where(self.fired, (p.refractory - self.age).clamp(min=0), self.held)


def _spikes(times: Tensor) -> Spikes:
    """Return events from one time, or infinity, per sub-step `[B, steps, N]`."""
    sample, step, unit = torch.isfinite(times).nonzero(as_tuple=True)
    return Spikes(sample, unit, times[sample, step, unit], times.shape[0], times.shape[2])
