"""Loss of recorded spikes when many neurons fire at once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from emulator_bench import (
    READOUT,
    SPIKING,
    STAMP,
    US,
    busy,
    calibrated,
    counts,
    equal_recordings,
    events,
    fabricated,
    glued,
    ideal,
    machine,
    piece,
    random_weights,
    run_once,
    silent,
)

from hxtrain.emulator import CIRCUITS, Layout, Wiring
from hxtrain.emulator.preset import VOLLEY_WINDOW
from hxtrain.emulator.volley import surviving_spikes, volley_exceeds

ALL = Layout(1, (replace(SPIKING, size=CIRCUITS),), (Wiring(0, 1, 0),))
TOGETHER = events(*[(b, 0, 3 * US) for b in range(6) for _ in range(4)])
FORCE = [torch.full((CIRCUITS, 1), 63)]


def test_full_volley() -> None:
    """Published: of 512 neurons that fire at once, at least 250 are recorded."""
    emulated = machine(ideal(spike_capacity=64), ALL)
    recording = emulated.run(FORCE, TOGETHER, 6)
    recorded = counts(recording.spikes, 6, CIRCUITS)
    assert recorded.max() == 1
    assert recorded.sum(1).tolist() == [256] * 6  # 64 in each quadrant
    assert recorded.reshape(6, 4, 128).sum(2).tolist() == [[64] * 4] * 6
    assert recording.dropped.sum() == 6 * 256
    assert len({recorded[b].tobytes() for b in range(6)}) == 6  # other survivors in every trial


def test_every_volley_loses_others() -> None:
    twice = events(*[(0, 0, 3 * US)] * 5)  # strong enough for a second spike of every neuron
    recording = run_once(ideal(spike_capacity=64), ALL, FORCE, twice)
    assert recording.dropped.sum() == 2 * 256
    first = recording.spikes.time < recording.spikes.time.mean()
    units_of_volleys = [set(recording.spikes.unit[mask].tolist()) for mask in (first, ~first)]
    assert [len(units) for units in units_of_volleys] == [256, 256]
    assert 80 < len(units_of_volleys[0] & units_of_volleys[1]) < 176  # half of 256 by chance


@pytest.mark.parametrize("chip", [calibrated(), fabricated()], ids=["calibrated", "uncalibrated"])
def test_volley_of_a_real_chip(chip: object) -> None:
    """Mismatch spreads the volley over several windows, so that more spikes are recorded."""
    recording = run_once(chip, ALL, FORCE, TOGETHER, 6, samples=6)  # type: ignore[arg-type]
    everything = run_once(replace(chip, preset=chip.preset.changed(spike_capacity=None)), ALL, FORCE, TOGETHER, 6, 6)  # type: ignore[arg-type,attr-defined]
    assert everything.dropped.sum() == 0
    assert len(recording.spikes.time) + recording.dropped.sum() == len(everything.spikes.time)
    assert np.all(counts(recording.spikes, 6, CIRCUITS).sum(1) >= 250)


def test_only_the_record_is_lost() -> None:
    """Targets of the volley receive all of its spikes."""
    layout = Layout(
        1,
        (replace(SPIKING, size=256), replace(READOUT, size=1, circuits=2)),
        (Wiring(0, 1, 0), Wiring(1, 256, 0, source=0)),
    )
    weights = [torch.full((256, 1), 63), torch.full((1, 256), 1)]
    limited, unlimited = (run_once(ideal(spike_capacity=n), layout, weights, TOGETHER, 6) for n in (4, None))
    assert torch.equal(limited.codes, unlimited.codes)
    assert limited.dropped.sum() == len(unlimited.spikes.time) - len(limited.spikes.time) == 6 * (256 - 2 * 4)


def test_sparse_activity_loses_nothing() -> None:
    stimulus = busy(4, 20, 60, 20, 40)
    layout = Layout(60, (replace(SPIKING, size=246, circuits=2),), (Wiring(0, 60, 0),))
    recording = run_once(calibrated(), layout, [random_weights(3, 246, 60, 5, 15)], stimulus, 20)
    assert len(recording.spikes.time) > 1000
    assert recording.dropped.sum() == 0


@pytest.mark.parametrize("engine", ["cpu", "readable"])
def test_what_is_kept_does_not_depend_on_the_split(engine: str) -> None:
    emulated = machine(calibrated(spike_capacity=8), ALL, 8, engine=engine)
    whole = emulated.run(FORCE, TOGETHER, 6, clock=97)
    assert whole.dropped.sum() > 1000
    parts = [emulated.run(FORCE, piece(TOGETHER, b, b + 2), 2, clock=97 + b) for b in (0, 2, 4)]
    assert equal_recordings(glued(parts), whole)


def test_which_are_kept_depends_on_chip_seed_and_clock() -> None:
    def recorded_units(name: str = "W66F3", seed: int = 0, clock: int = 0) -> bytes:
        chip = replace(ideal(spike_capacity=64), name=name)
        return machine(chip, ALL, seed=seed).run(FORCE, TOGETHER, 6, clock).spikes.unit.numpy().tobytes()

    assert recorded_units() == recorded_units()
    assert len({recorded_units(), recorded_units("W62F0"), recorded_units(seed=1), recorded_units(clock=6)}) == 4


def test_capacity_is_per_trial_quadrant_and_window() -> None:
    rng = np.random.default_rng(0)
    sample, quadrant, window = (torch.from_numpy(rng.integers(0, top, 4000)) for top in (5, 4, 20))
    time = window * VOLLEY_WINDOW + torch.from_numpy(rng.uniform(0.05, 0.95, 4000)) * VOLLEY_WINDOW
    draw = rng.integers(0, 2**63, 4000).astype(np.uint64)
    recorded = surviving_spikes(sample, quadrant, time, 7, draw)
    assert recorded is not None
    place = ((sample * 4 + quadrant) * 20 + window).numpy()
    n_fired, n_recorded = (np.bincount(place[mask], minlength=400) for mask in (np.ones(4000, bool), recorded.numpy()))
    assert np.array_equal(n_recorded, np.minimum(n_fired, 7))
    assert surviving_spikes(sample, quadrant, time, int(n_fired.max()), draw) is None


def test_stamps_of_survivors_are_untouched() -> None:
    chip = calibrated(spike_capacity=8)
    unlimited, limited = (
        run_once(replace(chip, preset=chip.preset.changed(spike_capacity=n)), ALL, FORCE, TOGETHER, 6)
        for n in (None, 8)
    )
    spikes = set(zip(*(part.tolist() for part in unlimited.spikes), strict=True))
    assert set(zip(*(part.tolist() for part in limited.spikes), strict=True)) <= spikes
    ticks = limited.spikes.time.double() / STAMP
    assert float((ticks - ticks.round()).abs().max()) < 1e-3


def test_no_input_no_loss() -> None:
    recording = run_once(calibrated(outlier_share=0.01), ALL, [silent(CIRCUITS)], events(), 3)
    assert recording.dropped.sum() == 0


@pytest.mark.parametrize("capacity", [1, 3, 5, 8])
def test_whether_a_volley_exceeds_what_can_be_recorded(capacity: int) -> None:
    """The result agrees with counts per trial, quadrant and window, also for times at the edges of windows."""
    rng = np.random.default_rng(capacity)
    results = set()
    for trials, spikes in [(1, 0), (1, capacity), *((3, n) for n in rng.integers(1, 400, 60))]:
        sample = np.sort(rng.integers(0, trials, spikes))
        unit = rng.integers(0, 12, spikes)
        steps = rng.integers(0, 12, spikes)
        time = (steps * VOLLEY_WINDOW).astype(np.float32)
        time = np.where(rng.random(spikes) < 0.3, np.nextafter(time, np.float32(0)), time).astype(np.float32)
        quadrant = np.arange(12) % 4
        window = np.floor(time.astype(np.float64) / VOLLEY_WINDOW).astype(int)
        _, counts = np.unique((sample * 4 + quadrant[unit]) * 100 + window, return_counts=True)
        exceeds = volley_exceeds(capacity, sample, unit, time, quadrant, VOLLEY_WINDOW)
        assert exceeds == (counts.max(initial=0) > capacity)
        results.add(bool(exceeds))
    assert results == {True, False}
