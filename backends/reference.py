r"""The smallest device that is right: an ideal, readable chip. Copy it to write your own backend.

Current-based leaky integrate-and-fire neurons, integrated on a fixed sub-step `h`::

    dI/dt = -I / tau_syn          I jumps by the integer weight at an event
    dV/dt = -(V - leak) / tau_mem + synaptic_drive * I
    V > threshold  ->  spike, V := reset for the refractory period

Potentials are real numbers here; a recording rounds them to trace codes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from .chips import BRAINSCALES2
from .contract import INPUT, Backend, Capabilities, Circuit, Cost, Population, Recording, Stimulus, check_run
from .spikes import Spikes

SUBSTEPS = 4
"""Sub-steps per trace sample."""
CAPABILITIES = replace(
    BRAINSCALES2,
    name="reference",
    trace_memory=None,
    timestamp_resolution=BRAINSCALES2.trace_interval / SUBSTEPS,
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
            ValueError: trials that follow closely are asked for; they are independent here.
        """
        if circuit.trial_time is not None:
            raise ValueError("trial_time: trials of the reference device are always independent; use trial_time=None")
        self._circuit = circuit

    def run(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        """Run trials, one sub-step after the other."""
        circuit = check_run(self._circuit, weights, stimulus, CAPABILITIES.weight_max)
        batch = stimulus.spikes.samples
        h, steps = circuit.dt / SUBSTEPS, circuit.samples * SUBSTEPS
        arriving = stimulus.spikes.to_grid(h, steps)
        state = {p.name: _Neurons(p, batch, h, CAPABILITIES.synaptic_drive) for p in circuit.populations}
        spikes = {p.name: torch.zeros(steps, batch, p.size) for p in circuit.populations}
        traces: dict[str, list[Tensor]] = {p.name: [] for p in circuit.populations}
        for k in range(steps):
            for name, neurons in state.items():
                if k % SUBSTEPS == 0:
                    traces[name].append((neurons.v + 0.5).clamp(0, 255).to(torch.uint8))
            for projection in circuit.projections:
                sent = spikes[projection.pre][k - 1] if projection.pre != INPUT else arriving[k]
                state[projection.post].current += sent @ weights[projection.name].float().t()
            for name, neurons in state.items():
                spikes[name][k] = neurons.step()
        chip_time = batch * CAPABILITIES.trial_time
        spiking = [p for p in circuit.populations if p.threshold is not None]
        return Recording(
            spikes={p.name: Spikes.from_grid(spikes[p.name], h) for p in spiking},
            traces={name: torch.stack(codes, dim=1) for name, codes in traces.items()},
            cost=Cost(chip_time, None, "estimated"),
        )


class _Neurons:
    """State of one population: membrane `v`, synaptic current, rest of the refractory period `[B, N]`."""

    def __init__(self, p: Population, batch: int, h: float, drive: float) -> None:
        self.p, self.h, self.drive = p, h, drive
        self.v = torch.full((batch, p.size), p.leak)
        self.current = torch.zeros(batch, p.size)
        self.held = torch.zeros(batch, p.size)
        self.mem, self.syn = math.exp(-h / p.tau_mem), math.exp(-h / p.tau_syn)
        rate = 1 / p.tau_mem - 1 / p.tau_syn
        self.integral = self.mem * (h if abs(h * rate) < 1e-9 else math.expm1(h * rate) / rate)

    def step(self) -> Tensor:
        """Advance one sub-step and return the spikes `[B, N]`."""
        p = self.p
        self.v = p.leak + (self.v - p.leak) * self.mem + self.drive * self.integral * self.current
        self.current = self.current * self.syn
        self.v = torch.where(self.held > 0, torch.tensor(p.reset), self.v)
        self.held = (self.held - self.h).clamp(min=0)
        if p.threshold is None:
            return torch.zeros_like(self.v)
        fired = self.v > p.threshold
        self.v = torch.where(fired, torch.tensor(p.reset), self.v)
        self.held = torch.where(fired, torch.tensor(p.refractory), self.held)
        return fired.float()
