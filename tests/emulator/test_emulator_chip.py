"""Chip individuals: pinned, reproducible, spread like the four published chips."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from hxtrain.emulator import CALIBRATED, IDEAL, PRESETS, UNCALIBRATED, Chip, FixedPattern, draw_pattern

NAMES = ("W66F3", "W60F0", "W62F0", "W63F3", "W69F0", "W70F1", "W71F2", "W72F3")
QUADRANT = 128


def quadrants(values: np.ndarray) -> np.ndarray:
    """Return values per circuit as `[4, 128, ...]` with each quadrant's mean removed."""
    split = values.reshape(4, QUADRANT, *values.shape[1:])
    return split - split.mean(axis=1, keepdims=True)


def trimmed_sd(values: np.ndarray) -> float:
    """Standard deviation without the outer 5 % on each side."""
    ordered = np.sort(values.ravel())
    cut = len(ordered) // 20
    return float(ordered[cut:-cut].std())


@pytest.fixture(scope="module")
def uncalibrated() -> list[FixedPattern]:
    return [draw_pattern(name, UNCALIBRATED) for name in NAMES]


@pytest.fixture(scope="module")
def calibrated() -> list[FixedPattern]:
    return [draw_pattern(name, CALIBRATED) for name in NAMES]


# A change of these makes every recorded result a result of another chip: be sure to mean it.
@pytest.mark.parametrize(
    ("name", "preset", "expected"),
    [
        ("W66F3", "calibrated", "5b6350cb2dd99a30"),
        ("W66F3", "uncalibrated", "f167b32c9766cff3"),
        ("W66F3", "ideal", "38410a9c40d8d9ae"),
        ("W60F0", "calibrated", "40b0025b5e60a948"),
        ("W60F0", "uncalibrated", "e622f42a10aaef40"),
    ],
)
def test_hash_is_pinned(name: str, preset: str, expected: str) -> None:
    assert Chip(name, PRESETS[preset]).hash == expected


def test_same_chip_in_another_process(tmp_path: Path) -> None:
    code = (
        "from hxtrain.emulator.chip import Chip; from hxtrain.emulator.preset import UNCALIBRATED;"
        "print(Chip('W66F3', UNCALIBRATED).hash)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout.strip() == Chip("W66F3", UNCALIBRATED).hash


def test_same_chip_when_drawn_twice() -> None:
    first, second = draw_pattern("W66F3", UNCALIBRATED), draw_pattern("W66F3", UNCALIBRATED)
    for field in fields(FixedPattern):
        assert np.array_equal(getattr(first, field.name), getattr(second, field.name)), field.name


def test_ideal_chips_have_no_pattern() -> None:
    pattern = draw_pattern("any", IDEAL)
    for name in ("leak", "threshold", "reset", "rest_shift", "cadc_offset"):
        assert np.all(getattr(pattern, name) == 0), name
    for name in ("tau_mem", "tau_syn", "gain", "synapse", "cadc_gain"):
        assert np.all(getattr(pattern, name) == 1), name


@pytest.mark.parametrize("name", [field.name for field in fields(FixedPattern)])
def test_chips_are_uncorrelated(uncalibrated: list[FixedPattern], name: str) -> None:
    values = np.stack([quadrants(getattr(pattern, name)).ravel() for pattern in uncalibrated])
    if name == "cadc_gain":  # one factor per quadrant: nothing is left within
        assert np.all(np.abs(values) < 1e-12)
        values = np.concatenate([[p.cadc_gain[::QUADRANT] for p in uncalibrated]])
        assert len(np.unique(values)) == values.size
        return
    correlation = np.corrcoef(values) - np.eye(len(values))
    assert np.abs(correlation).max() < 0.15


# Total standard deviation over a chip, smallest and largest of four decoded calibrations.
SPREADS = [
    ("leak", lambda p: p.leak, 13.1, 17.7),
    ("reset", lambda p: p.reset, 12.3, 17.9),
    ("threshold", lambda p: p.threshold, 7.3, 9.2),
    ("threshold - leak", lambda p: p.threshold - p.leak, 13.3, 17.6),
    ("leak - reset", lambda p: p.leak - p.reset, 8.7, 12.6),
    ("tau_mem", lambda p: p.tau_mem, 0.131, 0.151),
    ("tau_syn exc", lambda p: p.tau_syn[:, 0], 0.201, 0.258),
    ("tau_syn inh", lambda p: p.tau_syn[:, 1], 0.195, 0.251),
    ("gain exc", lambda p: p.gain[:, 0], 0.103, 0.238),
    ("gain inh", lambda p: p.gain[:, 1], 0.104, 0.244),
    ("CADC offset", lambda p: p.cadc_offset, 9.25, 9.95),
]


@pytest.mark.parametrize(("value", "low", "high"), [row[1:] for row in SPREADS], ids=[row[0] for row in SPREADS])
def test_uncalibrated_spread_is_that_of_published_chips(
    uncalibrated: list[FixedPattern], value: object, low: float, high: float
) -> None:
    found = np.sqrt(np.mean([value(p).var() for p in uncalibrated]))  # type: ignore[operator]
    assert 0.75 * low <= found <= 1.25 * high


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        (lambda p: p.leak, 12, 15),
        (lambda p: p.threshold, 6, 7.5),
        (lambda p: p.tau_mem, 0.12, 0.14),
        (lambda p: p.tau_syn[:, 0], 0.19, 0.215),
        (lambda p: p.gain[:, 0], 0.05, 0.07),
    ],
    ids=["leak", "threshold", "tau_mem", "tau_syn", "gain"],
)
def test_spread_within_quadrants(uncalibrated: list[FixedPattern], value: object, low: float, high: float) -> None:
    found = np.sqrt(np.mean([quadrants(value(p)).var() for p in uncalibrated]))  # type: ignore[operator]
    assert 0.9 * low <= found <= 1.1 * high


