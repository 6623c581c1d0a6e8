r"""The smallest device that is right: an ideal, readable chip. Copy it to write your own backend.

Current-based leaky integrate-and-fire neurons, integrated exactly on a fixed sub-step `h`::

    dI/dt = -I / tau_syn          I jumps by the integer weight at an event
    dV/dt = -(V - leak) / tau_mem + synaptic_drive * I
    V > threshold  ->  spike, V := reset for the refractory period

An event acts from its own time on. Thresholds are checked once per sub-step, the time of a spike within it is
interpolated, and the effect of the spike on other neurons shows from the end of the next sub-step on. Potentials are
real numbers; a recording rounds them to trace codes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from .backend import Backend
from .capabilities import Capabilities
from .checks import check_circuit, check_run
from .chips import BRAINSCALES2
from .circuit import INPUT, Circuit, Population
from .recording import Cost, Recording, Stimulus
from .spikes import Spikes

SUBSTEPS = 4
"""Sub-steps per trace sample."""
FRACTIONS = 64
"""Time stamps are multiples of this part of a sub-step, so that the order of a sum does not show in them."""
CAPABILITIES = replace(
    BRAINSCALES2,
    name="reference",
    trace_memory=None,
    timestamp_resolution=BRAINSCALES2.trace_interval / SUBSTEPS / FRACTIONS,
    spike_interval=BRAINSCALES2.trace_interval / SUBSTEPS,
    power=None,
    forced_reset=False,
    deterministic=True,
    selective=True,
    sources_per_input=64,
)
"""The chip's limits, but any number of trials per run."""


