"""Chip individuals: pinned, reproducible, with the spread of the four published chips."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from emulator_bench import calibrated, fabricated, fingerprint, ideal, shipped

from hxtrain.emulator import CIRCUITS, FABRICATED, IDEAL, Chip, draw_silicon, uniform_targets
from hxtrain.emulator.calibration import shipped_chips
from hxtrain.emulator.cells import (
    CIRCUIT_CELLS,
    CODE_MAX,
    POTENTIALS,
    TIME_CONSTANTS,
    code_for,
    common_codes,
    value_of,
    value_range,
)
from hxtrain.emulator.silicon import Silicon, Values

NAMES = ("W66F3", "W60F0", "W62F0", "W63F3", "W69F0", "W70F1", "W71F2", "W72F3")
QUADRANT = 128
TARGETS = uniform_targets()


def quadrants(values: np.ndarray) -> np.ndarray:
    """Return values per circuit as `[4, 128, ...]` with each quadrant's mean removed."""
    split = values.reshape(4, QUADRANT, *values.shape[1:])
    return split - split.mean(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def dies() -> list[Silicon]:
    return [draw_silicon(name, FABRICATED) for name in NAMES]


@pytest.fixture(scope="module")
def chips() -> list[Values]:
    return [Chip(name, FABRICATED).values(TARGETS) for name in NAMES]


# With other hashes, every recorded result belongs to another chip. Change them only on purpose.
PINNED = {
    "W66F3": ("ca343d2f3c9bc916", "379ac4234a001175", "f6d1a2ddaae830c9"),
    "W62F0": ("3502ecbaf336a852", "d176f05d030c0a53", "99fbba54f4db888e"),
    "W63F1": ("590e6202a312e367", "3e436b30c1e62b88", "346827e3a2de3dde"),
    "W64F2": ("33b54b5641b9543a", "481a9cfccfa94967", "fd134c66f38c1ecb"),
    "W65F4": ("42bfd4f9dc5f9f11", "e238f25ee4f1f0ea", "d42ec667c49e67c2"),
    "W67F5": ("5a474e56bcde4096", "54858ae64a9de24b", "e35ab4a5c4d3ee42"),
}
"""Hash of the uncalibrated chip, of its shipped calibration, and of the chip with the calibrated codes."""


@pytest.mark.parametrize("name", PINNED)
def test_hashes_are_pinned(name: str) -> None:
    hashes = (fabricated(name).hash, shipped(name).hash, calibrated(name).hash)
    assert hashes == PINNED[name]


def test_every_shipped_chip_is_pinned() -> None:
    assert shipped_chips() == sorted(PINNED)


def test_hash_of_ideal_chips_is_pinned() -> None:
    assert {ideal().hash, Chip("W62F0", IDEAL).hash} == {"91737fafc68c0bad"}


def test_chip_and_recording_are_the_same_in_a_fresh_process_with_other_threads(tmp_path: Path) -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import emulator_bench as b; print(b.fingerprint())"
    variables = {**os.environ, "OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2", "PYTHONHASHSEED": "5"}
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    process = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=variables)
    assert process.stdout.strip() == fingerprint()


def test_same_die_when_drawn_twice() -> None:
    draw_silicon.cache_clear()
    first = draw_silicon("W66F3", FABRICATED)
    draw_silicon.cache_clear()
    second = draw_silicon("W66F3", FABRICATED)
    assert first is not second
    for field in fields(Silicon):
        assert np.array_equal(getattr(first, field.name), getattr(second, field.name)), field.name
    assert first.digest == second.digest


def test_noise_levels_and_codes_do_not_change_the_die() -> None:
    chip = fabricated()
    assert calibrated(membrane_noise=3.0).silicon.digest == chip.silicon.digest
    assert len({chip.hash, calibrated().hash, fabricated(membrane_noise=3.0).hash, fabricated("W62F0").hash}) == 4
    assert fabricated(leak_sd=14).hash == chip.hash  # the same number, written as an integer
    assert fabricated(leak_sd=15).silicon.digest != chip.silicon.digest


