"""The compiled engine equals the readable one in all features, and their sub-steps are fine enough."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from emulator_bench import (
    QUIET,
    READOUT,
    SPIKING,
    STAMP,
    US,
    busy,
    calibrated,
    counts,
    fabricated,
    ideal,
    random_weights,
    run_once,
)

from hxtrain.emulator import FABRICATED, Chip, Events, Layout, RawRecording, Wiring, make_faults

BATCH = 12
SAMPLES = 16
INPUTS = 300
NEURONS = 36
STIMULUS = busy(5, BATCH, INPUTS, SAMPLES, 150)

# 300 inputs on three merged circuits, a recurrent group on one, a readout with other time constants on two
FORWARD = Layout(
    INPUTS,
    (
        replace(SPIKING, size=20, circuits=3),
        replace(SPIKING, size=11, circuits=1, tau_mem=10 * US, tau_syn=4 * US, refractory=1 * US),
        replace(READOUT, size=5, circuits=2, tau_mem=8 * US, tau_syn=3 * US),
    ),
    (Wiring(0, INPUTS, 7), Wiring(1, 20, 0, source=0), Wiring(2, 11, 125, source=1)),
)
RECURRENT = replace(FORWARD, wirings=(*FORWARD.wirings, Wiring(1, 11, 20, source=1)))
WEIGHTS = [
    random_weights(1, 20, INPUTS, 5, 20),
    random_weights(2, 11, 20, 12, 25),
    random_weights(4, 5, 11, 5, 25),
    random_weights(3, 11, 11, 0, 15),
]
# the recurrent group and the readout in the second half of the circuits
FAR = replace(RECURRENT, groups=(replace(FORWARD.groups[0], circuits=14), *FORWARD.groups[1:]))
POPULATION = [fabricated("W66F3"), calibrated("W62F0"), calibrated("W65F4")]
FAULTY = replace(fabricated(), faults=make_faults({"stuck_bits": 0.05, "dead_neurons": 0.1, "firing_neurons": 0.05}))


class Case(NamedTuple):
    """A case that both engines run."""

    chip: Chip | list[Chip]
    layout: Layout = RECURRENT
    substeps: int = 4


CASES = {
    **{
        f"{name}, {substeps} sub-steps": Case(chip, RECURRENT, substeps)
        for name, chip in (("ideal", ideal()), ("uncalibrated", fabricated()), ("calibrated", calibrated()))
        for substeps in (1, 4, 8)
    },
    "population": Case(list(POPULATION)),
    "from reset": Case(calibrated(), replace(RECURRENT, from_reset=True)),
    "synapses off": Case(fabricated(), replace(RECURRENT, synapses_enabled=False)),
    "capacitance not corrected": Case(fabricated(), replace(RECURRENT, corrected_capacitance=False)),
    "drift": Case(calibrated(drift_sd=8.0, drift_time=1e-3)),
    "skew": Case(calibrated(cadc_skew=0.3 * US), FAR),
    "phase": Case(calibrated(sampling_phase=1.7 * US)),
    "loss of spikes": Case(calibrated(spike_capacity=1)),
    "linear, no rails": Case(calibrated(synapse_saturation=None, rails=None)),
    "faults": Case(FAULTY),
    # close trials with recurrence are chaotic: rounding errors grow from trial to trial
    "close trials": Case(calibrated(), replace(FORWARD, gap=1.1 * US)),
    "adjacent trials": Case(calibrated(), replace(FORWARD, gap=0.0)),
    "close trials, odd sub-steps": Case(calibrated(), replace(FORWARD, gap=1.9 * US), 5),
    "forced reset": Case(calibrated(), replace(RECURRENT, gap=1.3 * US, forced_reset=True)),
}


def run(case: Case, engine: str, batch: int = BATCH, *, samples: int = SAMPLES, **settings: object) -> RawRecording:
    return run_once(
        case.chip,
        case.layout,
        WEIGHTS[: len(case.layout.wirings)],
        STIMULUS if (batch, samples) == (BATCH, SAMPLES) else busy(5, batch, INPUTS, samples, 150),
        batch,
        samples,
        clock=95,
        engine=engine,
        substeps=case.substeps,
        **settings,
    )


def spike_times(spikes: Events, trials: np.ndarray) -> np.ndarray:
    """Return the times of all spikes of these trials, ordered by sample, neuron and time."""
    rows = np.stack([part.double().numpy() for part in spikes])
    rows = rows[:, trials[spikes.sample.numpy()]]
    times: np.ndarray = rows[2, np.lexsort(rows[::-1])]
    return times


def assert_agree(*recordings: RawRecording, batch: int = BATCH, astray: int = 1, samples: int = SAMPLES) -> None:
    """Assert that two recordings agree up to rounding, except for `astray` trials that may diverge."""
    for recording in recordings:
        assert recording.codes.shape == (batch, samples, NEURONS)
        assert 8 * batch < len(recording.spikes.time) < 250 * batch
        assert torch.all(torch.diff(recording.spikes.sample) >= 0)
        assert [part.dtype for part in recording.spikes] == [torch.int64, torch.int64, torch.float32]
    first, second = recordings
    # sums in single precision have another order: a membrane that just touches its threshold may spike in one
    # engine only, which changes all neurons of its trial
    difference = (first.codes.int() - second.codes.int()).abs().numpy()
    number = [counts(recording.spikes, batch, NEURONS) for recording in recordings]
    equal = ~((difference > 1).any((1, 2)) | (number[0] != number[1]).any(1))
    assert equal.sum() >= batch - astray
    assert abs(first.dropped - second.dropped).sum() <= 2
    # a code between two values may be rounded up or down, and a spike may move by one stamp of 8 ns
    assert (difference[equal] > 0).mean() < 1e-3
    shift = np.abs(spike_times(first.spikes, equal) - spike_times(second.spikes, equal))
    assert shift.max() < 1.01 * STAMP
    assert (shift > 1e-9).mean() < 0.02


@pytest.mark.parametrize("name", CASES)
def test_engines_agree(name: str) -> None:
    assert_agree(run(CASES[name], "cpu"), run(CASES[name], "readable"))


@pytest.mark.parametrize("engine", ["compiled", "stepwise"])
@pytest.mark.parametrize("traced", [(0, 0, 0), (1, 0, 0), (0, 1, 1), (1, 0, 1)])
def test_other_groups_are_recorded_alike_where_some_are_not(engine: str, traced: tuple[int, ...]) -> None:
    """The groups share blocks of neurons in the compiled engine, and lie in several of them."""
    sizes = (140, 20, 10)
    groups = [replace(SPIKING, size=sizes[0]), replace(SPIKING, size=sizes[1]), replace(READOUT, size=sizes[2])]
    wirings = (Wiring(0, 100, 0), Wiring(1, 140, 0, source=0), Wiring(2, 20, 0, source=1))
    groups[1] = replace(groups[1], circuits=2)
    weights = [random_weights(*args) for args in ((1, 140, 100, 10, 20), (2, 20, 140, 2, 12), (3, 10, 20, 0, 20))]
    recordings = []
    for chosen in ((1, 1, 1), traced):
        layout = Layout(100, tuple(replace(g, traced=bool(on)) for g, on in zip(groups, chosen, strict=True)), wirings)
        stimulus = busy(5, 4, 100, SAMPLES, 80)
        recordings.append(run_once(calibrated(), layout, weights, stimulus, 4, SAMPLES, clock=95, engine=engine))
    everything, part = recordings
    columns = torch.cat([torch.full((size,), bool(on)) for size, on in zip(sizes, traced, strict=True)])
    assert len(part.spikes.time) > 50
    assert torch.equal(part.codes, everything.codes[:, :, columns])
    assert all(torch.equal(*parts) for parts in zip(part.spikes, everything.spikes, strict=True))


def test_every_case_changes_the_recording() -> None:
    """Every case of `CASES` has its own recording, so that it tests its feature."""
    contents = set()
    for case in CASES.values():
        recording = run(case, "cpu")
        contents.add(recording.codes.numpy().tobytes() + recording.spikes.time.numpy().tobytes())
    assert len(contents) == len(CASES)


def test_all_groups_take_part() -> None:
    active = counts(run(CASES["calibrated, 4 sub-steps"], "cpu").spikes, BATCH, NEURONS).sum(0)
    assert active[:20].sum() > 50
    assert active[20:31].sum() > 50
    assert np.all(active[31:] == 0)


def test_double_precision_agrees() -> None:
    case = CASES["calibrated, 4 sub-steps"]
    single = run(case, "readable")
    double = run(case, "readable", dtype=torch.float64)
    assert float((single.codes != double.codes).double().mean()) < 2e-3
    assert np.array_equal(counts(single.spikes, BATCH, NEURONS), counts(double.spikes, BATCH, NEURONS))


def test_finer_substeps_change_little() -> None:
    layout = Layout(
        100,
        (replace(SPIKING, size=200), replace(READOUT, size=10, circuits=2)),
        (Wiring(0, 100, 0), Wiring(1, 200, 0, source=0)),
    )
    weights = [random_weights(1, 200, 100, 3, 10), random_weights(2, 10, 200, 0, 10)]
    stimulus = busy(6, 30, 100, 20, 60)
    recordings = {n: run_once(calibrated(**QUIET), layout, weights, stimulus, 30, substeps=n) for n in (1, 4, 16)}
    spikes = {n: len(recording.spikes.time) for n, recording in recordings.items()}
    assert spikes[16] > 1500
    assert abs(spikes[4] / spikes[16] - 1) < 0.01
    readout = {n: recording.codes[..., 200:].double() for n, recording in recordings.items()}
    errors = {n: float((readout[n] - readout[16]).abs().mean()) for n in (1, 4)}
    assert errors[4] < 0.5
    assert errors[4] < 0.25 * errors[1]


def test_spike_times_of_four_substeps_are_finer_than_their_jitter() -> None:
    layout = Layout(40, (replace(SPIKING, size=200),), (Wiring(0, 40, 0),))
    weights = [random_weights(1, 200, 40, 8, 10)]
    stimulus = busy(6, 30, 40, 10, 20)

    def first(substeps: int) -> torch.Tensor:
        spikes = run_once(calibrated(**QUIET), layout, weights, stimulus, 30, 10, substeps=substeps).spikes
        none = torch.full((30 * 200,), torch.nan)
        return none.scatter_reduce(0, spikes.sample * 200 + spikes.unit, spikes.time, "amin", include_self=False)

    shift = first(4) - first(32)
    shift = shift[torch.isfinite(shift)]
    assert len(shift) > 1000
    assert float(shift.abs().median()) < FABRICATED.spike_jitter
