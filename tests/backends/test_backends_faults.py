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


def faulty(*faults: Fault, seed: int = 1, circuit=CIRCUIT) -> FaultyBackend:
    return FaultyBackend(configured(CASES["reference"], circuit), faults, seed)


def meets(fault: Fault, trials: int = TRIALS, clock: int = 0, seed: int = 1) -> Recording:
    return faulty(fault, seed=seed).run(WEIGHTS, stimulus(trials, clock))


def lost(recording: Recording) -> list[int]:
    assert recording.lost is not None
    assert recording.lost.dtype == torch.bool
    return recording.lost.nonzero()[:, 0].tolist()


def is_binomial(count: int, n: int, p: float) -> bool:
    """Within five standard deviations."""
    return abs(count - n * p) < 5 * math.sqrt(n * p * (1 - p))


def outcomes(backend: Backend, runs: int) -> list[object]:
    """What became of runs of five trials: None for an error, else the lost trials."""
    results: list[object] = []
    for index in range(runs):
        try:
            lost = backend.run(WEIGHTS, stimulus(5, 5 * index)).lost
        except DeviceError:
            results.append(None)
        else:
            results.append([] if lost is None else lost.nonzero()[:, 0].tolist())
    return results


def test_time_outs_come_per_run() -> None:
    results = outcomes(faulty(TimeOut(0.2), circuit=BRIEF), 300)
    assert is_binomial(results.count(None), 300, 0.2)
    assert results.count([]) == 300 - results.count(None)


def test_a_partial_run_loses_all_trials_from_one_on() -> None:
    results = outcomes(faulty(PartialRun(0.4), circuit=BRIEF), 300)
    whole = results.count([])
    assert is_binomial(300 - whole, 300, 0.4)
    ends = [list(range(first, 5)) for first in range(5)]
    assert all(is_binomial(results.count(end), 300 - whole, 0.2) for end in ends)
    assert whole + sum(results.count(end) for end in ends) == 300


@pytest.mark.parametrize("fault", [LostSamples(0.1), LateSamples(0.1)])
def test_trials_are_lost_one_by_one_and_the_others_are_whole(fault: Fault, clean: Recording) -> None:
    recording = meets(fault)
    lost_trials = lost(recording)
    assert is_binomial(len(lost_trials), TRIALS, 0.1)
    whole_trials = [trial for trial in range(TRIALS) if trial not in set(lost_trials)]
    for name, codes in clean.traces.items():
        assert torch.equal(recording.traces[name][whole_trials], codes[whole_trials])
        assert (recording.traces[name][lost_trials] != codes[lost_trials]).flatten(1).any(1).all()
    assert rows(recording.spikes["hidden"]) == [
        row for row in rows(clean.spikes["hidden"]) if row[0] in set(whole_trials)
    ]
    assert recording.health == Health()


def test_codes_of_lost_samples_are_random(clean: Recording) -> None:
    recording = meets(LostSamples(0.1))
    codes = recording.traces["hidden"][lost(recording)]
    assert codes.double().mean() == pytest.approx(127.5, abs=5)
    assert codes.unique().numel() > 200


def test_late_samples_are_those_of_one_to_three_samples_later(clean: Recording) -> None:
    recording = meets(LateSamples(0.1))
    delays = []
    for trial in lost(recording):
        code, late = clean.traces["hidden"][trial], recording.traces["hidden"][trial]
        delays += [delay for delay in range(1, 6) if torch.equal(late[:-delay], code[delay:])]
    assert len(delays) == len(lost(recording))
    assert set(delays) == {1, 2, 3}


def test_dropped_spikes_are_counted_and_nothing_else_is_wrong(clean: Recording) -> None:
    recording = meets(DroppedSpikes(0.3))
    expected, actual = rows(clean.spikes["hidden"]), rows(recording.spikes["hidden"])
    assert is_binomial(len(expected) - len(actual), len(expected), 0.3)
    assert recording.health == Health(dropped_spikes=len(expected) - len(actual))
    remaining = iter(expected)
    assert all(row in remaining for row in actual)  # in order, none invented
    assert recording.lost is None
    assert all(torch.equal(recording.traces[name], clean.traces[name]) for name in clean.traces)


def equal(a: Recording, b: Recording) -> bool:
    lost = [torch.zeros(0) if r.lost is None else r.lost for r in (a, b)]
    return (
        torch.equal(*lost)
        and a.health == b.health
        and all(torch.equal(a.traces[name], b.traces[name]) for name in a.traces)
        and all(rows(a.spikes[name]) == rows(b.spikes[name]) for name in a.spikes)
    )


@pytest.mark.parametrize("fault", [LostSamples(0.2), LateSamples(0.2), DroppedSpikes(0.2), PartialRun(1.0)])
def test_faults_follow_seed_clock_and_attempt(fault: Fault) -> None:
    backend = faulty(fault)
    first, repeat = (backend.run(WEIGHTS, stimulus(60)) for _ in range(2))
    assert equal(meets(fault, 60), first)
    assert not equal(first, repeat)
    assert not equal(meets(fault, 60, seed=2), first)
    assert not equal(meets(fault, 60, clock=60), first)
    assert equal(backend.run(WEIGHTS, stimulus(60, 60)), meets(fault, 60, clock=60))  # whatever was run before


@pytest.mark.parametrize("fault", [LostSamples(0.2), DroppedSpikes(0.2)])
def test_faults_per_trial_do_not_depend_on_the_split(fault: Fault) -> None:
    whole = meets(fault, 60)
    backend = faulty(fault)
    parts = [backend.run(WEIGHTS, stimulus(20, clock)) for clock in (0, 20, 40)]
    if isinstance(fault, LostSamples):
        assert lost(whole) == [20 * index + trial for index, part in enumerate(parts) for trial in lost(part)]
    assert rows(whole.spikes["hidden"]) == rows(Spikes.cat([part.spikes["hidden"] for part in parts]))
    assert whole.health == sum((part.health for part in parts), Health())


def test_faults_add_up_in_any_order(clean: Recording) -> None:
    faults = [PartialRun(1.0), LostSamples(0.1), LateSamples(0.1), DroppedSpikes(0.1)]
    first, second = (faulty(*order).run(WEIGHTS, stimulus(TRIALS)) for order in (faults, faults[::-1]))
    assert lost(first) == lost(second)
    assert rows(first.spikes["hidden"]) == rows(second.spikes["hidden"])
    assert first.health == second.health
    alone = [lost(meets(fault)) for fault in faults[:3]]
    assert set(lost(first)) == set().union(*alone)
    whole_trials = [trial for trial in range(TRIALS) if trial not in set(lost(first))]
    assert len(whole_trials) > 20
    assert torch.equal(first.traces["readout"][whole_trials], clean.traces["readout"][whole_trials])
    with pytest.raises(DeviceError, match="did not answer in time"):
        faulty(*faults, TimeOut(1.0)).run(WEIGHTS, stimulus())


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
    names = "timeout, partial_run, lost_samples, late_samples, dropped_spikes"
    with pytest.raises(ValueError, match=f"fault 'time_out' is not known; choose among {names}"):
        create_faults({"time_out": 0.1, "timeout": 0.1})
    with pytest.raises(ValueError, match=r"fault lost_samples: p=1.5 must be in 0\.\.1"):
        create_faults({"lost_samples": 1.5})
    with pytest.raises(ValueError, match="fault late_samples: latest=0 samples must be at least 1"):
        LateSamples(0.1, latest=0)
    with pytest.raises(ValueError, match="fault 'timeout' is given twice"):
        faulty(TimeOut(0.1), TimeOut(0.2))