def test_ideal_chips_meet_their_targets() -> None:
    targets = uniform_targets(leak=87.3, threshold=141.7, reset=61.1, tau_mem=7.77e-6, tau_syn=3.33e-6)
    true = Chip("any", IDEAL).values(targets)
    for name in ("leak", "threshold", "reset", "tau_mem"):
        assert np.allclose(getattr(true, name), targets[name], rtol=1e-6), name
    assert np.allclose(true.tau_syn, 3.33e-6, rtol=1e-6)
    for name in ("rest_shift", "cadc_offset"):
        assert np.all(getattr(true, name) == 0), name
    for name in ("gain", "synapse", "cadc_gain", "parasitic"):
        assert np.all(getattr(true, name) == 1), name


@pytest.mark.parametrize("name", [field.name for field in fields(Silicon) if field.name != "stuck"])
def test_dies_are_uncorrelated(dies: list[Silicon], name: str) -> None:
    values = np.stack([getattr(die, name).ravel() for die in dies])
    if values.shape[1] == 4:  # one per quadrant: too few to correlate
        assert len(np.unique(values)) == values.size
        return
    values = np.stack([quadrants(getattr(die, name)).ravel() for die in dies])
    correlation = np.corrcoef(values) - np.eye(len(values))
    assert np.abs(correlation).max() < 5 / np.sqrt(values.shape[1])


# Total standard deviation over a chip: smallest and largest value of four decoded calibrations.
SPREADS: dict[str, tuple[Callable[[Values], np.ndarray], float, float]] = {
    "leak": (lambda v: v.leak, 13.1, 17.7),
    "reset": (lambda v: v.reset, 12.3, 17.9),
    "threshold": (lambda v: v.threshold, 7.3, 9.2),
    "threshold - leak": (lambda v: v.threshold - v.leak, 13.3, 17.6),
    "leak - reset": (lambda v: v.leak - v.reset, 8.7, 12.6),
    "tau_mem": (lambda v: v.tau_mem / 6e-6, 0.131, 0.151),
    "tau_syn exc": (lambda v: v.tau_syn[:, 0] / 6e-6, 0.201, 0.258),
    "tau_syn inh": (lambda v: v.tau_syn[:, 1] / 6e-6, 0.195, 0.251),
    "gain exc": (lambda v: v.gain[:, 0], 0.103, 0.238),
    "gain inh": (lambda v: v.gain[:, 1], 0.104, 0.244),
    "CADC offset": (lambda v: v.cadc_offset, 9.0, 10.5),
    "CADC gain": (lambda v: v.cadc_gain, 0.04, 0.06),
}


@pytest.mark.parametrize("name", SPREADS)
def test_spread_is_that_of_published_chips(chips: list[Values], name: str) -> None:
    value, low, high = SPREADS[name]
    spread = np.sqrt(np.mean([value(v).var() for v in chips]))
    assert 0.75 * low <= spread <= 1.25 * high


WITHIN: dict[str, tuple[Callable[[Values], np.ndarray], float, float]] = {
    "leak": (lambda v: v.leak, 12, 15),
    "reset": (lambda v: v.reset, 11, 14),
    "threshold": (lambda v: v.threshold, 6, 7.5),
    "tau_mem": (lambda v: v.tau_mem / 6e-6, 0.12, 0.14),
    "tau_syn": (lambda v: v.tau_syn / 6e-6, 0.19, 0.215),
    "gain": (lambda v: v.gain, 0.055, 0.12),
}


@pytest.mark.parametrize("name", WITHIN)
def test_spread_within_quadrants(chips: list[Values], name: str) -> None:
    value, low, high = WITHIN[name]
    spread = np.sqrt(np.mean([quadrants(value(v)).var() for v in chips]))
    assert 0.9 * low <= spread <= 1.1 * high


def test_correlations(chips: list[Values]) -> None:
    def mean(x: Callable[[Values], np.ndarray], y: Callable[[Values], np.ndarray]) -> float:
        return float(np.mean([np.corrcoef(x(v).ravel(), y(v).ravel())[0, 1] for v in chips]))

    assert 0.6 < mean(lambda v: v.leak, lambda v: v.reset) < 0.9
    assert 0.2 < mean(lambda v: v.leak, lambda v: v.threshold) < 0.45
    assert abs(mean(lambda v: v.leak, lambda v: v.tau_mem)) < 0.1
    assert abs(mean(lambda v: quadrants(v.tau_syn[:, 0]), lambda v: quadrants(v.tau_syn[:, 1]))) < 0.1
    # the quadrant's factor is common to both signs
    assert 0.7 < mean(lambda v: v.gain[:, 0], lambda v: v.gain[:, 1]) < 0.97
    assert 0.07 < mean(lambda v: quadrants(v.gain[:, 0]), lambda v: quadrants(v.gain[:, 1])) < 0.42


