"""A device as a measuring bench: circuits with external inputs only, stimuli of simultaneous events.

Nothing here or above knows more of a device than the contract says. Splitting by trace memory, retries and checks are
those of `hxtrain.execution.session.Session`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hxtrain.backends import INPUT, Backend, Circuit, Health, Population, Projection, Spikes
from hxtrain.execution import Session
from hxtrain.execution.partition import Part, partition

Array = npt.NDArray[np.float64]
START = 2
"""Trace interval in which stimuli begin."""
OFFSETS = 4
"""Sub-sample offsets of a stimulus, in equal steps of the trace interval (equivalent-time sampling)."""
SETTLED = 5.0
"""Length of a trial after the stimulus, in units of the longest target time constant."""


class Trials(NamedTuple):
    """What some trials gave: codes uint8 `[B, T, N]`; spikes of all neurons (no events where spiking is disabled)."""

    codes: npt.NDArray[np.uint8]
    spikes: Spikes

    def spike_times(self, count: int) -> Array:
        """Return the first `count` spike times of every trial and neuron (s) `[count, B, N]`; infinite where none."""
        spikes = self.spikes.ordered()
        row = (spikes.sample * spikes.units + spikes.unit).numpy()
        order = np.argsort(row, kind="stable")
        row, time = row[order], spikes.time.double().numpy()[order]
        first = np.searchsorted(row, row, side="left")
        rank = np.arange(len(row)) - first
        kept = rank < count
        found = np.full((count, spikes.samples * spikes.units), np.inf)
        found[rank[kept], row[kept]] = time[kept]
        return found.reshape(count, spikes.samples, spikes.units)


class Bench:
    """Drives a device for measurements on the neurons of a circuit, at the circuit's own targets.

    Populations keep their order and thus their physical circuits; all signed inputs of every neuron are external.
    A readout population (no threshold) gets the device's usual threshold where spikes are measured.

    Args:
        backend: an open device.
        circuit: populations to characterise; all with one number of merged circuits.
        seed: of the order of trials and of the estimators' random numbers.
        retries: how often a failed run is repeated.

    Attributes:
        neurons, merged, inputs: `N`, `A` and `J = A * inputs_per_circuit`.
        session: drives the backend, and counts the trials so far in `session.clock`.
        health: what went wrong so far.

    Raises:
        ValueError: populations differ in their merged circuits, or the device records no traces.
    """

    def __init__(self, backend: Backend, circuit: Circuit, seed: int = 0, retries: int = 5) -> None:
        caps = backend.capabilities
        merged = {p.merged for p in circuit.populations}
        if len(merged) != 1:
            raise ValueError(
                f"circuit.populations merge {sorted(merged)} circuits; characterise populations of one kind at a time"
            )
        if not caps.traces:
            raise ValueError(f"device {caps.name!r} records no membrane traces, which a characterisation needs")
        self.session = Session(backend, retries)
        self.capabilities = caps
        self.circuit: Circuit | None = None
        self._parts: tuple[Part, ...] = ()
        self.populations = tuple(replace(p, threshold=p.threshold or caps.threshold) for p in circuit.populations)
        self.merged = merged.pop()
        self.neurons = sum(p.size for p in circuit.populations)
        self.inputs = self.merged * caps.inputs_per_circuit
        self.rng = np.random.default_rng(seed)
        self.health = Health()
        self.dt = caps.trace_interval
        longest = max(max(p.tau_mem, p.tau_syn) for p in circuit.populations)
        self.samples = START + int(np.ceil(SETTLED * longest / self.dt)) + 1

    def target(self, name: str) -> Array:
        """Return a target of each neuron `[N]`, by its name in `Population`."""
        values: Array = np.concatenate([np.full(p.size, getattr(p, name), np.float64) for p in self.populations])
        return values

    @property
    def start(self) -> float:
        """Time of a stimulus with offset 0 (s)."""
        return START * self.dt

    @property
    def times(self) -> Array:
        """Times of the trace samples `[T]` (s)."""
        return np.arange(self.samples, dtype=np.float64) * self.dt

    def offsets(self, count: int) -> Array:
        """Return the offsets of `count` trials (s): the sub-sample offsets in turn."""
        return np.arange(count, dtype=np.float64) % OFFSETS * (self.dt / OFFSETS)

    def run(
        self, weights: npt.NDArray[np.int64], fired: Array, offsets: Array, spiking: bool, samples: int | None = None
    ) -> Trials:
        """Run trials, each with simultaneous events of some inputs.

        Args:
            weights: signed integers `[N, J]`.
            fired: inputs of each trial, bool `[B, J]`.
            offsets: time of the events after `start` `[B]` (s).
            spiking: whether neurons may spike.
            samples: trace samples per trial; None for `self.samples`.
        """
        times = np.where(fired, self.start + offsets[:, None], np.inf)
        return self.stimulate(weights, Spikes.from_times(torch.from_numpy(times)), spiking, samples)

    def quiet(self, trials: int, spiking: bool, samples: int | None = None) -> Trials:
        """Run trials without any event."""
        none = torch.zeros(0, dtype=torch.int64)
        spikes = Spikes(none, none, none.float(), trials, self.inputs)
        return self.stimulate(np.zeros((self.neurons, self.inputs), np.int64), spikes, spiking, samples)

    def align(self, block: int, spiking: bool) -> None:
        """Run quiet trials until the clock is a multiple of `block`."""
        missing = -self.session.clock % block
        if missing:
            self.quiet(missing, spiking)

    def stimulate(
        self, weights: npt.NDArray[np.int64], spikes: Spikes, spiking: bool, samples: int | None = None
    ) -> Trials:
        """Run trials with any events."""
        circuit = self._circuit(spiking, samples or self.samples)
        rows = np.split(weights, np.cumsum([p.size for p in self.populations])[:-1])
        names = [f"{INPUT}->{p.name}" for p in self.populations]
        integers: dict[str, Tensor] = {
            name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in zip(names, rows, strict=True)
        }
        recording = self.session.record(circuit, self._parts, integers, spikes)
        self.health = self.health + recording.health
        codes = torch.cat([recording.traces[p.name].cpu() for p in self.populations], dim=2)
        found = [recording.spikes[p.name].to("cpu") for p in self.populations] if spiking else []
        return Trials(codes.numpy(), _joined(found, spikes.samples, self.neurons))

    def _circuit(self, spiking: bool, samples: int) -> Circuit:
        """Return the circuit of a run, and keep it with its parts for the next one."""
        populations = tuple(p if spiking else replace(p, threshold=None) for p in self.populations)
        projections = tuple(Projection(f"{INPUT}->{p.name}", INPUT, p.name, self.inputs) for p in self.populations)
        circuit = Circuit(self.inputs, populations, projections, samples, self.dt)
        if self.circuit != circuit:
            self.circuit = circuit
            self._parts = partition(circuit, self.capabilities)
        return circuit


def bench_circuit(size: int, merged: int, backend: Backend, tau_mem: float = 6e-6, tau_syn: float = 6e-6) -> Circuit:
    """Return a circuit of one population with the targets that the device asks for."""
    caps = backend.capabilities
    population = Population(
        "neurons", size, merged, caps.leak, caps.threshold, caps.reset, tau_mem, tau_syn, caps.refractory
    )
    return Circuit(0, (population,), (), 1, caps.trace_interval)


def _joined(parts: list[Spikes], samples: int, neurons: int) -> Spikes:
    """Return the events of several populations as those of one."""
    none = torch.zeros(0, dtype=torch.int64)
    sample, unit, time, first = [none], [none], [none.float()], 0
    for part in parts:
        sample.append(part.sample)
        unit.append(part.unit + first)
        time.append(part.time)
        first += part.units
    return Spikes.from_events(torch.cat(sample), torch.cat(unit), torch.cat(time), samples, neurons)
