"""The compiled engine equals the readable one, and both are fine enough."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from emulator_bench import READOUT, SPIKING, US, busy, quiet, random_weights, run_once

from hxtrain.emulator import CALIBRATED, PRESETS, Events, Layout, RawRecording, Wiring

BATCH, SAMPLES, INPUTS = 12, 16, 300

# 300 inputs on three merged circuits, a recurrent group on one, a readout with other time constants on two
LAYOUT = Layout(
    INPUTS,
    (
        replace(SPIKING, size=20, circuits=3),
        replace(SPIKING, size=11, circuits=1, tau_mem=10 * US, tau_syn=4 * US, refractory=1 * US),
        replace(READOUT, size=5, circuits=2, tau_mem=8 * US, tau_syn=3 * US),
    ),
    (
        Wiring(0, INPUTS, 7),
        Wiring(1, 20, 0, source=0),
        Wiring(1, 11, 20, source=1),
        Wiring(2, 11, 125, source=1),
    ),
)
WEIGHTS = [
    random_weights(1, 20, INPUTS, 5, 20),
    random_weights(2, 11, 20, 12, 25),
    random_weights(3, 11, 11, 0, 15),
    random_weights(4, 5, 11, 5, 25),
]
STIMULUS = busy(5, BATCH, INPUTS, SAMPLES, 150)


def run(preset: str, engine: str, substeps: int) -> RawRecording:
    return run_once(
        PRESETS[preset], LAYOUT, WEIGHTS, STIMULUS, BATCH, SAMPLES, clock=95, engine=engine, substeps=substeps
    )


def counts(spikes: Events) -> np.ndarray:
    """Return the number of spikes `[B, N]`."""
    size = LAYOUT.bounds[-1]
    return np.bincount((spikes.sample * size + spikes.unit).numpy(), minlength=BATCH * size).reshape(BATCH, size)


def by_neuron(spikes: Events) -> list[tuple[int, int, float]]:
    return sorted(zip(spikes.sample.tolist(), spikes.unit.tolist(), spikes.time.tolist(), strict=True))


@pytest.mark.parametrize("substeps", [1, 4, 8])
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_engines_agree(preset: str, substeps: int) -> None:
    compiled, stepwise = run(preset, "compiled", substeps), run(preset, "stepwise", substeps)
    assert compiled.codes.shape == (BATCH, SAMPLES, 36)
    assert 100 < len(compiled.spikes.time) < 3000
    # single precision sums in another order: a code on the edge between two values may fall either way,
    # and a spike may move by one stamp of 8 ns
    difference = (compiled.codes.int() - stepwise.codes.int()).abs()
    assert int(difference.max()) <= 1
    assert float((difference > 0).double().mean()) < 1e-3
    assert np.array_equal(counts(compiled.spikes), counts(stepwise.spikes))
    found, expected = (np.array(by_neuron(r.spikes)) for r in (compiled, stepwise))
    assert np.abs(found[:, 2] - expected[:, 2]).max() < 1.01 * 8e-9
    assert (np.abs(found[:, 2] - expected[:, 2]) > 1e-9).mean() < 0.02


def test_all_groups_take_part() -> None:
    active = counts(run("calibrated", "compiled", 4).spikes).sum(0)
    assert np.all(active[:20].sum() > 50)
    assert np.all(active[20:31].sum() > 50)
    assert np.all(active[31:] == 0)


def test_recording_is_sorted_by_sample() -> None:
    for engine in ("compiled", "stepwise"):
        spikes = run("calibrated", engine, 4).spikes
        assert torch.all(torch.diff(spikes.sample) >= 0)
        assert spikes.sample.dtype == spikes.unit.dtype == torch.int64
        assert spikes.time.dtype == torch.float32


def test_double_precision_agrees() -> None:
    single = run("calibrated", "stepwise", 4)
    double = run_once(
        CALIBRATED,
        LAYOUT,
        WEIGHTS,
        STIMULUS,
        BATCH,
        SAMPLES,
        clock=95,
        engine="stepwise",
        dtype=torch.float64,
    )
    assert float((single.codes != double.codes).double().mean()) < 2e-3
    assert np.array_equal(counts(single.spikes), counts(double.spikes))


def test_finer_substeps_change_little() -> None:
    layout = Layout(
        100,
        (replace(SPIKING, size=200), replace(READOUT, size=10, circuits=2)),
        (Wiring(0, 100, 0), Wiring(1, 200, 0, source=0)),
    )
    weights = [random_weights(1, 200, 100, 3, 10), random_weights(2, 10, 200, 0, 10)]
    stimulus = busy(6, 30, 100, 20, 60)
    found = {n: run_once(quiet(CALIBRATED), layout, weights, stimulus, 30, substeps=n) for n in (1, 4, 16)}
    spikes = {n: len(recording.spikes.time) for n, recording in found.items()}
    assert spikes[16] > 1500
    assert abs(spikes[4] / spikes[16] - 1) < 0.01
    readout = {n: recording.codes[..., 200:].double() for n, recording in found.items()}
    errors = {n: float((readout[n] - readout[16]).abs().mean()) for n in (1, 4)}
    assert errors[4] < 0.5
    assert errors[4] < 0.25 * errors[1]


def test_spike_times_of_four_substeps_are_finer_than_their_jitter() -> None:
    layout, weights = (
        Layout(40, (replace(SPIKING, size=200),), (Wiring(0, 40, 0),)),
        [random_weights(1, 200, 40, 8, 10)],
    )
    stimulus = busy(6, 30, 40, 10, 20)

    def first(substeps: int) -> torch.Tensor:
        spikes = run_once(quiet(CALIBRATED), layout, weights, stimulus, 30, 10, substeps=substeps).spikes
        none = torch.full((30 * 200,), torch.nan)
        return none.scatter_reduce(0, spikes.sample * 200 + spikes.unit, spikes.time, "amin", include_self=False)

    shift = first(4) - first(32)
    shift = shift[torch.isfinite(shift)]
    assert len(shift) > 1000
    assert float(shift.abs().median()) < CALIBRATED.spike_jitter
