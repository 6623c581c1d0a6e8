"""A recording depends on chip, seed, clock and stimulus, but not on splits, order or threads."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from emulator_bench import (
    READOUT,
    SPIKING,
    US,
    busy,
    calibrated,
    equal_recordings,
    fabricated,
    glued,
    machine,
    piece,
    random_weights,
    use_threads,
)

from hxtrain.emulator import Chip, EmulatedChip, Events, Layout, RawRecording, Wiring
from hxtrain.emulator.engines import cpu_kernel as kernel

# the window of the threshold noise ends within the run
BATCH = 40
INPUTS = 60
CLOCK = 80
LAYOUT = Layout(
    INPUTS,
    (replace(SPIKING, size=30), replace(READOUT, size=4)),
    (Wiring(0, INPUTS, 0), Wiring(1, 30, 0, source=0)),
)
WEIGHTS = [random_weights(1, 30, INPUTS, 10, 25), random_weights(2, 4, 30, 0, 25)]
STIMULUS = busy(3, BATCH, INPUTS, 20, 60)
EVERYTHING = {"sampling_phase": 1.7 * US, "drift_sd": 3.0, "drift_time": 0.05, "spike_capacity": 2}
CHIPS: dict[str, list[Chip]] = {
    "one chip": [calibrated()],
    "phase, drift, loss of spikes": [calibrated(**EVERYTHING)],
    "population": [calibrated(**EVERYTHING), fabricated("W71F0", **EVERYTHING), calibrated("W63F1", **EVERYTHING)],
}


def make(chips: str = "one chip", seed: int = 0, engine: str = "cpu") -> EmulatedChip:
    return machine(CHIPS[chips], LAYOUT, seed=seed, engine=engine)


@pytest.fixture(scope="module")
def whole() -> RawRecording:
    return make().run(WEIGHTS, STIMULUS, BATCH, CLOCK)


@pytest.mark.parametrize("engine", ["cpu", "readable"])
@pytest.mark.parametrize("chips", CHIPS)
def test_split_runs_are_the_same(chips: str, engine: str) -> None:
    emulated = make(chips, engine=engine)
    whole = emulated.run(WEIGHTS, STIMULUS, BATCH, CLOCK)
    assert len(whole.spikes.time) > 300
    assert (whole.dropped.sum() > 10) == (chips != "one chip")
    parts = []
    first = 0
    for size in (7, 13, 20):
        parts.append(emulated.run(WEIGHTS, piece(STIMULUS, first, first + size), size, CLOCK + first))
        first += size
    assert equal_recordings(glued(parts), whole)


@pytest.mark.parametrize("threads", [1, 5])
@pytest.mark.parametrize("chips", CHIPS)
def test_number_of_threads_does_not_matter(chips: str, threads: int) -> None:
    expected = make(chips).run(WEIGHTS, STIMULUS, BATCH, CLOCK)
    emulated = make(chips)
    use_threads(emulated, threads)
    assert equal_recordings(emulated.run(WEIGHTS, STIMULUS, BATCH, CLOCK), expected)


def test_a_trial_of_a_population_is_what_its_chip_records_alone() -> None:
    together = make("population")
    chip = together.chip_of(np.arange(CLOCK, CLOCK + BATCH, dtype=np.uint64))
    assert set(chip.tolist()) == {0, 1, 2}
    recording = together.run(WEIGHTS, STIMULUS, BATCH, CLOCK)
    for c, individual in enumerate(CHIPS["population"]):
        alone = machine(individual, LAYOUT).run(WEIGHTS, STIMULUS, BATCH, CLOCK)
        assert torch.equal(recording.codes[chip == c], alone.codes[chip == c])
        times = [r.spikes.time[torch.from_numpy(chip == c)[r.spikes.sample]] for r in (recording, alone)]
        assert torch.equal(*times)


def test_chips_of_a_population_are_drawn_evenly_or_as_asked() -> None:
    emulated = make("population")
    drawn = emulated.chip_of(np.arange(6000, dtype=np.uint64))
    assert np.abs(np.bincount(drawn, minlength=3) - 2000).max() < 6 * np.sqrt(6000 * 2 / 9)
    assert not np.array_equal(drawn, make("population", seed=1).chip_of(np.arange(6000, dtype=np.uint64)))
    chips = np.arange(BATCH) % 2
    recording = emulated.run(WEIGHTS, STIMULUS, BATCH, CLOCK, chips)
    assert torch.equal(recording.codes[1::2], machine(CHIPS["population"][1], LAYOUT).run(
        WEIGHTS, STIMULUS, BATCH, CLOCK).codes[1::2])  # fmt: skip


def test_repeated_and_fresh_runs_are_the_same(whole: RawRecording) -> None:
    chip = make()
    assert equal_recordings(chip.run(WEIGHTS, STIMULUS, BATCH, CLOCK), whole)
    chip.run(WEIGHTS, STIMULUS, BATCH, 7)
    assert equal_recordings(chip.run(WEIGHTS, STIMULUS, BATCH, CLOCK), whole)


@pytest.mark.parametrize(
    ("chip", "seed", "clock"),
    [(calibrated(), 1, CLOCK), (calibrated(), 0, CLOCK + 1), (calibrated("W62F0"), 0, CLOCK), (fabricated(), 0, CLOCK)],
    ids=["seed", "clock", "chip", "codes"],
)
def test_other_noise_or_chip_gives_another_recording(whole: RawRecording, chip: Chip, seed: int, clock: int) -> None:
    recording = machine(chip, LAYOUT, seed=seed).run(WEIGHTS, STIMULUS, BATCH, clock)
    assert float((recording.codes != whole.codes).double().mean()) > 0.3


def test_trials_differ_in_their_noise() -> None:
    codes = make().run(WEIGHTS, piece(STIMULUS, 0, 0), BATCH, CLOCK).codes
    assert len({codes[b].numpy().tobytes() for b in range(BATCH)}) == BATCH


def test_order_of_events_within_a_trial_does_not_matter(whole: RawRecording) -> None:
    shuffled = torch.randperm(len(STIMULUS.time), generator=torch.Generator().manual_seed(0))
    order = shuffled[torch.argsort(STIMULUS.sample[shuffled], stable=True)]
    recording = make().run(WEIGHTS, Events(*(part[order] for part in STIMULUS)), BATCH, CLOCK)
    # the sum of charges has another order, in single precision
    difference = (recording.codes.int() - whole.codes.int()).abs()
    assert int(difference.max()) <= 1
    assert float((difference > 0).double().mean()) < 1e-3
    assert torch.equal(recording.spikes.unit, whole.spikes.unit)


def test_events_after_the_recording_are_ignored(whole: RawRecording) -> None:
    late = Events(torch.arange(BATCH), torch.zeros(BATCH, dtype=torch.int64), torch.full((BATCH,), 35e-6))
    stimulus = Events(*(torch.cat(parts) for parts in zip(STIMULUS, late, strict=True)))
    order = torch.argsort(stimulus.sample, stable=True)
    assert equal_recordings(make().run(WEIGHTS, Events(*(part[order] for part in stimulus)), BATCH, CLOCK), whole)


def test_weights_changed_in_place_are_written_again(whole: RawRecording) -> None:
    chip = make()
    weights = [w.clone() for w in WEIGHTS]
    assert equal_recordings(chip.run(weights, STIMULUS, BATCH, CLOCK), whole)
    weights[0].zero_()
    assert len(chip.run(weights, STIMULUS, BATCH, CLOCK).spikes.time) == 0
    weights[0].copy_(WEIGHTS[0])
    assert equal_recordings(chip.run(weights, STIMULUS, BATCH, CLOCK), whole)


def test_inference_tensors_are_always_written(whole: RawRecording) -> None:
    chip = make()
    with torch.inference_mode():
        weights = [w.clone() for w in WEIGHTS]
        assert equal_recordings(chip.run(weights, STIMULUS, BATCH, CLOCK), whole)
        weights[0].zero_()
        assert len(chip.run(weights, STIMULUS, BATCH, CLOCK).spikes.time) == 0


def test_configuring_again_forgets_the_written_weights(whole: RawRecording) -> None:
    chip = make()
    chip.run(WEIGHTS, STIMULUS, BATCH, CLOCK)
    moved = replace(LAYOUT, groups=(replace(LAYOUT.groups[0], circuits=2), LAYOUT.groups[1]))
    chip.configure(moved, 20)
    recording = chip.run(WEIGHTS, STIMULUS, BATCH, CLOCK)
    assert not torch.equal(recording.codes, whole.codes)  # other circuits, other mismatch
    chip.configure(LAYOUT, 20)
    assert equal_recordings(chip.run(WEIGHTS, STIMULUS, BATCH, CLOCK), whole)


def test_an_exchanged_chip_must_be_configured_again(whole: RawRecording) -> None:
    emulated = machine(fabricated("W62F0"), LAYOUT)
    emulated.exchange(CHIPS["one chip"][0])
    with pytest.raises(RuntimeError, match="not configured"):
        emulated.run(WEIGHTS, STIMULUS, BATCH, CLOCK)
    emulated.configure(LAYOUT, 20)
    assert equal_recordings(emulated.run(WEIGHTS, STIMULUS, BATCH, CLOCK), whole)


@pytest.mark.parametrize("engine", ["cpu", "readable"])
@pytest.mark.parametrize("chips", CHIPS)
def test_empty_stimulus_and_empty_batch(chips: str, engine: str) -> None:
    chip = make(chips, engine=engine)
    nothing = piece(STIMULUS, 0, 0)
    assert chip.run(WEIGHTS, nothing, 3).codes.shape == (3, 20, 34)
    empty = chip.run(WEIGHTS, nothing, 0)
    assert empty.codes.shape == (0, 20, 34)
    assert len(empty.spikes.time) == 0


def test_after_an_interruption_no_thread_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """All threads write to the spike buffers, which the next run uses again."""
    emulated = machine(calibrated(), LAYOUT, 20)
    use_threads(emulated, 3)
    expected = emulated.run(WEIGHTS, STIMULUS, BATCH, CLOCK)
    caller = threading.get_ident()
    simulate = kernel.simulate
    running = threading.Event()
    flags = []
    stopped = False

    def interrupted(*arguments: object) -> None:
        if threading.get_ident() == caller:
            assert running.wait(20), "no other thread takes part"
            raise KeyboardInterrupt
        running.set()
        time.sleep(0.05)
        simulate(*arguments)
        flags.append(stopped)

    with monkeypatch.context() as patched:
        patched.setattr(kernel, "simulate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            emulated.run(WEIGHTS, STIMULUS, BATCH, CLOCK)
        stopped = True
        time.sleep(0.2)
    assert flags
    assert not any(flags)
    assert equal_recordings(emulated.run(WEIGHTS, STIMULUS, BATCH, CLOCK), expected)


def test_an_error_in_any_thread_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    emulated = machine(calibrated(), LAYOUT, 20)
    use_threads(emulated, 2)
    caller = threading.get_ident()
    simulate = kernel.simulate
    failed = threading.Event()

    def failing(*arguments: object) -> None:
        if threading.get_ident() == caller:
            failed.wait(20)
            return simulate(*arguments)
        failed.set()
        raise RuntimeError("broken piece")

    monkeypatch.setattr(kernel, "simulate", failing)
    with pytest.raises(RuntimeError, match="broken piece"):
        emulated.run(WEIGHTS, STIMULUS, BATCH, CLOCK)
