"""The emulated chip as a machine: configure it with a layout, run integer weights and events.

Like a chip, it returns only 8-bit codes and spike events with 8 ns stamps. A machine may hold several chips; each
trial then runs on one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hxtrain.emulator.engines import make_engine
from hxtrain.emulator.engines.engine import Setup

from .chip import Chip, uniform_targets
from .drift import drift_walk
from .dynamics import (
    ON_CHIP_DELAY,
    RESET_TAU,
    Neurons,
    build_neurons,
    build_propagators,
    noise_of,
    synapse_blocks,
)
from .fitted import FittedChip
from .layout import CADC_INTERVAL, CIRCUITS, ROWS_PER_CIRCUIT, WEIGHT_MAX, Layout
from .parameters import Float, Params, Rows, Scalars
from .preset import THRESHOLD_WINDOW, Preset
from .rng import derive_key, fixed_normal, normal_table, sample_keys, splitmix64, uniform
from .trials import Events, Trials
from .volley import crowded_spikes, surviving_spikes

Individual = Chip | FittedChip

MAX_SUBSTEPS = 64
"""Finest division of a CADC sample; with finer sub-steps the on-chip delay (80 ns) spans too many to interpolate."""
MAX_STEPS = 1 << 14
"""Largest number of sub-steps of a trial, set by the width of the noise counter."""


class RawRecording(NamedTuple):
    """The result of a run.

    Attributes:
        codes: CADC codes `[B, T, N]` uint8 of the groups whose membranes are recorded (`Group.traced`).
        spikes: recorded spikes of all neurons.
        dropped: number of spikes of each trial that the chip could not record, int64 `[B]`.
    """

    codes: Tensor
    spikes: Events
    dropped: Tensor


@dataclass(frozen=True)
class _Program:
    """Configured chips: all quantities that do not change between runs.

    Attributes:
        layout: layout of the chips.
        samples: CADC samples per trial.
        neurons: true parameters of the logical neurons of each chip.
        recovery: share of the distance to the rest that a membrane recovers in one sub-step `[C, N]`.
        quadrant: quadrant of each neuron `[N]`.
    """

    layout: Layout
    samples: int
    neurons: list[Neurons]
    recovery: npt.NDArray[np.float64]
    quadrant: Tensor


class EmulatedChip:
    """One emulated chip individual, or several side by side.

    Args:
        chip: the individual, or several; each trial then runs on one of them, drawn from its time on the clock.
        seed: seed of the temporal noise. The noise depends on the chip's name, the seed, the trial's time on the chip's
            clock, neuron and step, but not on the split into runs.
        substeps: number of sub-steps per CADC sample at which threshold crossings are detected.
        engine: "cpu", "gpu" or "readable" (any device); see `engines`.
        device: torch device of the emulation; events and weights may be on another device. Recordings are on `device`
            if it is a CUDA device, else on the CPU.
        dtype: precision of the readable engine.
        trial_time: chip time from trial to trial (s), on which slow drift advances.
    """

    def __init__(
        self,
        chip: Individual | Sequence[Individual],
        seed: int = 0,
        substeps: int = 4,
        engine: str = "cpu",
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        trial_time: float = 200e-6,
    ) -> None:
        if not isinstance(substeps, int):
            raise TypeError(f"substeps={substeps!r} must be a whole number")
        if not 1 <= substeps <= MAX_SUBSTEPS:
            raise ValueError(f"substeps={substeps} must be in 1..{MAX_SUBSTEPS}")
        self.engine = make_engine(engine, torch.device(device), dtype)
        self.chips: list[Individual] = [chip] if isinstance(chip, Chip | FittedChip) else list(chip)
        noises = {individual.noise for individual in self.chips}
        if len(noises) != 1:
            raise ValueError(f"chips side by side need common noise levels, got {len(noises)} different ones")
        self.noise: Preset = noises.pop()
        self.seed = seed
        self.substeps = substeps
        self.trial_time = trial_time
        self.recording_device = self.engine.recording_device
        self._program: _Program | None = None
        self._charge_cache: tuple[list[tuple[int, int]], list[Tensor], tuple[Tensor, Tensor]] | None = None

    @property
    def chip(self) -> Individual:
        """The individual; the first of several."""
        return self.chips[0]

    def exchange(self, chip: Individual) -> None:
        """Replace the chip (or the codes of the same chip); call `configure` afterwards."""
        self.chips = [chip]
        self.noise = chip.noise
        self._program = None

    def interrupt(self) -> None:
        """Interrupt the current run, from another thread; only the engine for CPUs can."""
        self.engine.interrupt()

    def read_reference(self, potential: float, samples: int, clock: int = 0) -> npt.NDArray[np.uint8]:
        """Return CADC codes `[samples, 512]` of one potential (LSB) that is connected to all channels.

        Raises:
            ValueError: the chip is fitted; its CADC has no access to a reference.
        """
        if not isinstance(self.chip, Chip):
            raise ValueError(f"chip {self.chip.name} is fitted; it has no access to the inputs of the CADC")
        values = self.chip.values(uniform_targets())
        noise = fixed_normal(derive_key("reference", self.chip.name, self.seed, clock), samples, CIRCUITS)
        voltage = potential + self.noise.cadc_noise * noise
        codes = values.cadc_gain * (voltage - 128) + 128 + values.cadc_offset
        return np.clip(np.floor(codes + 0.5), 0, 255).astype(np.uint8)

    def configure(self, layout: Layout, samples: int) -> None:
        """Apply a layout; every run then records `samples` CADC samples per trial.

        Raises:
            ValueError: a trial has too many sub-steps, a fitted chip was measured in another circuit, or close trials
                run on several chips.
        """
        step = CADC_INTERVAL / self.substeps
        gap = -1 if layout.gap is None else _even_gap(layout.gap / step, samples * self.substeps)
        if not 1 <= samples * self.substeps + max(gap, 0) <= MAX_STEPS:
            raise ValueError(
                f"samples={samples} (and the gap after them) times substeps={self.substeps} must be in "
                f"1..{MAX_STEPS}; record fewer samples"
            )
        if gap >= 0 and len(self.chips) > 1:
            raise ValueError(
                f"layout.gap={layout.gap} s: close trials need a single chip, but each trial runs on one of "
                f"{len(self.chips)}; use a single chip, or trials far apart (gap=None)"
            )
        neurons = [self._neurons(individual, layout) for individual in self.chips]
        params = self._params(layout, neurons, step)
        setup = Setup(
            layout=layout,
            params=params,
            scalars=self._scalars(layout, samples, gap, step),
            synapses=[synapse_blocks(layout, chip_neurons) for chip_neurons in neurons],
            capacity=self._capacity(layout, samples, step),
            substep=step,
            has_phase=self.noise.sampling_phase > 0,
        )
        self.engine.prepare(setup)
        quadrant = torch.from_numpy(neurons[0].circuits[0] * 4 // CIRCUITS).to(self.recording_device)
        self._program = _Program(layout, samples, neurons, 1 - params.mem.astype(np.float64), quadrant)
        self._charge_cache = None

    @staticmethod
    def _neurons(individual: Individual, layout: Layout) -> Neurons:
        return individual.neurons(layout) if isinstance(individual, FittedChip) else build_neurons(individual, layout)

    def _params(self, layout: Layout, neurons: list[Neurons], step: float) -> Params:
        propagators = [build_propagators(chip_neurons, step) for chip_neurons in neurons]
        external, internal = _circuit_maps(layout)
        level = self.noise.membrane_noise
        is_second_half = neurons[0].circuits[0] >= CIRCUITS // 2

        def stack(name: str, parts: Sequence[object], factor: float = 1.0) -> Float:
            return _as_float32(np.stack([getattr(part, name) for part in parts]) * factor)

        return Params(
            reset=stack("reset", neurons),
            refractory=stack("refractory", neurons, 1 / step),
            mem=stack("mem", propagators),
            syn=stack("syn", propagators),
            drive=stack("drive", propagators),
            noise=_as_float32(
                np.stack([p.noise * noise_of(n, level) for p, n in zip(propagators, neurons, strict=True)])
            ),
            cadc_offset=stack("cadc_offset", neurons),
            cadc_gain=stack("cadc_gain", neurons),
            early=_as_float32(is_second_half * (self.noise.cadc_skew / step)),
            windows=np.array(layout.windows, np.int64).reshape(-1, 2),
            bounds=np.array(layout.bounds),
            external_circuit=external,
            internal_circuit=internal,
            table=normal_table(),
        )

    def _scalars(self, layout: Layout, samples: int, gap: int, step: float) -> Scalars:
        noise = self.noise
        low, high = noise.rails or (-1e6, 1e6)
        return Scalars(
            samples=samples,
            per_sample=self.substeps,
            gap=gap,
            clamped=float(np.exp(-gap * step / RESET_TAU)) if layout.forced_reset else -1.0,
            delay=ON_CHIP_DELAY / step,
            jitter=noise.spike_jitter / step,
            cadc_noise=noise.cadc_noise,
            saturation=noise.synapse_saturation or 0.0,
            low=low,
            high=high,
            railed=noise.rails is not None,
            noisy=noise.membrane_noise > 0,
            skewed=noise.cadc_skew > 0,
        )

    def _capacity(self, layout: Layout, samples: int, step: float) -> int:
        shortest_refractory = max(1, int(min(g.refractory for g in layout.groups) / step))
        return layout.bounds[-1] * (samples * self.substeps // shortest_refractory + 2)

    def run(
        self,
        weights: Sequence[Tensor],
        events: Events,
        batch: int,
        clock: int = 0,
        chip: npt.NDArray[np.int64] | None = None,
    ) -> RawRecording:
        """Run `batch` trials.

        Args:
            weights: integer weights `[targets, sources]` of each wiring, magnitudes up to 63.
            events: external events, grouped by sample.
            batch: number of trials `B`.
            clock: time of the first trial on the chip's clock, in trials.
            chip: index of the chip of each trial `[B]`; None for chips drawn from the clock.

        Raises:
            RuntimeError: the chip is not configured.
            ValueError: a weight or event is out of range, or has the wrong shape or order.
        """
        program = self._program
        if program is None:
            raise RuntimeError("the emulated chip is not configured; call configure(layout, samples) first")
        if any(part.shape != (len(events.time),) for part in events):
            raise ValueError(f"events need one length, got {[tuple(part.shape) for part in events]}")
        events = Events(*(part.to(self.recording_device) for part in events))
        charges = self._cached_charges(program, weights)
        self.engine.check(events, batch)
        if batch == 0:
            traced = sum(end - first for first, end in program.layout.windows)
            codes = torch.empty(0, program.samples, traced, dtype=torch.uint8, device=self.recording_device)
            return RawRecording(codes, events, torch.zeros(0, dtype=torch.int64))
        clocks = np.arange(clock, clock + batch, dtype=np.uint64)
        chip = self.chip_of(clocks) if chip is None else self._check_chip(chip, batch)
        rows, row = self._rows(program, clocks, chip)
        keys = self._keys(clocks, chip)
        trials = Trials(events, *charges, chip, row, keys, rows, self._phase(clocks, chip))
        codes, spikes = self.engine.run(trials)
        recorded_spikes, dropped = self._limit_spikes(program, spikes, clocks, chip)
        return RawRecording(codes, recorded_spikes, dropped)

    def chip_of(self, clocks: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Return the index of the chip of trials at these times of the clock `[B]`."""
        if len(self.chips) == 1:
            return np.zeros(len(clocks), np.int64)
        words = splitmix64(derive_key("population", self.seed, *(c.name for c in self.chips)), clocks)
        return (uniform(words) * len(self.chips)).astype(np.int64)

    def _check_chip(self, chip: npt.NDArray[np.int64], batch: int) -> npt.NDArray[np.int64]:
        if chip.shape != (batch,) or (batch and not 0 <= chip.min() <= chip.max() < len(self.chips)):
            raise ValueError(f"chip must hold {batch} indices in 0..{len(self.chips) - 1}, got shape {chip.shape}")
        return chip.astype(np.int64)

    def _cached_charges(self, program: _Program, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the charges of `weights`; unchanged tensors of the previous run reuse its charges."""
        if any(w.is_inference() for w in weights):  # such tensors do not count their changes
            return self._charges(program, weights)
        version = [(id(w), w._version) for w in weights]
        if self._charge_cache is None or self._charge_cache[0] != version:
            self._charge_cache = (version, list(weights), self._charges(program, weights))
        return self._charge_cache[2]

    def _charges(self, program: _Program, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the signed synaptic charges of external `[C, J, N]` and internal `[C, N, N]` synapses."""
        layout = program.layout
        if len(weights) != len(layout.wirings):
            raise ValueError(f"got {len(weights)} weight matrices for {len(layout.wirings)} wirings")
        for index, matrix in enumerate(weights):
            self._check_weights(layout, index, matrix)
        return self.engine.charges(weights)

    @staticmethod
    def _check_weights(layout: Layout, index: int, matrix: Tensor) -> None:
        wiring = layout.wirings[index]
        shape = (layout.groups[wiring.target].size, wiring.size)
        if tuple(matrix.shape) != shape:
            raise ValueError(f"weights {index} have shape {tuple(matrix.shape)}, expected {shape}")
        if matrix.is_floating_point():
            raise ValueError(f"weights {index} are {matrix.dtype}, expected integers")
        low, high = torch.stack(torch.aminmax(matrix)).tolist() if matrix.numel() else (0, 0)
        largest = max(high, -low)
        if largest > WEIGHT_MAX:
            raise ValueError(f"weights {index} reach {largest}, the synapses hold up to {WEIGHT_MAX}")

    def _rows(
        self, program: _Program, clocks: npt.NDArray[np.uint64], chip: npt.NDArray[np.int64]
    ) -> tuple[Rows, npt.NDArray[np.int64]]:
        """Return the slow state of the chips, and the row of each trial in it `[B]`.

        A row holds rest, start and threshold of a chip in a window of its clock. Slow threshold noise and drift have
        one draw per neuron and window.
        """
        window = clocks // np.uint64(THRESHOLD_WINDOW)
        if len(self.chips) == 1 and window[0] == window[-1]:
            pairs = window[:1]
            row = np.zeros(len(clocks), np.int64)
        else:
            pair = window * np.uint64(len(self.chips)) + chip.astype(np.uint64)
            pairs, row = np.unique(pair, return_inverse=True)
        parts = [self._row(program, int(p % len(self.chips)), int(p // len(self.chips))) for p in pairs.tolist()]
        start, threshold = (np.stack(columns) for columns in zip(*parts, strict=True))
        chip_of_row = [int(p % len(self.chips)) for p in pairs.tolist()]
        begin = np.stack([program.neurons[c].reset for c in chip_of_row]) if program.layout.from_reset else start
        f32 = _as_float32
        return Rows(rest=f32(start * program.recovery[chip_of_row]), start=f32(begin), threshold=f32(threshold)), row

    def _row(self, program: _Program, c: int, window: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return rest and threshold `[N]` of a chip in a window of its clock."""
        neurons = program.neurons[c]
        name = self.chips[c].name
        noise = self.noise
        counters = np.arange(len(neurons.rest), dtype=np.uint64) + np.uint64(window * 4096)
        words = splitmix64(derive_key("threshold noise", name, self.seed), counters)
        eta = noise.threshold_noise * normal_table()[words >> np.uint64(48)]
        if noise.drift_sd == 0:
            return neurons.rest, neurons.threshold + eta
        time = window * THRESHOLD_WINDOW * self.trial_time
        circuits = neurons.circuits[0]
        shifts = [
            noise.drift_sd
            * drift_walk(derive_key("drift", name, self.seed, parameter), time, noise.drift_time)[circuits]
            for parameter in ("leak", "threshold")
        ]
        return neurons.rest + shifts[0], neurons.threshold + eta + shifts[1]

    def _keys(self, clocks: npt.NDArray[np.uint64], chip: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
        """Return the noise keys of each trial `[B, 2]`."""
        names = [individual.name for individual in self.chips]
        keys = [sample_keys(derive_key("temporal noise", name, self.seed), clocks) for name in names]
        return keys[0] if len(keys) == 1 else np.stack(keys)[chip, np.arange(len(clocks))]

    def _phase(self, clocks: npt.NDArray[np.uint64], chip: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the delay of each trial's stimulus after the CADC's first sample (s) `[B]`."""
        if self.noise.sampling_phase == 0:
            return np.zeros(len(clocks), np.float32)
        share = uniform(self._draw("sampling phase", clocks, chip))
        return (share * self.noise.sampling_phase).astype(np.float32)

    def _draw(
        self, purpose: str, counters: npt.NDArray[np.uint64], chip: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.uint64]:
        """Return a random word of the given chip for each counter `[B]`."""
        words = np.empty(len(counters), np.uint64)
        for c, individual in enumerate(self.chips):
            members = chip == c
            words[members] = splitmix64(derive_key(purpose, individual.name, self.seed), counters[members])
        return words

    def _limit_spikes(
        self, program: _Program, spikes: Events, clocks: npt.NDArray[np.uint64], chip: npt.NDArray[np.int64]
    ) -> tuple[Events, Tensor]:
        """Return the spikes that the event buses record, and the number of lost spikes of each trial."""
        capacity = self.noise.spike_capacity
        no_loss = torch.zeros(len(clocks), dtype=torch.int64)
        if capacity is None or len(spikes.sample) <= capacity:
            return spikes, no_loss
        crowded = crowded_spikes(spikes, program.quadrant, capacity)
        if crowded is None:
            return spikes, no_loss
        quadrant = program.quadrant[spikes.unit]
        sample, unit, time = (part[crowded].cpu() for part in spikes)
        trial = sample.numpy()
        neuron = unit.numpy().astype(np.uint64)
        draw = self._draw("spike loss", clocks[trial] * np.uint64(CIRCUITS) + neuron, chip[trial])
        survivors = surviving_spikes(sample, quadrant[crowded].cpu(), time, capacity, draw)
        if survivors is None:
            return spikes, no_loss
        is_recorded = ~crowded
        is_recorded[crowded] = survivors.to(self.recording_device)
        dropped = torch.bincount(spikes.sample[~is_recorded], minlength=len(clocks)).cpu()
        return Events(*(part[is_recorded] for part in spikes)), dropped


def _even_gap(gap: float, recorded: int) -> int:
    """Return a gap in sub-steps such that a trial has an even number of them (noise comes in pairs)."""
    total = 2 * round((recorded + gap) / 2)
    return max(total, recorded + recorded % 2) - recorded


def _circuit_maps(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Return the merged circuit that each external input `[J, G]` and neuron `[N, G]` drives in each group."""
    external = np.full((layout.inputs, len(layout.groups)), -1)
    internal = np.full((layout.bounds[-1], len(layout.groups)), -1)
    for wiring in layout.wirings:
        circuit = wiring.row_of_source // ROWS_PER_CIRCUIT
        if wiring.source is None:
            external[:, wiring.target] = circuit
        else:
            first = layout.bounds[wiring.source]
            internal[first : first + wiring.size, wiring.target] = circuit
    return external, internal


def _as_float32(values: npt.ArrayLike) -> Float:
    """Return a contiguous float32 array, as engines expect."""
    return np.ascontiguousarray(values, dtype=np.float32)
