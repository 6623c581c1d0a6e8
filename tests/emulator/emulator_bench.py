"""Common parts of the emulator's tests: chips, layouts, stimuli, and membranes before the ADC."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hxtrain.emulator import (
    CADC_INTERVAL,
    FABRICATED,
    IDEAL,
    SYNAPTIC_DRIVE,
    Chip,
    EmulatedChip,
    Events,
    FittedChip,
    Group,
    Layout,
    RawRecording,
    Wiring,
)
from hxtrain.emulator.calibration import Calibration
from hxtrain.emulator.dynamics import Neurons
from hxtrain.emulator.engines import CpuEngine
from hxtrain.emulator.engines.engine import SubstepEngine
from hxtrain.emulator.engines.readable import Motion

US = 1e-6
SUBSTEP = CADC_INTERVAL / 4
STAMP = 8e-9
READOUT = Group(
    size=1,
    circuits=1,
    leak=80.0,
    threshold=None,
    reset=80.0,
    tau_mem=6 * US,
    tau_syn=6 * US,
    refractory=2 * US,
)
SPIKING = replace(READOUT, threshold=150.0)
QUIET: dict[str, object] = {
    "membrane_noise": 0.0,
    "cadc_noise": 0.0,
    "threshold_noise": 0.0,
    "spike_jitter": 0.0,
    "sampling_phase": 0.0,
    "cadc_skew": 0.0,
    "spike_capacity": None,
}
"""Changes that remove the temporal noise; the die stays the same."""


@cache
def shipped(name: str = "W66F3") -> Calibration:
    """Return a shipped calibration."""
    return Calibration.load(Path(str(files("hxtrain.emulator.calibration.files") / f"{name}.npz")))


def ideal(**changes: object) -> Chip:
    """Return an ideal chip with only these imperfections."""
    return Chip("W66F3", IDEAL.changed(**changes))


def fabricated(name: str = "W66F3", **changes: object) -> Chip:
    """Return a chip as it comes from the fab (not calibrated)."""
    return Chip(name, FABRICATED.changed(**changes))


def calibrated(name: str = "W66F3", **changes: object) -> Chip:
    """Return a chip with the shipped codes; the changes must not change its die."""
    chip = fabricated(name, **changes)
    shipped(name).require_chip(chip)
    return replace(chip, codes=shipped(name).codes)


def one_group(group: Group, inputs: int = 1, **settings: object) -> Layout:
    """Return a layout of external inputs and one group."""
    return Layout(inputs, (group,), (Wiring(0, inputs, 0),), **settings)  # type: ignore[arg-type]


def integers(*rows: list[int]) -> Tensor:
    """Return a weight matrix `[targets, sources]`."""
    return torch.tensor(rows, dtype=torch.int8)


def silent(targets: int, sources: int = 1) -> Tensor:
    """Return weights of zero."""
    return torch.zeros(targets, sources, dtype=torch.int8)


def events(*rows: tuple[int, int, float]) -> Events:
    """Return events from (sample, unit, time in s), grouped by sample."""
    ordered = sorted(rows, key=lambda row: row[0])
    sample, unit = (torch.tensor([row[i] for row in ordered], dtype=torch.int64) for i in (0, 1))
    return Events(sample, unit, torch.tensor([row[2] for row in ordered], dtype=torch.float32))


def machine(
    chip: Chip | FittedChip | Sequence[Chip | FittedChip], layout: Layout, samples: int = 20, **settings: object
) -> EmulatedChip:
    """Return a configured machine."""
    chip_machine = EmulatedChip(chip, **settings)  # type: ignore[arg-type]
    chip_machine.configure(layout, samples)
    return chip_machine


def use_threads(chip_machine: EmulatedChip, threads: int) -> None:
    """Give a configured machine an engine for CPUs with a number of threads."""
    engine = CpuEngine(threads)
    engine.prepare(engine_of(chip_machine).setup)
    chip_machine.engine = engine


def engine_of(chip_machine: EmulatedChip) -> SubstepEngine:
    """Return the engine of a machine, one for sub-steps."""
    assert isinstance(chip_machine.engine, SubstepEngine)
    return chip_machine.engine


def run_once(
    chip: Chip | FittedChip | Sequence[Chip | FittedChip],
    layout: Layout,
    weights: list[Tensor],
    stimulus: Events,
    batch: int = 1,
    samples: int = 20,
    clock: int = 0,
    **settings: object,
) -> RawRecording:
    """Configure a machine and run it once."""
    return machine(chip, layout, samples, **settings).run(weights, stimulus, batch, clock)


def neurons_of(chip: Chip, layout: Layout) -> Neurons:
    """Return the true parameters of the logical neurons, in the precision of the machine."""
    program = machine(chip, layout, 1)._program
    assert program is not None
    return program.neurons[0]


def membrane(
    chip: Chip, layout: Layout, weights: list[Tensor], stimulus: Events, batch: int = 1, samples: int = 20
) -> Tensor:
    """Return the membranes of a chip without temporal noise, before the ADC, at every sub-step `[steps, B, N]`.

    Double precision; thresholds are off.
    """
    chip_machine = machine(chip, layout, samples)
    program = chip_machine._program
    assert program is not None
    setup = engine_of(chip_machine).setup
    zeros = np.zeros(batch, np.int64)
    rows, row = chip_machine._rows(program, zeros.astype(np.uint64), zeros)
    rows = rows._replace(threshold=np.full_like(rows.threshold, 1e9))
    chip_index, row_index = torch.from_numpy(zeros), torch.from_numpy(row)
    motion = Motion(setup.params, setup.scalars, rows, chip_index, row_index, dtype=torch.float64)
    external, _ = chip_machine._charges(program, weights)
    charge = motion.external_charge(stimulus.sample, stimulus.unit, stimulus.time.double() / SUBSTEP, external.double())
    keys = torch.zeros(batch, 2, dtype=torch.int64)
    state = motion.start()
    potentials = []
    for k in range(motion.steps):
        potentials.append(state.v)
        state = state._replace(current=state.current + charge[k])
        state = motion.step(k, state, keys)[0]
    return torch.stack(potentials)


def psp(time: Tensor, tau_mem: float, tau_syn: float) -> Tensor:
    """Return the analytic potential of one event at t = 0 per weight LSB (LSB)."""
    t = time.double().clamp(min=0)
    if tau_mem == tau_syn:
        return SYNAPTIC_DRIVE * t * torch.exp(-t / tau_mem)
    rate = 1 / tau_syn - 1 / tau_mem
    return SYNAPTIC_DRIVE * (torch.exp(-t / tau_mem) - torch.exp(-t / tau_syn)) / rate


def busy(seed: int, batch: int, inputs: int, samples: int, per_trial: int) -> Events:
    """Return a random stimulus: `per_trial` events of each trial, uniform over inputs and time."""
    rng = torch.Generator().manual_seed(seed)
    count = batch * per_trial
    return Events(
        torch.arange(batch).repeat_interleave(per_trial),
        torch.randint(0, inputs, (count,), generator=rng),
        torch.rand(count, generator=rng) * samples * CADC_INTERVAL,
    )


def piece(stimulus: Events, first: int, last: int) -> Events:
    """Return the trials `first` to `last` of a stimulus."""
    mask = (stimulus.sample >= first) & (stimulus.sample < last)
    return Events(stimulus.sample[mask] - first, stimulus.unit[mask], stimulus.time[mask])


def random_weights(seed: int, targets: int, sources: int, mean: float, spread: float) -> Tensor:
    """Return random integer weights within the synapses' range."""
    rng = torch.Generator().manual_seed(seed)
    weights = mean + spread * torch.randn(targets, sources, generator=rng)
    return weights.round().clamp(-63, 63).to(torch.int8)


