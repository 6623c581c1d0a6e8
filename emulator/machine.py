"""The emulated chip as a machine: configure it with a layout, run integer weights and events.

It returns what a chip returns (8-bit codes, spike events with 8 ns stamps) and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import kernel
from .chip import Chip
from .dynamics import ON_CHIP_DELAY, build_neurons, build_propagators, synapse_factors
from .layout import CADC_INTERVAL, ROWS_PER_CIRCUIT, TIMESTAMP_RESOLUTION, WEIGHT_MAX, Layout
from .preset import THRESHOLD_WINDOW
from .rng import derive_key, normal_table, sample_keys, splitmix64
from .stepwise import Stepwise

Engine = Literal["compiled", "stepwise"]


MAX_SUBSTEPS = 64
"""Finest division of a CADC sample; beyond, the on-chip delay (80 ns) spans too many sub-steps to interpolate."""
MAX_STEPS = 1 << 14
"""Sub-steps of a trial that the noise's counter can tell apart."""


class Events(NamedTuple):
    """Events grouped by sample: sample, unit int64 `[E]`, time in seconds float32 `[E]`."""

    sample: Tensor
    unit: Tensor
    time: Tensor


class RawRecording(NamedTuple):
    """What a run gives: CADC codes `[B, T, N]` uint8 and the spikes of all neurons."""

    codes: Tensor
    spikes: Events


@dataclass(frozen=True)
class _Program:
    """A configured chip: everything that does not change between runs."""

    layout: Layout
    samples: int
    params: kernel.Params
    scalars: kernel.Scalars
    factors: list[tuple[Tensor, Tensor]]
    capacity: int