def test_correlations(uncalibrated: list[FixedPattern]) -> None:
    def mean(x: str, y: str) -> float:
        return float(np.mean([np.corrcoef(getattr(p, x), getattr(p, y))[0, 1] for p in uncalibrated]))

    assert 0.6 < mean("leak", "reset") < 0.9
    assert 0.2 < mean("leak", "threshold") < 0.5
    assert abs(mean("leak", "tau_mem")) < 0.1
    gains = [np.corrcoef(p.gain[:, 0], p.gain[:, 1])[0, 1] for p in uncalibrated]
    assert 0.6 < np.mean(gains) < 0.97  # the quadrant's factor is common to both signs


@pytest.mark.parametrize("name", ["leak", "threshold", "reset", "tau_mem", "cadc_offset", "rest_shift"])
def test_neighbours_are_independent_within_a_quadrant(uncalibrated: list[FixedPattern], name: str) -> None:
    pairs = [quadrants(getattr(pattern, name)) for pattern in uncalibrated]
    left = np.concatenate([p[:, :-1].ravel() for p in pairs])
    right = np.concatenate([p[:, 1:].ravel() for p in pairs])
    assert abs(np.corrcoef(left, right)[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("name", "ratio"),
    [("leak", 0.30), ("reset", 0.20), ("threshold", 0.35), ("tau_mem", 0.45), ("tau_syn", 0.20)],
)
def test_calibration_leaves_less_than_its_tests_allow(
    calibrated: list[FixedPattern], uncalibrated: list[FixedPattern], name: str, ratio: float
) -> None:
    pairs = zip(calibrated, uncalibrated, strict=True)
    found = [trimmed_sd(getattr(c, name)) / trimmed_sd(getattr(u, name)) for c, u in pairs]
    assert 0 < max(found) < ratio


def test_calibrated_readout(calibrated: list[FixedPattern]) -> None:
    for pattern in calibrated:
        assert 0 < pattern.cadc_offset.std() < 3
        assert np.abs(pattern.cadc_offset.reshape(4, QUADRANT).mean(axis=1)).max() < 5


def test_synapses_have_their_own_factor_and_their_drivers(calibrated: list[FixedPattern]) -> None:
    synapse = calibrated[0].synapse
    assert synapse.shape == (512, 128, 2)
    assert synapse.min() >= 0
    assert synapse.std() == pytest.approx(np.hypot(0.05, 0.02), rel=0.05)
    assert synapse.mean(axis=0).std() == pytest.approx(0.02, rel=0.3)  # what all circuits share
