"""A recording depends on chip, seed, clock and stimulus; never on how it is cut or ordered."""

from dataclasses import replace

import pytest
import torch
from emulator_bench import READOUT, SPIKING, busy, random_weights

from hxtrain.emulator import CALIBRATED, Chip, EmulatedChip, Events, Layout, RawRecording, Wiring

BATCH, INPUTS, CLOCK = 40, 60, 80  # the window of the threshold noise ends within the run
LAYOUT = Layout(
    INPUTS,
    (replace(SPIKING, size=30), replace(READOUT, size=4)),
    (Wiring(0, INPUTS, 0), Wiring(1, 30, 0, source=0)),
)
WEIGHTS = [random_weights(1, 30, INPUTS, 10, 25), random_weights(2, 4, 30, 0, 25)]
STIMULUS = busy(3, BATCH, INPUTS, 20, 60)


def piece(first: int, last: int) -> Events:
    here = (STIMULUS.sample >= first) & (STIMULUS.sample < last)
    return Events(STIMULUS.sample[here] - first, STIMULUS.unit[here], STIMULUS.time[here])


def make(name: str = "W66F3", seed: int = 0, engine: str = "compiled") -> EmulatedChip:
    chip = EmulatedChip(Chip(name, CALIBRATED), seed, engine=engine)  # type: ignore[arg-type]
    chip.configure(LAYOUT, 20)
    return chip


def same(a: RawRecording, b: RawRecording) -> bool:
    return torch.equal(a.codes, b.codes) and all(map(torch.equal, a.spikes, b.spikes))


@pytest.fixture(scope="module")
def whole() -> RawRecording:
    return make().run(WEIGHTS, STIMULUS, BATCH, CLOCK)


@pytest.mark.parametrize("engine", ["compiled", "stepwise"])
def test_split_runs_are_the_same(engine: str) -> None:
    chip = make(engine=engine)
    whole = chip.run(WEIGHTS, STIMULUS, BATCH, CLOCK)
    assert len(whole.spikes.time) > 300
    parts, first = [], 0
    for size in (7, 13, 20):
        parts.append(chip.run(WEIGHTS, piece(first, first + size), size, CLOCK + first))
        first += size
    assert torch.equal(torch.cat([part.codes for part in parts]), whole.codes)
    assert torch.equal(torch.cat([part.spikes.unit for part in parts]), whole.spikes.unit)
    assert torch.equal(torch.cat([part.spikes.time for part in parts]), whole.spikes.time)


def test_repeated_and_fresh_runs_are_the_same(whole: RawRecording) -> None:
    chip = make()
    assert same(chip.run(WEIGHTS, STIMULUS, BATCH, CLOCK), whole)
    chip.run(WEIGHTS, STIMULUS, BATCH, 7)
    assert same(chip.run(WEIGHTS, STIMULUS, BATCH, CLOCK), whole)


@pytest.mark.parametrize(
    ("settings", "clock"),
    [({"seed": 1}, CLOCK), ({}, CLOCK + 1), ({"name": "W60F0"}, CLOCK)],
    ids=["seed", "clock", "chip"],
)
def test_other_noise_or_chip_gives_another_recording(
    whole: RawRecording, settings: dict[str, object], clock: int
) -> None:
    other = make(**settings).run(WEIGHTS, STIMULUS, BATCH, clock)  # type: ignore[arg-type]
    assert float((other.codes != whole.codes).double().mean()) > 0.3


def test_trials_differ_in_their_noise() -> None:
    quiet_chip = make()
    codes = quiet_chip.run(WEIGHTS, piece(0, 0), BATCH, CLOCK).codes
    assert len({codes[b].numpy().tobytes() for b in range(BATCH)}) == BATCH


def test_order_of_events_within_a_trial_does_not_matter(whole: RawRecording) -> None:
    shuffled = torch.randperm(len(STIMULUS.time), generator=torch.Generator().manual_seed(0))
    order = shuffled[torch.argsort(STIMULUS.sample[shuffled], stable=True)]
    found = make().run(WEIGHTS, Events(*(part[order] for part in STIMULUS)), BATCH, CLOCK)
    # charges are summed in another order, in single precision
    difference = (found.codes.int() - whole.codes.int()).abs()
    assert int(difference.max()) <= 1
    assert float((difference > 0).double().mean()) < 1e-3
    assert torch.equal(found.spikes.unit, whole.spikes.unit)


def test_events_after_the_recording_are_ignored(whole: RawRecording) -> None:
    late = Events(torch.arange(BATCH), torch.zeros(BATCH, dtype=torch.int64), torch.full((BATCH,), 35e-6))
    both = Events(*(torch.cat(parts) for parts in zip(STIMULUS, late, strict=True)))
    order = torch.argsort(both.sample, stable=True)
    assert same(make().run(WEIGHTS, Events(*(part[order] for part in both)), BATCH, CLOCK), whole)


def test_weights_changed_in_place_are_written_again(whole: RawRecording) -> None:
    chip, weights = make(), [w.clone() for w in WEIGHTS]
    assert same(chip.run(weights, STIMULUS, BATCH, CLOCK), whole)
    weights[0].zero_()
    silent = chip.run(weights, STIMULUS, BATCH, CLOCK)
    assert len(silent.spikes.time) == 0
    weights[0].copy_(WEIGHTS[0])
    assert same(chip.run(weights, STIMULUS, BATCH, CLOCK), whole)


def test_configuring_again_forgets_the_written_weights(whole: RawRecording) -> None:
    chip = make()
    chip.run(WEIGHTS, STIMULUS, BATCH, CLOCK)
    moved = replace(LAYOUT, groups=(replace(LAYOUT.groups[0], circuits=2), LAYOUT.groups[1]))
    chip.configure(moved, 20)
    other = chip.run(WEIGHTS, STIMULUS, BATCH, CLOCK)
    assert not torch.equal(other.codes, whole.codes)  # other circuits, other mismatch
    chip.configure(LAYOUT, 20)
    assert same(chip.run(WEIGHTS, STIMULUS, BATCH, CLOCK), whole)


def test_empty_stimulus_and_empty_batch() -> None:
    chip = make()
    nothing = piece(0, 0)
    assert chip.run(WEIGHTS, nothing, 3).codes.shape == (3, 20, 34)
    empty = chip.run(WEIGHTS, nothing, 0)
    assert empty.codes.shape == (0, 20, 34)
    assert len(empty.spikes.time) == 0
