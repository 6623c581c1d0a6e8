"""Faults of the link: each fires as often as it says, is announced, follows its seed, and spoils nothing else."""

import math
from dataclasses import replace

import pytest
import torch
from backends_bench import CASES, CIRCUIT, WEIGHTS, configured, rows, stimulus

from hxtrain.backends import (
    FAULTS,
    Backend,
    DeviceError,
    DroppedSpikes,
    Fault,
    FaultyBackend,
    Health,
    LateSamples,
    LostSamples,
    PartialRun,
    Recording,
    Spikes,
    TimeOut,
    create_faults,
)

TRIALS = 600
BRIEF = replace(CIRCUIT, samples=2)
"""A circuit for tests of many runs."""


@pytest.fixture(scope="module")
def clean() -> Recording:
    return configured(CASES["reference"]).run(WEIGHTS, stimulus(TRIALS))


def behind(*faults: Fault, seed: int = 1, circuit=CIRCUIT) -> FaultyBackend:
    return FaultyBackend(configured(CASES["reference"], circuit), faults, seed)


def meets(fault: Fault, trials: int = TRIALS, clock: int = 0, seed: int = 1) -> Recording:
    return behind(fault, seed=seed).run(WEIGHTS, stimulus(trials, clock))


def lost(recording: Recording) -> list[int]:
    assert recording.lost is not None
    assert recording.lost.dtype == torch.bool
    return recording.lost.nonzero()[:, 0].tolist()


def is_binomial(count: int, n: int, p: float) -> bool:
    """Within five standard deviations."""
    return abs(count - n * p) < 5 * math.sqrt(n * p * (1 - p))


def outcomes(backend: Backend, runs: int) -> list[object]:
    """What became of runs of five trials: None for an error, else the lost trials."""
    found: list[object] = []
    for index in range(runs):
        try:
            lost = backend.run(WEIGHTS, stimulus(5, 5 * index)).lost
        except DeviceError:
            found.append(None)
        else:
            found.append([] if lost is None else lost.nonzero()[:, 0].tolist())
    return found


def test_time_outs_come_per_run() -> None:
    found = outcomes(behind(TimeOut(0.2), circuit=BRIEF), 300)
    assert is_binomial(found.count(None), 300, 0.2)
    assert found.count([]) == 300 - found.count(None)


def test_a_partial_run_loses_all_trials_from_one_on() -> None:
    found = outcomes(behind(PartialRun(0.4), circuit=BRIEF), 300)
    whole = found.count([])
    assert is_binomial(300 - whole, 300, 0.4)
    ends = [list(range(first, 5)) for first in range(5)]
    assert all(is_binomial(found.count(end), 300 - whole, 0.2) for end in ends)
    assert whole + sum(found.count(end) for end in ends) == 300


@pytest.mark.parametrize("fault", [LostSamples(0.1), LateSamples(0.1)])
def test_trials_are_lost_one_by_one_and_the_others_are_whole(fault: Fault, clean: Recording) -> None:
    found = meets(fault)
    gone = lost(found)
    assert is_binomial(len(gone), TRIALS, 0.1)
    kept = [trial for trial in range(TRIALS) if trial not in set(gone)]
    for name, codes in clean.traces.items():
        assert torch.equal(found.traces[name][kept], codes[kept])
        assert (found.traces[name][gone] != codes[gone]).flatten(1).any(1).all()
    assert rows(found.spikes["hidden"]) == [row for row in rows(clean.spikes["hidden"]) if row[0] in set(kept)]
    assert found.health == Health()


def test_codes_of_lost_samples_are_random(clean: Recording) -> None:
    found = meets(LostSamples(0.1))
    codes = found.traces["hidden"][lost(found)]
    assert codes.double().mean() == pytest.approx(127.5, abs=5)
    assert codes.unique().numel() > 200


def test_late_samples_are_those_of_one_to_three_samples_later(clean: Recording) -> None:
    found = meets(LateSamples(0.1))
    delays = []
    for trial in lost(found):
        code, late = clean.traces["hidden"][trial], found.traces["hidden"][trial]
        delays += [delay for delay in range(1, 6) if torch.equal(late[:-delay], code[delay:])]
    assert len(delays) == len(lost(found))
    assert set(delays) == {1, 2, 3}


def test_dropped_spikes_are_counted_and_nothing_else_is_wrong(clean: Recording) -> None:
    found = meets(DroppedSpikes(0.3))
    before, after = rows(clean.spikes["hidden"]), rows(found.spikes["hidden"])
    assert is_binomial(len(before) - len(after), len(before), 0.3)
    assert found.health == Health(dropped_spikes=len(before) - len(after))
    remaining = iter(before)
    assert all(row in remaining for row in after)  # in order, none invented
    assert found.lost is None
    assert all(torch.equal(found.traces[name], clean.traces[name]) for name in clean.traces)


