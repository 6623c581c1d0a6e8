"""A device as a test bench: circuits with external inputs only, stimuli of simultaneous events.

The measurements use the contract alone. `hxtrain.execution.Session` splits runs by trace memory, repeats and checks
them.
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
"""Index of the trace interval in which stimuli begin."""
OFFSETS = 4
"""Number of sub-sample offsets of a stimulus, equally spaced in a trace interval (equivalent-time sampling)."""
TRIAL_LENGTH = 5.0
"""Length of a trial after the stimulus, in units of the longest target time constant."""


class Trials(NamedTuple):
    """Recorded trials: codes uint8 `[B, T, N]`, and spikes of all neurons (no events if spiking is disabled)."""

    codes: npt.NDArray[np.uint8]
    spikes: Spikes

    def spike_times(self, count: int) -> Array:
        """Return the first `count` spike times of every trial and neuron (s) `[count, B, N]`; infinite if missing."""
        spikes = self.spikes.ordered()
        row = (spikes.sample * spikes.units + spikes.unit).numpy()
        order = np.argsort(row, kind="stable")
        row = row[order]
        time = spikes.time.double().numpy()[order]
        first = np.searchsorted(row, row, side="left")
        rank = np.arange(len(row)) - first
        mask = rank < count
        times = np.full((count, spikes.samples * spikes.units), np.inf)
        times[rank[mask], row[mask]] = time[mask]
        return times.reshape(count, spikes.samples, spikes.units)


class Bench:
    """Drives a device for measurements on the neurons of a circuit, at the circuit's targets.

    Populations keep their order and thus their physical circuits; all signed inputs of every neuron are external.
    A readout population (no threshold) gets the device's usual threshold when spikes are measured.

    Args:
        backend: open device.
        circuit: populations to characterise, all with the same number of merged circuits.
        seed: seed of the order of trials and of the estimators' random numbers.
        retries: number of repeats of a failed run.

    Attributes:
        neurons: number of neurons `N`.
        merged: number of merged circuits per neuron `A`.
        inputs: number of inputs `J = A * inputs_per_circuit`.
        session: driver of the backend; `session.clock` counts the trials.
        health: losses and retries of all runs.

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
        self.samples = START + int(np.ceil(TRIAL_LENGTH * longest / self.dt)) + 1

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
        """Return the offsets of `count` trials (s), which cycle through the sub-sample offsets."""
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
            samples: number of trace samples per trial; None for `self.samples`.
        """
        times = np.where(fired, self.start + offsets[:, None], np.inf)
        return self.stimulate(weights, Spikes.from_times(torch.from_numpy(times)), spiking, samples)

    def quiet(self, trials: int, spiking: bool, samples: int | None = None) -> Trials:
        """Run trials without events."""
        empty = torch.zeros(0, dtype=torch.int64)
        spikes = Spikes(empty, empty, empty.float(), trials, self.inputs)
        return self.stimulate(np.zeros((self.neurons, self.inputs), np.int64), spikes, spiking, samples)

    def align(self, block: int, spiking: bool) -> None:
        """Run quiet trials until the clock is a multiple of `block`."""
        trials = -self.session.clock % block
        if trials:
            self.quiet(trials, spiking)

    def stimulate(
        self, weights: npt.NDArray[np.int64], spikes: Spikes, spiking: bool, samples: int | None = None
    ) -> Trials:
        """Run trials with arbitrary events."""
        circuit = self._circuit(spiking, samples or self.samples)
        rows = np.split(weights, np.cumsum([p.size for p in self.populations])[:-1])
        names = [f"{INPUT}->{p.name}" for p in self.populations]
        integers: dict[str, Tensor] = {
            name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in zip(names, rows, strict=True)
        }
        recording = self.session.record(circuit, self._parts, integers, spikes)
        self.health = self.health + recording.health
        codes = torch.cat([recording.traces[p.name].cpu() for p in self.populations], dim=2)
        spikes_of_parts = [recording.spikes[p.name].to("cpu") for p in self.populations] if spiking else []
        return Trials(codes.numpy(), _join(spikes_of_parts, spikes.samples, self.neurons))

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
    """Return a circuit of one population with the targets of the device."""
    caps = backend.capabilities
    population = Population(
        "neurons", size, merged, caps.leak, caps.threshold, caps.reset, tau_mem, tau_syn, caps.refractory
    )
    return Circuit(0, (population,), (), 1, caps.trace_interval)


def _join(parts: list[Spikes], samples: int, neurons: int) -> Spikes:
    """Return the events of several populations as events of one population."""
    empty = torch.zeros(0, dtype=torch.int64)
    sample = [empty]
    unit = [empty]
    time = [empty.float()]
    first = 0
    for part in parts:
        sample.append(part.sample)
        unit.append(part.unit + first)
        time.append(part.time)
        first += part.units
    return Spikes.from_events(torch.cat(sample), torch.cat(unit), torch.cat(time), samples, neurons)