def counts(spikes: Events, batch: int, neurons: int) -> np.ndarray:
    """Return the number of spikes `[B, N]`."""
    place = (spikes.sample * neurons + spikes.unit).numpy()
    return np.bincount(place, minlength=batch * neurons).reshape(batch, neurons)


def fingerprint() -> str:
    """Return hashes of a die, of a calibrated chip, and of its recording."""
    layout = one_group(replace(SPIKING, size=100), 60)
    recording = run_once(calibrated(), layout, [random_weights(1, 100, 60, 10, 20)], busy(3, 20, 60, 20, 60), 20)
    sha = hashlib.sha256(recording.codes.numpy().tobytes())
    for part in recording.spikes:
        sha.update(part.numpy().tobytes())
    return f"{fabricated('W71F0').hash} {calibrated().hash} {len(recording.spikes.time)} {sha.hexdigest()}"


def equal_recordings(a: RawRecording, b: RawRecording) -> bool:
    """Return whether two recordings are equal bit by bit."""
    return (
        torch.equal(a.codes, b.codes)
        and all(map(torch.equal, a.spikes, b.spikes))
        and torch.equal(a.dropped, b.dropped)
    )


def glued(parts: Sequence[RawRecording]) -> RawRecording:
    """Return the recording of consecutive pieces of one batch."""
    first = 0
    sample = []
    for part in parts:
        sample.append(part.spikes.sample + first)
        first += len(part.codes)
    spikes = Events(
        torch.cat(sample),
        torch.cat([part.spikes.unit for part in parts]),
        torch.cat([part.spikes.time for part in parts]),
    )
    return RawRecording(torch.cat([part.codes for part in parts]), spikes, torch.cat([part.dropped for part in parts]))