def same(a: Recording, b: Recording) -> bool:
    lost = [torch.zeros(0) if r.lost is None else r.lost for r in (a, b)]
    return (
        torch.equal(*lost)
        and a.health == b.health
        and all(torch.equal(a.traces[name], b.traces[name]) for name in a.traces)
        and all(rows(a.spikes[name]) == rows(b.spikes[name]) for name in a.spikes)
    )


@pytest.mark.parametrize("fault", [LostSamples(0.2), LateSamples(0.2), DroppedSpikes(0.2), PartialRun(1.0)])
def test_faults_follow_seed_clock_and_attempt(fault: Fault) -> None:
    backend = behind(fault)
    first, repeat = (backend.run(WEIGHTS, stimulus(60)) for _ in range(2))
    assert same(meets(fault, 60), first)
    assert not same(first, repeat)
    assert not same(meets(fault, 60, seed=2), first)
    assert not same(meets(fault, 60, clock=60), first)
    assert same(backend.run(WEIGHTS, stimulus(60, 60)), meets(fault, 60, clock=60))  # whatever was run before


@pytest.mark.parametrize("fault", [LostSamples(0.2), DroppedSpikes(0.2)])
def test_faults_per_trial_do_not_depend_on_the_split(fault: Fault) -> None:
    whole, backend = meets(fault, 60), behind(fault)
    parts = [backend.run(WEIGHTS, stimulus(20, clock)) for clock in (0, 20, 40)]
    if isinstance(fault, LostSamples):
        assert lost(whole) == [20 * index + trial for index, part in enumerate(parts) for trial in lost(part)]
    assert rows(whole.spikes["hidden"]) == rows(Spikes.cat([part.spikes["hidden"] for part in parts]))
    assert whole.health == sum((part.health for part in parts), Health())


def test_faults_add_up_in_any_order(clean: Recording) -> None:
    faults = [PartialRun(1.0), LostSamples(0.1), LateSamples(0.1), DroppedSpikes(0.1)]
    one, other = (behind(*order).run(WEIGHTS, stimulus(TRIALS)) for order in (faults, faults[::-1]))
    assert lost(one) == lost(other)
    assert rows(one.spikes["hidden"]) == rows(other.spikes["hidden"])
    assert one.health == other.health
    alone = [lost(meets(fault)) for fault in faults[:3]]
    assert set(lost(one)) == set().union(*alone)
    kept = [trial for trial in range(TRIALS) if trial not in set(lost(one))]
    assert len(kept) > 20
    assert torch.equal(one.traces["readout"][kept], clean.traces["readout"][kept])
    with pytest.raises(DeviceError, match="did not answer in time"):
        behind(*faults, TimeOut(1.0)).run(WEIGHTS, stimulus())


def test_no_probability_costs_nothing(mocker) -> None:
    backend = FaultyBackend(configured(CASES["reference"]), [fault(0.0) for fault in FAULTS.values()])
    recording = backend.backend.run(WEIGHTS, stimulus())
    mocker.patch.object(backend.backend, "run", return_value=recording)
    assert backend.run(WEIGHTS, stimulus()) is recording
    assert backend.identity["faults"] == "none"
    assert backend.capabilities == backend.backend.capabilities
    assert backend.warnings == ()


def test_the_wrapped_device_shows_through() -> None:
    inner = CASES["emulator-calibrated"].make()
    faults = create_faults({"timeout": 0.01, "late_samples": 0.002})
    backend = FaultyBackend(inner, faults, seed=3)
    assert {**inner.identity, "faults": backend.identity["faults"]} == backend.identity
    assert backend.identity["faults"] == "late_samples(p=0.002, latest=3) timeout(p=0.01) seed=3"
    assert FaultyBackend(inner, faults[::-1], seed=3).identity == backend.identity
    assert backend.capabilities == replace(inner.capabilities, deterministic=False)
    assert "faults are injected into the link" in backend.warnings[-1]
    with backend:
        backend.configure(CIRCUIT)
        backend.run(WEIGHTS, stimulus())
    with pytest.raises(DeviceError, match="not configured"):
        inner.run(WEIGHTS, stimulus())


def test_refusals() -> None:
    known = "timeout, partial_run, lost_samples, late_samples, dropped_spikes"
    with pytest.raises(ValueError, match=f"fault 'time_out' is not known; choose among {known}"):
        create_faults({"time_out": 0.1, "timeout": 0.1})
    with pytest.raises(ValueError, match=r"fault lost_samples: p=1.5 must be in 0\.\.1"):
        create_faults({"lost_samples": 1.5})
    with pytest.raises(ValueError, match="fault late_samples: latest=0 samples must be at least 1"):
        LateSamples(0.1, latest=0)
    with pytest.raises(ValueError, match="fault 'timeout' is given twice"):
        behind(TimeOut(0.1), TimeOut(0.2))
