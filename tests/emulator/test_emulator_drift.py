"""Slow drift of leaks and thresholds: an Ornstein-Uhlenbeck walk since the calibration."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from emulator_bench import READOUT, SPIKING, events, fabricated, ideal, machine, one_group, silent

from hxtrain.emulator import CIRCUITS
from hxtrain.emulator.drift import POINTS, drift_walk
from hxtrain.emulator.rng import derive_key

TAU = 100.0
KEYS = [derive_key("test of drift", k) for k in range(20)]


@pytest.fixture(scope="module")
def walks() -> dict[float, np.ndarray]:
    """Walks of 20 x 512 circuits at some times after the calibration (correlation times)."""
    times = (0.0, 0.5, 1.0, 2.0, 8.0, 8.5, 9.0, 10.0)
    return {t: np.stack([drift_walk(key, t * TAU, TAU) for key in KEYS]).ravel() for t in times}


def test_nothing_has_drifted_at_the_calibration(walks: dict[float, np.ndarray]) -> None:
    assert np.all(walks[0.0] == 0)
    walk = drift_walk(KEYS[0], 1e-3 * TAU, TAU)
    assert 0 < np.abs(walk).max() < 0.1


@pytest.mark.parametrize("time", [0.5, 1.0, 2.0, 8.0, 10.0])
def test_spread_grows_to_its_stationary_value(walks: dict[float, np.ndarray], time: float) -> None:
    walk = walks[time]
    assert abs(walk.mean()) < 5 / np.sqrt(len(walk))
    assert walk.std() == pytest.approx(np.sqrt(1 - np.exp(-2 * time)), rel=0.04)


@pytest.mark.parametrize(("first", "second"), [(8.0, 8.5), (8.0, 9.0), (8.0, 10.0), (9.0, 10.0), (0.5, 8.0)])
def test_correlation_time(walks: dict[float, np.ndarray], first: float, second: float) -> None:
    correlation = np.corrcoef(walks[first], walks[second])[0, 1]
    # correlation of the walk since the calibration; exp(-dt) long after it
    early, late = 1 - np.exp(-2 * first), 1 - np.exp(-2 * second)
    assert correlation == pytest.approx(np.exp(first - second) * np.sqrt(early / late), abs=0.04)


def test_walk_is_continuous() -> None:
    """The walk is linear between lattice points and does not jump at them."""
    step = TAU / POINTS
    for time in (3 * step, 7.5 * step, 20 * step):
        left, middle, right = (drift_walk(KEYS[0], time + d, TAU) for d in (-1e-6 * step, 0.0, 1e-6 * step))
        assert np.abs(right - middle).max() < 1e-4
        assert np.abs(left - middle).max() < 1e-4
    # increments have the spread of the walk, not of white noise
    small = np.stack([drift_walk(k, 5 * TAU + step, TAU) - drift_walk(k, 5 * TAU, TAU) for k in KEYS])
    assert small.std() == pytest.approx(np.sqrt(2 * (1 - np.exp(-1 / POINTS))), rel=0.05)


def test_walks_of_circuits_and_keys_are_independent() -> None:
    times = np.arange(0, 60, 3) * TAU
    walks = np.stack([drift_walk(KEYS[0], t, TAU)[:60] for t in times])
    assert np.abs(np.corrcoef(walks.T) - np.eye(60)).mean() < 0.25  # 20 points: 0.18 by chance
    assert abs(np.corrcoef(drift_walk(KEYS[0], 900.0, TAU), drift_walk(KEYS[1], 900.0, TAU))[0, 1]) < 0.2


def rest_of(clock: int, sd: float, trial_time: float, name: str = "W66F3", seed: int = 0) -> np.ndarray:
    chip = replace(ideal(drift_sd=sd, drift_time=3600.0), name=name)
    layout = one_group(replace(READOUT, size=CIRCUITS, leak=120.0))
    emulated = machine(chip, layout, 1, trial_time=trial_time, seed=seed)
    return emulated.run([silent(CIRCUITS)], events(), 1, clock).codes[0, 0].numpy().astype(float) - 120


def test_chip_drifts_with_its_clock() -> None:
    """At 200 us per trial, 10 hours are 180 million trials."""
    assert np.all(rest_of(99, 4.0, 200e-6) == 0)
    late = rest_of(180_000_000, 4.0, 200e-6)
    assert late.std() == pytest.approx(4, rel=0.1)
    assert np.array_equal(rest_of(180_000_000, 4.0, 200e-6), late)
    assert np.array_equal(rest_of(90_000_000, 4.0, 400e-6), late)  # only chip time matters
    for rests in (rest_of(180_000_000, 4.0, 200e-6, "W62F0"), rest_of(180_000_000, 4.0, 200e-6, seed=1)):
        assert abs(np.corrcoef(rests, late)[0, 1]) < 0.2


def test_threshold_and_leak_drift_apart() -> None:
    chip = fabricated(drift_sd=4.0, threshold_noise=0.0)
    emulated = machine(chip, one_group(replace(SPIKING, size=CIRCUITS)), 1)
    program = emulated._program
    assert program is not None
    first, last = (np.stack(emulated._row(program, 0, window)) for window in (0, 2_000_000))
    drift = last - first
    assert drift.std(1) == pytest.approx([4, 4], rel=0.12)
    assert abs(np.corrcoef(drift)[0, 1]) < 0.2


def test_drift_belongs_to_the_physical_circuit() -> None:
    """Leak and threshold are those of the first merged circuit."""
    chip = ideal(drift_sd=4.0)
    rows = []
    for merged in (1, 2):
        emulated = machine(chip, one_group(replace(SPIKING, size=CIRCUITS // 2, circuits=merged)), 1)
        assert emulated._program is not None
        rows.append(emulated._row(emulated._program, 0, 2_000_000)[0])
    assert np.allclose(rows[1][:128], rows[0][:256:2])


def test_no_drift_by_default() -> None:
    assert torch.equal(*(
        machine(fabricated(membrane_noise=0.0, cadc_noise=0.0), one_group(READOUT)).run(
            [silent(1)], events(), 1, clock
        ).codes
        for clock in (0, 10**9)
    ))  # fmt: skip