@pytest.mark.parametrize("name", ["leak", "threshold", "reset", "tau_mem", "cadc_offset", "rest_shift"])
def test_neighbours_are_independent_within_a_quadrant(chips: list[Values], name: str) -> None:
    pairs = [quadrants(getattr(v, name)) for v in chips]
    left = np.concatenate([p[:, :-1].ravel() for p in pairs])
    right = np.concatenate([p[:, 1:].ravel() for p in pairs])
    assert abs(np.corrcoef(left, right)[0, 1]) < 0.1


def test_synapses_have_their_own_factor_and_their_drivers(dies: list[Silicon]) -> None:
    synapse = dies[0].synapse
    assert synapse.shape == (CIRCUITS, 128, 2)
    assert synapse.min() >= 0
    assert synapse.std() == pytest.approx(np.hypot(0.05, 0.02), rel=0.05)
    assert synapse.mean(axis=0).std() == pytest.approx(0.02, rel=0.3)  # the factor common to all circuits


def test_few_circuits_have_one_cell_far_off() -> None:
    """The value of an outlier is 4 to 7 standard deviations off."""
    chip, none = (draw_silicon("W66F3", FABRICATED.changed(outlier_share=share)) for share in (0.3, 0.0))
    off = {
        "leak": (chip.leak - none.leak) / FABRICATED.leak_sd,
        "reset": (chip.reset - none.reset) / FABRICATED.reset_sd,
        "threshold": (chip.threshold - none.threshold) / FABRICATED.threshold_sd,
        "tau_mem": np.log(chip.tau_mem / none.tau_mem) / FABRICATED.tau_mem_cv,
        "tau_syn_exc": np.log(chip.tau_syn / none.tau_syn)[:, 0] / FABRICATED.tau_syn_cv,
        "tau_syn_inh": np.log(chip.tau_syn / none.tau_syn)[:, 1] / FABRICATED.tau_syn_cv,
    }
    hit = np.stack([np.abs(values) > 1e-3 for values in off.values()])
    assert hit.sum(0).max() == 1  # at most one cell of a circuit
    assert hit.any(0).sum() == pytest.approx(0.3 * CIRCUITS, rel=0.2)
    assert np.all(hit.sum(1) > 10)  # outliers of every cell
    size = np.abs(np.concatenate([values[mask] for values, mask in zip(off.values(), hit, strict=True)]))
    assert size.min() == pytest.approx(4, abs=0.2)
    assert size.max() == pytest.approx(7, abs=0.2)


def test_stuck_cells_do_not_follow_their_code() -> None:
    chip = fabricated(stuck_share=0.3, code_noise=0.0, rewrite_potential=0.0)
    codes = common_codes(TARGETS)
    low, high = (
        replace(chip, codes=codes.replaced(leak=np.full(CIRCUITS, code))).values(TARGETS).leak for code in (100, 300)
    )
    stuck = chip.silicon.stuck[CIRCUIT_CELLS.index("leak")] >= 0
    assert 5 < stuck.sum() < 40
    assert np.allclose(high[stuck], low[stuck])
    assert np.allclose(high[~stuck] - low[~stuck], 200 * 200 / 480)
    assert ((chip.silicon.stuck >= 0).sum(0) <= 1).all()


# cells


@pytest.mark.parametrize("cell", [*POTENTIALS, *TIME_CONSTANTS, "gain_exc", "gain_inh"])
def test_transfer_of_cells_is_inverted(cell: str) -> None:
    codes = np.array([1.0, 70.0, 250.0, 550.0, float(CODE_MAX)])
    assert np.allclose(code_for(cell, value_of(cell, codes)), codes)
    low, high = value_range(cell)
    assert low < high
    assert {low, high} == {float(value_of(cell, codes[:1])[0]), float(value_of(cell, codes[-1:])[0])}


def test_published_points_of_the_transfer() -> None:
    """Codes 70..550 of a potential are 20..220 LSB; time constants reach from 0.7 to 60 us."""
    assert value_of("leak", np.array([70.0, 550.0])) == pytest.approx([20.0, 220.0])
    low, high = value_range("tau_mem")
    assert low < 0.7e-6
    assert high > 60e-6