class ReferenceBackend(Backend):
    """An ideal chip without mismatch, noise, saturation or memory limit.

    Args:
        weight_max: Largest integer weight, as strong as the chip's largest weight of 63.

    Raises:
        ValueError: `weight_max` is out of the range of devices.
    """

    def __init__(self, weight_max: int = CAPABILITIES.weight_max) -> None:
        caps = replace(CAPABILITIES, weight_max=weight_max)
        self._capabilities = replace(
            caps, synaptic_drive=CAPABILITIES.synaptic_drive * (CAPABILITIES.weight_max / weight_max)
        )
        self._circuit: Circuit | None = None

    @property
    def capabilities(self) -> Capabilities:
        """The chip's limits, but any number of trials per run."""
        return self._capabilities

    @property
    def identity(self) -> Mapping[str, str]:
        """Return the device's name; it has no individuals."""
        widest = self._capabilities.weight_max
        chip = "ideal" if widest == CAPABILITIES.weight_max else f"ideal with weights up to {widest}"
        return {"backend": "reference", "chip": chip, "chip_hash": "none"}

    @property
    def tolerances(self) -> str:
        """Tolerances of an ideal chip."""
        return "ideal"

    def open(self) -> None:
        """Nothing to connect to."""

    def close(self) -> None:
        """Forget the configuration."""
        self._circuit = None

    def configure(self, circuit: Circuit) -> None:
        """Remember the circuit.

        Raises:
            ValueError: The circuit does not fit, or requests dependent trials by a `trial_time`.
        """
        check_circuit(circuit, self._capabilities)
        if circuit.trial_time is not None:
            raise ValueError("trial_time: trials of the reference device are always independent; use trial_time=None")
        self._circuit = circuit

    def run(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        """Run trials, one sub-step after the other."""
        circuit = check_run(self._circuit, weights, stimulus, self._capabilities.weight_max)
        batch = stimulus.spikes.samples
        h = circuit.dt / SUBSTEPS
        steps = circuit.samples * SUBSTEPS
        drive = self._capabilities.synaptic_drive
        state = {p.name: _Neurons(p, batch, h, drive) for p in circuit.populations}
        driven = [
            state[p.post].arrivals(stimulus.spikes, steps) if p.pre == INPUT else None for p in circuit.projections
        ]
        traces: dict[str, list[Tensor]] = {p.name: [] for p in circuit.traced}
        times: dict[str, list[Tensor]] = {p.name: [] for p in circuit.spiking}
        for k in range(steps):
            if k % SUBSTEPS == 0:
                for name, codes in traces.items():
                    codes.append((state[name].v + 0.5).clamp(0, 255).to(torch.uint8))
            received = {name: torch.zeros(2, *neurons.v.shape).double() for name, neurons in state.items()}
            for p, external in zip(circuit.projections, driven, strict=True):
                events = state[p.post].effects(state[p.pre].stamps, k) if external is None else external[:, k]
                received[p.post] += events @ weights[p.name].double().t()
            for name, neurons in state.items():
                current, membrane = received[name]
                neurons.step(current, membrane, k)
            for name, stamps in times.items():
                stamps.append(state[name].stamps)
        return Recording(
            spikes={name: _spikes(torch.stack(stamps, dim=1)) for name, stamps in times.items()},
            traces={name: torch.stack(codes, dim=1) for name, codes in traces.items()},
            cost=Cost(batch * CAPABILITIES.trial_time, None, "estimated"),
            clock=stimulus.clock,
        )


class _Neurons:
    """State of one population.

    Membrane `v`, synaptic current, rest of the refractory period (s), and time of the spike in the last sub-step,
    infinite without one (s), each `[B, N]`.
    """

    def __init__(self, p: Population, batch: int, h: float, drive: float) -> None:
        self.p = p
        self.h = h
        self.drive = drive
        self.v = torch.full((batch, p.size), p.leak, dtype=torch.float64)
        self.current, self.held = torch.zeros_like(self.v), torch.zeros_like(self.v)
        self.stamps = torch.full((batch, p.size), torch.inf)

    def arrivals(self, spikes: Spikes, steps: int) -> Tensor:
        """Return the effects of external events in each sub-step `[2, steps, B, inputs]`."""
        k = spikes.bins(self.h)
        inside = k < steps
        place = (k[inside], spikes.sample[inside], spikes.unit[inside])
        k = k[inside]
        grid = torch.zeros(2, steps, spikes.samples, spikes.units, dtype=torch.float64)
        for total, effect in zip(grid, self.effects(spikes.time[inside], k), strict=True):
            total.index_put_(place, effect, accumulate=True)
        return grid

    def effects(self, time: Tensor, k: int | Tensor) -> Tensor:
        """Return current and membrane at the end of sub-step `k`, from events of weight 1 at `time` (s) `[2, ...]`."""
        left = (k + 1) * self.h - time.double()
        happened = torch.isfinite(left)
        left = torch.where(happened, left, 0)
        return torch.stack([torch.exp(-left / self.p.tau_syn), self.charge(left)]) * happened

    def charge(self, time: Tensor) -> Tensor:
        """Return the membrane (above leak) at times (s) after a current of 1 began to decay."""
        rate = 1 / self.p.tau_mem - 1 / self.p.tau_syn
        integral = time if abs(rate * self.h) < 1e-9 else torch.expm1(time * rate) / rate
        return self.drive * torch.exp(-time / self.p.tau_mem) * integral

    def step(self, current: Tensor, membrane: Tensor, k: int) -> None:
        """Advance sub-step `k`; `current` and `membrane` are the effects of new events at its end."""
        p = self.p
        h = self.h
        previous = self.v
        free = (h - self.held).clamp(min=0)  # the part of the sub-step after the refractory period
        released = self.current * torch.exp((free - h) / p.tau_syn)
        self.v = p.leak + (previous - p.leak) * torch.exp(-free / p.tau_mem) + self.charge(free) * released
        self.v = self.v + membrane * (free / h)
        self.current = self.current * math.exp(-h / p.tau_syn) + current
        self.held = (self.held - h).clamp(min=0)
        if p.threshold is not None:
            self._spike(previous, free, p.threshold, k)

    def _spike(self, previous: Tensor, free: Tensor, threshold: float, k: int) -> None:
        """Reset what exceeds its threshold; the crossing lies on a straight line in the free part of the sub-step."""
        fired = self.v > threshold
        since = free * (self.v - threshold) / torch.where(fired, self.v - previous, 1)
        since = (since * (FRACTIONS / self.h)).round().clamp(1, FRACTIONS) * (self.h / FRACTIONS)
        self.stamps = torch.where(fired, (k + 1) * self.h - since, torch.inf).float()
        self.v = torch.where(fired, self.p.reset, self.v)
        self.held = torch.where(fired, (self.p.refractory - since).clamp(min=0), self.held)


def _spikes(times: Tensor) -> Spikes:
    """Return events from one time, or infinity, per sub-step `[B, steps, N]`."""
    sample, step, unit = torch.isfinite(times).nonzero(as_tuple=True)
    return Spikes.trusted(sample, unit, times[sample, step, unit], times.shape[0], times.shape[2])
