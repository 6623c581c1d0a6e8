"""Close trials: the state that carries over to the next trial, and the effect of a forced reset."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from emulator_bench import (
    QUIET,
    READOUT,
    SPIKING,
    STAMP,
    SUBSTEP,
    US,
    busy,
    calibrated,
    counts,
    equal_recordings,
    events,
    ideal,
    integers,
    machine,
    one_group,
    piece,
    psp,
    random_weights,
    run_once,
    silent,
    use_threads,
)

from hxtrain.emulator import CADC_INTERVAL, ON_CHIP_DELAY, Layout, Wiring

ENGINES = pytest.mark.parametrize("engine", ["cpu", "readable"])
NETWORK = Layout(
    60,
    (replace(SPIKING, size=30), replace(READOUT, size=4)),
    (Wiring(0, 60, 0), Wiring(1, 30, 0, source=0)),
)
WEIGHTS = [random_weights(1, 30, 60, 10, 25), random_weights(2, 4, 30, 0, 25)]


@ENGINES
@pytest.mark.parametrize("gap", [0.0, 3.4, 10.2])
def test_membranes_and_currents_are_carried_over(engine: str, gap: float) -> None:
    layout = one_group(replace(READOUT, leak=60.0), gap=gap * US)
    at = 8.5 * US  # late, so that most of the current is left
    recording = run_once(ideal(), layout, [integers([63])], events((0, 0, at), (0, 0, at)), 2, 6, engine=engine)
    period = round((6 * CADC_INTERVAL + gap * US) / SUBSTEP) * SUBSTEP
    for trial in range(2):
        time = torch.arange(6) * CADC_INTERVAL + trial * period
        expected = 60 + 2 * 63 * psp(time - at, 6 * US, 6 * US)
        assert float((recording.codes[trial, :, 0].double() - expected).abs().max()) < 0.52
    assert int(recording.codes[1].max()) > 75  # a residue is present


@ENGINES
def test_forced_reset_takes_it_away(engine: str) -> None:
    """Membranes restart at reset; clamped synaptic lines keep exp(-gap / 0.3 us) of their charge."""
    group = replace(READOUT, leak=60.0, reset=75.0)
    for gap in (2.55, 0.85):
        left = np.exp(-gap / 0.3)
        layout = one_group(group, gap=gap * US, forced_reset=True)
        at = 8.5 * US
        recording = run_once(ideal(), layout, [integers([63])], events((0, 0, at), (0, 0, at)), 2, 6, engine=engine)
        time = torch.arange(6) * CADC_INTERVAL
        current = 2 * 63 * np.exp(-(6 * CADC_INTERVAL - at) / (6 * US)) * left
        expected = 60 + 15 * torch.exp(-time / (6 * US)) + current * psp(time, 6 * US, 6 * US)
        assert float((recording.codes[1, :, 0].double() - expected).abs().max()) < 0.52


def test_fast_inference_needs_the_forced_reset() -> None:
    """One image per 11.8 us (Cramer et al. 2022): six samples, and 1.6 us for the reset."""
    batch = 40
    samples = 6
    chip = calibrated(**QUIET)
    stimulus = busy(2, batch, 60, samples, 60)
    residue, spikes = {}, {}
    for forced in (True, False):
        close = run_once(chip, replace(NETWORK, gap=1.6 * US, forced_reset=forced), WEIGHTS, stimulus, batch, samples)
        alone = run_once(chip, replace(NETWORK, from_reset=forced), WEIGHTS, stimulus, batch, samples)
        residue[forced] = float(((close.codes.int() - alone.codes.int())[1:].abs() > 2).double().mean())
        number = [counts(recording.spikes, batch, 34) for recording in (close, alone)]
        spikes[forced] = np.abs(number[0] - number[1])[1:].sum() / number[1][1:].sum()
    assert residue[True] < 0.02  # 0.3 % of the currents remain
    assert residue[False] > 0.7
    assert spikes[True] < 0.02
    assert spikes[False] > 0.3


@ENGINES
def test_trials_far_apart_are_independent(engine: str) -> None:
    stimulus = busy(2, 3, 60, 20, 60)
    far = replace(NETWORK, gap=100 * US)
    close, alone = (run_once(calibrated(**QUIET), x, WEIGHTS, stimulus, 3, engine=engine) for x in (far, NETWORK))
    # the residue after 17 time constants may still change a rounded code
    assert float((close.codes != alone.codes).double().mean()) < 1e-3
    assert int((close.codes.int() - alone.codes.int()).abs().max()) <= 1
    assert torch.equal(close.spikes.unit, alone.spikes.unit)


@ENGINES
def test_first_trial_of_a_run_starts_at_rest(engine: str) -> None:
    stimulus = busy(2, 4, 60, 20, 60)
    emulated = machine(calibrated(), replace(NETWORK, gap=1.7 * US), engine=engine)
    emulated.run(WEIGHTS, stimulus, 4, clock=0)
    recording = emulated.run(WEIGHTS, piece(stimulus, 2, 4), 2, clock=2)
    alone = run_once(calibrated(), NETWORK, WEIGHTS, piece(stimulus, 2, 3), clock=2, engine=engine)
    assert torch.equal(recording.codes[:1], alone.codes)
    assert not torch.equal(recording.codes[1], emulated.run(WEIGHTS, piece(stimulus, 3, 4), 1, clock=3).codes[0])


def test_number_of_threads_does_not_matter() -> None:
    stimulus = busy(2, 30, 60, 10, 40)
    recordings = []
    for threads in (1, 5):
        emulated = machine(calibrated(), replace(NETWORK, gap=1.7 * US), 10)
        use_threads(emulated, threads)
        recordings.append(emulated.run(WEIGHTS, stimulus, 30))
    assert equal_recordings(*recordings)


@ENGINES
def test_spikes_in_the_gap_act_but_are_not_recorded(engine: str) -> None:
    """A neuron that fires in the gap excites a readout, whose trace shows the response in the next trial."""
    groups = (replace(SPIKING, leak=200.0, refractory=30 * US), replace(READOUT, leak=80.0))
    wirings = (Wiring(0, 1, 0), Wiring(1, 1, 0, source=0))
    layout = Layout(1, groups, wirings, gap=6.8 * US, from_reset=True)
    weights = [silent(1), integers([63])]
    recording = run_once(ideal(), layout, weights, events(), 2, 2, engine=engine)
    assert len(recording.spikes.time) == 0
    spike = 6 * US * np.log(120 / 50)  # from reset to threshold: 5.25 us
    time = 10.2 * US + torch.arange(2) * CADC_INTERVAL - spike - ON_CHIP_DELAY
    expected = 80 + 63 * psp(time, 6 * US, 6 * US)
    assert float((recording.codes[1, :, 1].double() - expected).abs().max()) < 0.6
    assert torch.all(recording.codes[1, :, 0] == 80)  # held at reset


@ENGINES
def test_events_in_the_gap_belong_to_their_trial(engine: str) -> None:
    layout = one_group(replace(READOUT, leak=60.0), gap=6.8 * US)
    recording = run_once(ideal(), layout, [integers([63])], events((0, 0, 5.1 * US)), 2, 2, engine=engine)
    time = 10.2 * US + torch.arange(2) * CADC_INTERVAL
    expected = 60 + 63 * psp(time - 5.1 * US, 6 * US, 6 * US)
    assert float((recording.codes[1, :, 0].double() - expected).abs().max()) < 0.52


@ENGINES
def test_refractory_period_goes_on_in_the_next_trial(engine: str) -> None:
    group = replace(SPIKING, leak=200.0, refractory=12 * US)
    layout = one_group(group, gap=3.4 * US, from_reset=True)
    period = 6 * CADC_INTERVAL + 3.4 * US
    recording = run_once(ideal(), layout, [silent(1)], events(), 8, 6, engine=engine).spikes
    times = (recording.sample * period + recording.time.double()).numpy()
    first = 6 * US * np.log(120 / 50)
    expected = first + np.arange(7) * (first + 12 * US)
    recorded = expected % period < 6 * CADC_INTERVAL
    assert 3 < recorded.sum() < 7
    assert len(times) >= recorded.sum()
    # every interval has an error of 5 ns from the sub-steps, and stamps are multiples of 8 ns
    assert np.abs(times[: recorded.sum()] - expected[recorded]).max() < STAMP + 7 * 5e-9