def test_written_cells_differ_by_code_noise_and_rewrite_noise() -> None:
    chip = fabricated()
    codes = common_codes(TARGETS)

    def leak(**changes: np.ndarray) -> np.ndarray:
        return replace(chip, codes=codes.replaced(**changes)).values(TARGETS).leak

    first = leak()
    assert np.array_equal(leak(), first)  # equal codes give equal values
    assert np.array_equal(leak(reset=codes.reset + 1.0), first)  # independent of the codes of other cells
    changed_codes = codes.leak.astype(float)
    changed_codes[7] += 1
    second = leak(leak=changed_codes)  # all cells are written again, because one code has changed
    assert (second - first).std() == pytest.approx(np.sqrt(2) * FABRICATED.rewrite_potential, rel=0.1)
    exact = replace(chip, preset=FABRICATED.changed(rewrite_potential=0.0), codes=codes)
    up = replace(exact, codes=codes.replaced(leak=codes.leak + 1.0))
    step = up.values(TARGETS).leak - exact.values(TARGETS).leak
    unit = 200 / 480
    assert step.mean() == pytest.approx(unit, abs=0.1)
    assert step.std() == pytest.approx(np.sqrt(2) * FABRICATED.code_noise * unit, rel=0.15)


@pytest.mark.parametrize(
    ("cell", "field", "spread"),
    [
        ("threshold", "threshold", FABRICATED.rewrite_threshold),
        ("tau_mem", "tau_mem", FABRICATED.rewrite_tau_mem),
        ("tau_syn_exc", "tau_syn", FABRICATED.rewrite_tau_syn),
        ("gain_inh", "gain", FABRICATED.rewrite_gain),
    ],
)
def test_rewrite_noise_of_other_cells(cell: str, field: str, spread: float) -> None:
    codes = common_codes(TARGETS)
    changed = getattr(codes, cell).astype(float)
    changed[7] += 1
    variants = (codes, codes.replaced(**{cell: changed}))
    first, second = (getattr(replace(fabricated(), codes=c).values(TARGETS), field) for c in variants)
    if first.ndim == 2:
        sign = int(cell.endswith("inh"))
        assert np.array_equal(first[:, 1 - sign], second[:, 1 - sign])
        first, second = first[:, sign], second[:, sign]
    change = second - first if cell == "threshold" else np.log(second / first)
    assert change.std() == pytest.approx(np.sqrt(2) * spread, rel=0.1)


def test_codes_are_limited_and_checked() -> None:
    codes = common_codes(TARGETS).replaced(leak=np.linspace(-50, 2000, CIRCUITS), cadc_digital=np.full(CIRCUITS, 999.0))
    assert (codes.leak.min(), codes.leak.max(), codes.cadc_digital.max()) == (0, CODE_MAX, 127)
    with pytest.raises(ValueError, match=r"codes of leak span 0\.\.1023, allowed 0\.\.1022"):
        replace(codes, leak=np.where(codes.leak == CODE_MAX, np.int16(1023), codes.leak))
    with pytest.raises(ValueError, match=r"codes of dac_bias are int16 \(512,\), expected int16 \(4,\)"):
        replace(codes, dac_bias=codes.leak)
    with pytest.raises(ValueError, match=r"codes of reset are float64 \(512,\), expected int16"):
        replace(codes, reset=codes.reset.astype(float))


def test_quadrant_cells_act_on_their_quadrant() -> None:
    codes = common_codes(TARGETS)
    changed = codes.replaced(
        dac_bias=np.array([600, 300, 600, 600.0]),
        cadc_start=np.array([512, 512, 552, 512.0]),
        cadc_slope=np.array([500, 500, 500, 550.0]),
        cadc_digital=np.full(CIRCUITS, 3.0),
    )
    exact = IDEAL.changed(gain_cv=0.06)  # a die with mismatch
    old, new = (Chip("W66F3", exact, variant).values(TARGETS) for variant in (codes, changed))
    quadrant = np.repeat([1.0, 0.5, 1.0, 1.0], QUADRANT)[:, None]
    assert np.allclose(new.gain / old.gain, quadrant)
    assert np.allclose(new.cadc_offset - old.cadc_offset, np.repeat([3, 3, 13, 3], QUADRANT))
    assert np.allclose(new.cadc_gain / old.cadc_gain, np.repeat([1, 1, 1, 1.1], QUADRANT))
