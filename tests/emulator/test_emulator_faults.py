"""Faults of the die, decalibration, and chips that keep only some of their imperfections."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from emulator_bench import (
    QUIET,
    READOUT,
    SPIKING,
    calibrated,
    events,
    fabricated,
    ideal,
    integers,
    machine,
    neurons_of,
    one_group,
    psp,
    run_once,
    silent,
)

from hxtrain.emulator import (
    CADC_INTERVAL,
    CIRCUITS,
    IDEAL,
    IMPERFECTIONS,
    Decalibration,
    StuckBits,
    make_faults,
    uniform_targets,
)
from hxtrain.emulator.silicon import Values

TARGETS = uniform_targets()
ALL = one_group(replace(SPIKING, size=CIRCUITS))


def test_dead_neurons_never_fire() -> None:
    faults = make_faults({"dead_neurons": 0.25})
    dead = faults[0].mask("W66F3", CIRCUITS)
    assert dead.mean() == pytest.approx(0.25, abs=0.08)
    recording = run_once(
        replace(ideal(), faults=faults), ALL, [torch.full((CIRCUITS, 1), 63)], events(*[(0, 0, 0.0)] * 4)
    )
    assert sorted(recording.spikes.unit.tolist()) == np.flatnonzero(~dead).tolist()
    assert int(recording.codes[0].max(0).values.min()) > 100  # their membranes still respond


def test_firing_neurons_always_fire() -> None:
    faults = make_faults({"firing_neurons": 0.1})
    firing = faults[0].mask("W66F3", CIRCUITS)
    recording = run_once(replace(calibrated(**QUIET), faults=faults), ALL, [silent(CIRCUITS)], events())
    assert set(np.flatnonzero(firing).tolist()) <= set(recording.spikes.unit.tolist())
    number = torch.bincount(recording.spikes.unit, minlength=CIRCUITS).numpy()
    assert number[firing].min() >= 3
    assert (number[~firing] > 0).mean() < 0.02  # outliers


@pytest.mark.parametrize(("weight", "high"), [(45, False), (-45, False), (45, True), (-45, True), (0, True)])
def test_stuck_bits_change_weights(weight: int, high: bool) -> None:
    """A stuck bit reads as 0 or 1 in the row of either sign, independent of the written weight."""
    chip = replace(ideal(), faults=(StuckBits(0.2, seed=3 + high),))
    layout = one_group(replace(READOUT, size=40, leak=128.0))
    recording = run_once(chip, layout, [torch.full((40, 1), weight)], events((0, 0, 0.0)))
    true = chip.values(TARGETS)
    assert true.stuck_low is not None
    assert true.stuck_high is not None
    low, ones = true.stuck_low[:40, 0].astype(int), true.stuck_high[:40, 0].astype(int)
    assert not (low & ones).any()
    effective = [(max(w, 0) & ~low[:, i]) | ones[:, i] for i, w in enumerate((weight, -weight))]
    expected = effective[0] - effective[1]
    assert len(np.unique(expected)) > 5
    curve = psp(torch.arange(20) * CADC_INTERVAL, 6e-6, 6e-6)
    response = recording.codes[0].double() - 128
    assert float((response - curve[:, None] * torch.from_numpy(expected)).abs().max()) < 0.51


def test_share_of_stuck_bits() -> None:
    true = replace(ideal(), faults=make_faults({"stuck_bits": 0.02})).values(TARGETS)
    shares = [np.unpackbits(part).mean() * 8 / 6 for part in (true.stuck_low, true.stuck_high)]
    assert shares == pytest.approx([0.01, 0.01], rel=0.05)


def test_faults_depend_on_chip_and_seed_alone() -> None:
    def dead(name: str, seed: int, share: float = 0.3) -> np.ndarray:
        return make_faults({"dead_neurons": share}, seed)[0].mask(name, CIRCUITS)

    assert np.array_equal(dead("W66F3", 0), dead("W66F3", 0))
    assert not np.array_equal(dead("W66F3", 0), dead("W66F3", 1))
    assert not np.array_equal(dead("W66F3", 0), dead("W62F0", 0))
    assert np.all(dead("W66F3", 0)[dead("W66F3", 0, 0.1)])  # a larger share adds to the same circuits
    assert make_faults({"dead_neurons": 0.0}) == ()
    chips = [replace(fabricated(), faults=make_faults({"dead_neurons": 0.1}, seed)) for seed in (0, 1)]
    assert len({chip.hash for chip in (*chips, fabricated())}) == 3


def test_decalibration_spreads_targets() -> None:
    """Cramer et al. (2022): time constants and threshold - leak multiplied by N(1, sigma)."""
    plain = ideal().values(TARGETS)
    spread = replace(ideal(), decalibration=Decalibration(0.3, 0.2, seed=5)).values(TARGETS)
    ratios = {
        "distance": ((spread.threshold - spread.leak) / 70, 0.2),
        "tau_mem": (spread.tau_mem / 6e-6, 0.3),
        "tau_syn exc": (spread.tau_syn[:, 0] / 6e-6, 0.3),
        "tau_syn inh": (spread.tau_syn[:, 1] / 6e-6, 0.3),
    }
    for name, (ratio, sigma) in ratios.items():
        assert ratio.mean() == pytest.approx(1, abs=5 * sigma / np.sqrt(CIRCUITS)), name
        assert ratio.std() == pytest.approx(sigma, rel=0.15), name
    drawn = np.stack([ratio for ratio, _ in ratios.values()])
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 5 / np.sqrt(CIRCUITS)
    for field in fields(Values):
        if field.name not in ("threshold", "tau_mem", "tau_syn"):
            old, new = getattr(plain, field.name), getattr(spread, field.name)
            assert np.array_equal(old, new) or (old is None and new is None), field.name
    largest = replace(ideal(), decalibration=Decalibration(1.0, 1.0)).values(TARGETS)
    assert (largest.tau_mem / 6e-6).min() == pytest.approx(0.1)
    assert ((largest.threshold - largest.leak) / 70).min() == pytest.approx(0.1)


def test_decalibration_comes_on_top_of_a_calibration() -> None:
    chip = calibrated()
    spread = replace(chip, decalibration=Decalibration(0.3))
    assert spread.hash != chip.hash
    ratio = spread.values(TARGETS).tau_mem / chip.values(TARGETS).tau_mem
    assert ratio.std() == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize("name", IMPERFECTIONS)
def test_one_imperfection_alone(name: str) -> None:
    """The kept imperfection is that of the full chip; all other parameters are ideal."""
    changes = {"drift_sd": 2.0}
    full = fabricated(**changes)
    none = ideal()
    only = replace(full, only=(name,))
    real_fields, noise = IMPERFECTIONS[name]
    values = {chip: chip.values(TARGETS) for chip in (full, none, only)}
    for field in fields(Values):
        if field.name.startswith("stuck"):
            continue
        source = full if field.name in real_fields else none
        assert np.allclose(getattr(values[only], field.name), getattr(values[source], field.name), rtol=1e-6), (
            field.name
        )
        if field.name in real_fields:
            assert not np.allclose(getattr(values[only], field.name), getattr(values[none], field.name)), field.name
    assert noise or real_fields
    for field in fields(IDEAL):
        source = full if field.name in noise else none
        if field.name in {n for _, group in IMPERFECTIONS.values() for n in group}:
            assert getattr(only.noise, field.name) == getattr(source.noise, field.name), field.name
    assert only.hash != full.hash


def test_every_noise_level_belongs_to_an_imperfection() -> None:
    """Every field of a preset is part of the die or has a name in `only`."""
    of_noise = {name for _, group in IMPERFECTIONS.values() for name in group}
    of_values = {name for group, _ in IMPERFECTIONS.values() for name in group}
    assert {f.name for f in fields(Values)} - of_values == {"stuck_low", "stuck_high"}
    spread = {"sd", "cv", "rho", "share"}
    rest = {f.name for f in fields(IDEAL)} - of_noise
    of_die = {n for n in rest if n.split("_")[-1] in spread or n.startswith("rewrite_") or n == "code_noise"}
    assert rest == of_die


def test_several_imperfections_and_no_imperfection() -> None:
    chip = replace(fabricated(), only=("leak", "cadc_noise"))
    assert chip.values(TARGETS).leak.std() > 10
    assert chip.noise.cadc_noise == 0.7
    assert chip.noise.membrane_noise == 0
    nothing = run_once(replace(fabricated(), only=()), ALL, [torch.full((CIRCUITS, 1), 40)], events((0, 0, 1e-6)))
    perfect = run_once(ideal(), ALL, [torch.full((CIRCUITS, 1), 40)], events((0, 0, 1e-6)))
    assert torch.equal(nothing.codes, perfect.codes)


def test_faults_and_decalibration_stay_whatever_is_kept() -> None:
    faults = make_faults({"dead_neurons": 0.2, "stuck_bits": 0.1})
    chip = replace(fabricated(), faults=faults, decalibration=Decalibration(0.3), only=("leak",))
    true = chip.values(TARGETS)
    assert (true.threshold > 1e6).sum() == faults[0].mask("W66F3", CIRCUITS).sum()
    assert (true.tau_mem / 6e-6).std() == pytest.approx(0.3, rel=0.1)
    assert true.stuck_low is not None
    assert neurons_of(chip, ALL).stuck is not None


def test_faults_reach_the_recording_of_a_written_machine() -> None:
    emulated = machine(ideal(), one_group(SPIKING))
    stimulus = events(*[(0, 0, 0.0)] * 4)
    assert len(emulated.run([integers([63])], stimulus, 1).spikes.time) == 1
    emulated.exchange(replace(ideal(), faults=make_faults({"dead_neurons": 1.0})))
    emulated.configure(one_group(SPIKING), 20)
    assert len(emulated.run([integers([63])], stimulus, 1).spikes.time) == 0