class EmulatedChip:
    """One emulated chip individual.

    Args:
        chip: the individual (name and preset).
        seed: seed of the temporal noise; noise depends on chip, seed, the sample's place on the
            chip's clock, neuron and step, never on how a run is split.
        substeps: sub-steps per CADC sample on which threshold crossings are looked for.
        engine: "compiled" (CPU) or "stepwise" (torch, any device).
        device: torch device of the stepwise engine.
        dtype: precision of the stepwise engine.
    """

    def __init__(
        self,
        chip: Chip,
        seed: int = 0,
        substeps: int = 4,
        engine: Engine = "compiled",
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not isinstance(substeps, int):
            raise TypeError(f"substeps={substeps!r} must be a whole number")
        if not 1 <= substeps <= MAX_SUBSTEPS:
            raise ValueError(f"substeps={substeps} must be in 1..{MAX_SUBSTEPS}")
        if engine == "compiled" and torch.device(device).type != "cpu":
            raise ValueError(f"engine='compiled' runs on the CPU, not on device={device!r}; use engine='stepwise'")
        self.chip, self.seed, self.substeps = chip, seed, substeps
        self.engine, self.device, self.dtype = engine, device, dtype
        self._noise_key = derive_key("temporal noise", chip.hash, seed)
        self._threshold_key = derive_key("threshold noise", chip.hash, seed)
        self._program: _Program | None = None
        self._written: tuple[list[tuple[int, int]], list[Tensor], tuple[Tensor, Tensor]] | None = None
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1)

    def configure(self, layout: Layout, samples: int) -> None:
        """Apply a layout; every run then records `samples` CADC samples per trial."""
        if not 1 <= samples * self.substeps <= MAX_STEPS:
            raise ValueError(
                f"samples={samples} times substeps={self.substeps} must be in 1..{MAX_STEPS}; record fewer samples"
            )
        neurons = build_neurons(self.chip, layout)
        step = CADC_INTERVAL / self.substeps
        prop, preset, f32 = build_propagators(neurons, step), self.chip.preset, kernel.as_float32
        external, internal = _circuit_maps(layout)
        params = kernel.Params(
            rest=f32(neurons.rest * -np.expm1(-step / neurons.tau_mem)),
            start=f32(neurons.rest),
            threshold=f32(neurons.threshold),
            reset=f32(neurons.reset),
            refractory=f32(neurons.refractory / step),
            mem=f32(prop.mem),
            syn=f32(prop.syn),
            drive=f32(prop.drive),
            noise=f32(prop.noise * preset.membrane_noise),
            cadc_offset=f32(neurons.cadc_offset),
            cadc_gain=f32(neurons.cadc_gain),
            bounds=np.array(layout.bounds),
            external_circuit=external,
            internal_circuit=internal,
            table=normal_table(),
        )
        low, high = preset.rails or (-1e6, 1e6)
        scalars = kernel.Scalars(
            samples=samples,
            per_sample=self.substeps,
            delay=ON_CHIP_DELAY / step,
            jitter=preset.spike_jitter / step,
            cadc_noise=preset.cadc_noise,
            saturation=preset.synapse_saturation or 0.0,
            low=low,
            high=high,
            railed=preset.rails is not None,
            noisy=preset.membrane_noise > 0,
        )
        shortest = max(1, int(min(g.refractory for g in layout.groups) / step))
        capacity = layout.bounds[-1] * (samples * self.substeps // shortest + 2)
        factors = [
            (torch.as_tensor(exc, dtype=torch.float32), torch.as_tensor(inh, dtype=torch.float32))
            for exc, inh in synapse_factors(self.chip, layout, neurons)
        ]
        self._program = _Program(layout, samples, params, scalars, factors, capacity)
        self._written = None

    def run(self, weights: Sequence[Tensor], events: Events, batch: int, clock: int = 0) -> RawRecording:
        """Run `batch` trials.

        Args:
            weights: one integer tensor `[targets, sources]` per wiring, magnitudes up to 63.
            events: external events, grouped by sample.
            batch: number of trials `B`.
            clock: place of the first trial on the chip's clock (counts trials).

        Raises:
            RuntimeError: the chip is not configured.
            ValueError: a weight or event is out of range, or has the wrong shape or order.
        """
        if self._program is None:
            raise RuntimeError("the emulated chip is not configured; call configure(layout, samples) first")
        self._check_events(self._program, events, batch)
        external, internal = self._programmed(self._program, weights)
        clocks = np.arange(clock, clock + batch, dtype=np.uint64)
        keys, eta = sample_keys(self._noise_key, clocks), self._threshold_noise(clocks)
        step = CADC_INTERVAL / self.substeps
        scaled = Events(events.sample, events.unit, events.time / step)
        engine = self._run_compiled if self.engine == "compiled" else self._run_stepwise
        codes, spikes = engine(self._program, scaled, external, internal, eta, keys)
        stamps = torch.round(spikes.time * (step / TIMESTAMP_RESOLUTION)) * TIMESTAMP_RESOLUTION
        return RawRecording(codes, spikes._replace(time=stamps))

    @staticmethod
    def _check_events(program: _Program, events: Events, batch: int) -> None:
        if len(events.sample) == 0:
            return
        lowest, highest = int(events.unit.min()), int(events.unit.max())
        if lowest < 0 or highest >= program.layout.inputs:
            raise ValueError(f"events.unit spans {lowest}..{highest}, the layout has {program.layout.inputs} inputs")
        if int(events.sample[0]) < 0 or int(events.sample[-1]) >= batch or bool((events.sample.diff() < 0).any()):
            raise ValueError(f"events.sample must be ascending and within 0..{batch - 1}")
        if not float(events.time.min()) >= 0:
            raise ValueError(f"events.time must not be negative, smallest is {float(events.time.min())} s")

    def _programmed(self, program: _Program, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the charges of `weights`; the very tensors of the last run are not written again."""
        if any(w.is_inference() for w in weights):  # such tensors do not count their changes
            return self._charges(program, weights)
        version = [(id(w), w._version) for w in weights]
        if self._written is None or self._written[0] != version:
            self._written = (version, list(weights), self._charges(program, weights))
        return self._written[2]

    def _charges(self, program: _Program, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the signed synaptic charges of external `[J, N]` and internal `[N, N]` synapses."""
        layout, bounds = program.layout, program.layout.bounds
        if len(weights) != len(layout.wirings):
            raise ValueError(f"got {len(weights)} weight matrices for {len(layout.wirings)} wirings")
        external = torch.zeros(layout.inputs, bounds[-1])
        internal = torch.zeros(bounds[-1], bounds[-1])
        for index, (wiring, matrix) in enumerate(zip(layout.wirings, weights, strict=True)):
            shape = (layout.groups[wiring.target].size, wiring.size)
            if tuple(matrix.shape) != shape:
                raise ValueError(f"weights {index} have shape {tuple(matrix.shape)}, expected {shape}")
            if matrix.is_floating_point():
                raise ValueError(f"weights {index} are {matrix.dtype}, expected integers")
            largest = max(int(matrix.max()), -int(matrix.min())) if matrix.numel() else 0
            if largest > WEIGHT_MAX:
                raise ValueError(f"weights {index} reach {largest}, the synapses hold up to {WEIGHT_MAX}")
            exc, inh = program.factors[index]
            w = matrix.t().to("cpu", torch.float32)
            columns = slice(bounds[wiring.target], bounds[wiring.target + 1])
            charge = torch.where(w > 0, w * exc, w * inh)
            if wiring.source is None:
                external[:, columns] = charge
            else:
                internal[bounds[wiring.source] : bounds[wiring.source + 1], columns] = charge
        return external, internal

    def _threshold_noise(self, clocks: np.ndarray) -> np.ndarray:
        """Return the slow threshold noise `[B, N]` in LSB: one draw per neuron and window of the clock."""
        assert self._program is not None
        neurons = self._program.layout.bounds[-1]
        windows, index = np.unique(clocks // np.uint64(THRESHOLD_WINDOW), return_inverse=True)
        counters = (windows[:, None] * np.uint64(4096) + np.arange(neurons, dtype=np.uint64)).astype(np.uint64)
        words = splitmix64(self._threshold_key, counters)
        eta = self.chip.preset.threshold_noise * normal_table()[words >> np.uint64(48)]
        return kernel.as_float32(eta[index])

    def _run_compiled(
        self,
        program: _Program,
        events: Events,
        external: Tensor,
        internal: Tensor,
        eta: np.ndarray,
        keys: np.ndarray,
    ) -> tuple[Tensor, Events]:
        batch, neurons = eta.shape
        offsets = np.zeros(batch + 1, np.int64)
        np.cumsum(np.bincount(events.sample.numpy(), minlength=batch), out=offsets[1:])
        codes = np.empty((batch, program.samples, neurons), np.uint8)
        counts = np.zeros(batch, np.int64)
        who = np.empty((batch, program.capacity), np.int64)
        when = np.empty((batch, program.capacity), np.float32)

        def work(part: tuple[int, int]) -> None:
            kernel.simulate(
                *part, offsets, events.unit.numpy(), events.time.numpy(), external.numpy(), internal.numpy(),
                eta, keys, program.params, program.scalars, codes, counts, who, when,
            )  # fmt: skip

        edges = np.linspace(0, batch, min(batch, 2 * self._pool._max_workers) + 1).astype(int).tolist()
        list(self._pool.map(work, pairwise(edges)))
        if counts.max(initial=0) > program.capacity:
            raise RuntimeError(f"a trial had {counts.max()} spikes, room was for {program.capacity}; this is a bug")
        used = torch.arange(program.capacity) < torch.from_numpy(counts)[:, None]
        sample = torch.repeat_interleave(torch.arange(batch), torch.from_numpy(counts))
        spikes = Events(sample, torch.from_numpy(who)[used], torch.from_numpy(when)[used])
        return torch.from_numpy(codes), spikes

    def _run_stepwise(
        self,
        program: _Program,
        events: Events,
        external: Tensor,
        internal: Tensor,
        eta: np.ndarray,
        keys: np.ndarray,
    ) -> tuple[Tensor, Events]:
        engine = Stepwise(program.params, program.scalars, self.device, self.dtype)
        sample, unit, time = (part.to(self.device) for part in events)
        matrices = (part.to(self.device, self.dtype) for part in (external, internal, torch.from_numpy(eta)))
        words = torch.from_numpy(keys.astype(np.int64)).to(self.device)
        charge, recurrent, noise = matrices
        codes, *spikes = engine.simulate(sample, unit, time, charge, recurrent, noise, words)
        found = Events(*spikes)
        order = torch.argsort(found.sample, stable=True)
        return codes, Events(found.sample[order], found.unit[order], found.time[order].float())


def _circuit_maps(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Return the merged circuit that each external input `[J, G]` and neuron `[N, G]` drives in each group."""
    external = np.full((layout.inputs, len(layout.groups)), -1)
    internal = np.full((layout.bounds[-1], len(layout.groups)), -1)
    for wiring in layout.wirings:
        circuit = (wiring.first_row + np.arange(wiring.size)) // ROWS_PER_CIRCUIT
        if wiring.source is None:
            external[:, wiring.target] = circuit
        else:
            first = layout.bounds[wiring.source]
            internal[first : first + wiring.size, wiring.target] = circuit
    return external, internal
