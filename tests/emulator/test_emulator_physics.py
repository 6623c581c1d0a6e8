"""One chip at a time against what the equations say on paper."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from emulator_bench import (
    READOUT,
    SPIKING,
    SUBSTEP,
    US,
    busy,
    events,
    integers,
    membrane,
    one_group,
    psp,
    quiet,
    run_once,
)

from hxtrain.emulator import (
    CADC_INTERVAL,
    CALIBRATED,
    IDEAL,
    ON_CHIP_DELAY,
    SYNAPTIC_DRIVE,
    UNCALIBRATED,
    Chip,
    Events,
    Layout,
    Wiring,
)

STAMP = 8e-9
TAUS = [(6.0, 6.0), (10.0, 5.0), (3.0, 12.0), (20.0, 2.0)]


def steps_since(time: float, samples: int = 20) -> torch.Tensor:
    """Return the time of every sub-step relative to `time` `[steps]`."""
    return torch.arange(samples * 4, dtype=torch.float64) * SUBSTEP - time


def test_operating_point_of_the_paper() -> None:
    time = torch.linspace(0, 40e-6, 40001, dtype=torch.float64)
    single = 63 * psp(time, 6e-6, 6e-6)
    assert float(single.max()) == pytest.approx(31.5, abs=1e-6)
    assert float(time[single.argmax()]) == pytest.approx(6e-6, abs=2e-9)
    assert float(single.max()) / (150 - 80) == pytest.approx(0.45)  # of threshold - leak


@pytest.mark.parametrize("weight", [63, 20, 1, -1, -35])
@pytest.mark.parametrize(("tau_mem", "tau_syn"), TAUS)
def test_codes_follow_the_analytic_potential(tau_mem: float, tau_syn: float, weight: int) -> None:
    group = replace(READOUT, tau_mem=tau_mem * US, tau_syn=tau_syn * US, leak=100.0)
    at = 4 * SUBSTEP
    found = run_once(IDEAL, one_group(group), [integers([weight])], events((0, 0, at)))
    expected = 100 + weight * psp(steps_since(at)[::4], tau_mem * US, tau_syn * US)
    assert torch.all((found.codes[0, :, 0].double() - expected).abs() < 0.51)
    assert (int(found.codes[0, -1, 0]) - 100) * weight >= 0  # the sign of the weight


@pytest.mark.parametrize("part", [0.0, 0.13, 0.5, 0.77, 0.999])
@pytest.mark.parametrize(("tau_mem", "tau_syn"), TAUS[:3])
def test_events_between_substeps(tau_mem: float, tau_syn: float, part: float) -> None:
    group = replace(READOUT, tau_mem=tau_mem * US, tau_syn=tau_syn * US)
    stimulus = events((0, 0, (3 + part) * SUBSTEP))
    v = membrane(IDEAL, one_group(group), [integers([63])], stimulus)[:, 0, 0] - 80
    expected = 63 * psp(steps_since(float(stimulus.time[0])), tau_mem * US, tau_syn * US)
    height, at = expected.max(dim=0)
    assert float(v[at] / height) == pytest.approx(1, abs=2e-5 if part == 0 else 2e-3)
    arrived = slice(5, None)  # both shares of the event are in; the error is largest here and decays
    assert float((v - expected)[arrived].abs().max()) < 5e-3 * float(height)


def test_error_of_events_between_substeps_is_of_second_order() -> None:
    errors = []
    for taus in (6.0, 3.0):  # halving the time constants is doubling the sub-step
        group = replace(READOUT, tau_mem=taus * US, tau_syn=taus * US)
        v = membrane(IDEAL, one_group(group), [integers([63])], events((0, 0, 3.5 * SUBSTEP)))[8:, 0, 0] - 80
        expected = 63 * psp(steps_since(3.5 * SUBSTEP)[8:], taus * US, taus * US)
        errors.append(float((v / expected - 1).abs().mean()))
    assert errors[1] / errors[0] == pytest.approx(4, rel=0.25)


def test_potentials_add_up() -> None:
    layout = one_group(READOUT, inputs=2)
    weights = [integers([40, -25])]
    both = membrane(IDEAL, layout, weights, events((0, 0, 2 * US), (0, 1, 5 * US))) - 80
    single = [membrane(IDEAL, layout, weights, events(row)) - 80 for row in ((0, 0, 2 * US), (0, 1, 5 * US))]
    assert torch.allclose(both, single[0] + single[1], atol=2e-5)


@pytest.mark.parametrize("weight", [20, -20])
def test_second_merged_circuit_has_its_own_gain_and_time_constants(weight: int) -> None:
    preset = replace(quiet(UNCALIBRATED), synapse_saturation=None, rails=None)
    group = replace(READOUT, size=6, circuits=2)
    inputs, sign = (5, 200), 0 if weight > 0 else 1
    weights = [torch.full((6, 256), weight)]
    stimulus = events((0, inputs[0], 0.0), (1, inputs[1], 0.0), (2, 0, 1.0))  # sample 2 sees nothing
    v = membrane(preset, one_group(group, 256), weights, stimulus, batch=3)
    pattern = Chip("W66F3", preset).pattern
    peaks = np.zeros((2, 6))
    for neuron in range(6):
        for merged, unit in enumerate(inputs):
            circuit = 2 * neuron + merged
            strength = pattern.gain[circuit, sign] * pattern.synapse[circuit, unit % 128, sign]
            tau_mem, tau_syn = 6 * US * pattern.tau_mem[2 * neuron], 6 * US * pattern.tau_syn[circuit, sign]
            expected = weight * strength * psp(steps_since(0.0), tau_mem, tau_syn)
            found = v[:, merged, neuron] - v[:, 2, neuron]
            assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max())
            peaks[merged, neuron] = float(expected.abs().max())
    assert np.abs(peaks[0] / peaks[1] - 1).max() > 0.1  # the two circuits do differ


def test_first_circuit_sets_rest_threshold_and_reset() -> None:
    preset = quiet(UNCALIBRATED)
    group = replace(READOUT, size=6, circuits=2)
    found = run_once(preset, one_group(group, 1), [torch.zeros(6, 1, dtype=torch.int8)], events((0, 0, 0.0)))
    pattern = Chip("W66F3", preset).pattern
    shift = pattern.rest_shift.reshape(-1, 2)[:6].sum(1) / np.sqrt(2)
    rest = 80 + pattern.leak[:12:2] + shift
    codes = pattern.cadc_gain[:12:2] * (rest - 128) + 128 + pattern.cadc_offset[:12:2]
    assert np.abs(found.codes[0].numpy() - codes).max() < 0.51
    assert torch.equal(found.codes[0, 0], found.codes[0, -1])


def test_offsets_and_gain_of_the_adc() -> None:
    preset = replace(IDEAL, cadc_offset_sd=10.0, cadc_gain_cv=0.05)
    layout = one_group(replace(READOUT, size=512))
    found = run_once(preset, layout, [torch.zeros(512, 1, dtype=torch.int8)], events(), samples=2)
    pattern = Chip("W66F3", preset).pattern
    expected = np.floor(pattern.cadc_gain * (80 - 128) + 128 + pattern.cadc_offset + 0.5)
    codes = found.codes[0, 0].numpy()
    assert (codes == expected).mean() > 0.99
    assert np.abs(codes - expected).max() <= 1
    assert codes.std() > 8


@pytest.mark.parametrize("refractory", [0.5, 2.0, 3.3])
def test_interval_of_a_neuron_above_threshold(refractory: float) -> None:
    group = replace(SPIKING, leak=200.0, refractory=refractory * US)
    found = run_once(IDEAL, one_group(group), [integers([0])], events(), samples=60).spikes
    intervals = np.diff(found.time.double().numpy())
    assert len(intervals) > 8
    expected = refractory * US + 6 * US * np.log((200 - 80) / (200 - 150))
    # stamps of 8 ns, and a straight line through the threshold (second order in the sub-step)
    assert np.abs(intervals[1:] - expected).max() < 2 * STAMP + 5e-9


@pytest.mark.parametrize("substeps", [1, 4, 8])
@pytest.mark.parametrize("drive", [10, 40, 100])
def test_refractory_period_is_kept_under_strong_drive(drive: int, substeps: int) -> None:
    layout = one_group(SPIKING, inputs=drive)
    every = torch.arange(0, 30 * US, 1 * US)
    units = torch.arange(drive).repeat(len(every))
    stimulus = Events(torch.zeros_like(units), units, every.repeat_interleave(drive))
    weights = [torch.full((1, drive), 63, dtype=torch.int8)]
    found = run_once(CALIBRATED, layout, weights, stimulus, substeps=substeps).spikes.time.double()
    assert len(found) >= 6
    jitter = 6 * 60e-9 * np.sqrt(2)
    assert float(torch.diff(found).min()) >= 2 * US - jitter - STAMP


@pytest.mark.parametrize("engine", ["compiled", "stepwise"])
def test_refractory_period_is_kept_under_extreme_drive(engine: str) -> None:
    every = torch.arange(0, 34 * US, SUBSTEP)
    units = torch.arange(128).repeat(len(every))
    stimulus = Events(torch.zeros_like(units), units, every.repeat_interleave(128))
    weights = [torch.full((1, 128), 63, dtype=torch.int8)]
    found = run_once(IDEAL, one_group(SPIKING, 128), weights, stimulus, engine=engine).spikes.time.double()
    assert len(found) > 10
    assert float(torch.diff(found).min()) >= 2 * US - STAMP


def test_membrane_is_held_at_reset_for_the_refractory_period() -> None:
    group = replace(SPIKING, reset=50.0, refractory=5 * US)
    stimulus = events(*[(0, 0, 0.0)] * 3)
    found = run_once(IDEAL, one_group(group), [integers([63])], stimulus)
    assert len(found.spikes.time) == 1
    since = torch.arange(20) * CADC_INTERVAL - float(found.spikes.time[0])
    held = (since > SUBSTEP) & (since < 5 * US - SUBSTEP)
    assert int(held.sum()) >= 2
    assert torch.all(found.codes[0, held, 0] == 50)
    assert torch.all(found.codes[0, since < 0, 0] >= 80)
    assert int(found.codes[0, since > 5 * US + SUBSTEP, 0].min()) > 50


@pytest.mark.parametrize(("weight", "signed"), [(0, -45), (63, 100), (-63, -103)])
def test_range_of_the_readout(weight: int, signed: int) -> None:
    layout = one_group(replace(READOUT, size=50), inputs=100)
    stimulus = busy(0, 4, 100, 20, 3000)
    weights = [torch.full((50, 100), weight, dtype=torch.int8)]
    codes = run_once(CALIBRATED, layout, weights, stimulus, batch=4).codes[:, 10:].double()
    assert float(codes.mean()) - 128 == pytest.approx(signed, rel=0.2)
    assert float(codes.std()) < 4


def test_ideal_chip_has_no_rails() -> None:
    stimulus = busy(0, 1, 100, 20, 3000)
    for weight, code in ((63, 255), (-63, 0)):
        weights = [torch.full((1, 100), weight, dtype=torch.int8)]
        assert int(run_once(IDEAL, one_group(READOUT, 100), weights, stimulus).codes[0, -1, 0]) == code


def test_amplifier_saturates() -> None:
    linear, limited = replace(IDEAL), replace(IDEAL, synapse_saturation=6 * 63.0)
    layout = one_group(READOUT)

    def ratio(count: int) -> float:
        stimulus = events(*[(0, 0, 0.0)] * count)
        peaks = [membrane(p, layout, [integers([63])], stimulus).max() - 80 for p in (limited, linear)]
        return float(peaks[0] / peaks[1])

    assert 0.985 < ratio(1) < 0.999  # a single full weight is nearly linear
    assert 0.8 < ratio(6) < 0.9
    assert ratio(24) < 0.9 * ratio(12) < 0.81 * ratio(6)


def test_hidden_events_arrive_at_the_readout() -> None:
    layout = Layout(1, (SPIKING, READOUT), (Wiring(0, 1, 0), Wiring(1, 1, 0, source=0)))
    stimulus = events(*[(0, 0, 0.3 * US)] * 3)
    found = run_once(IDEAL, layout, [integers([63]), integers([-45])], stimulus, samples=20)
    assert found.spikes.unit.tolist() == [0]
    arrival = float(found.spikes.time[0]) + ON_CHIP_DELAY
    expected = 80 - 45 * psp(torch.arange(20) * CADC_INTERVAL - arrival, 6 * US, 6 * US)
    # 0.5 of rounding; the arrival is known to 4 ns of a slope of 10 LSB / us
    assert float((found.codes[0, :, 1].double() - expected)[5:].abs().max()) < 0.6


def test_recurrent_group() -> None:
    group = replace(SPIKING, size=3)
    layout = Layout(1, (group,), (Wiring(0, 1, 0), Wiring(0, 3, 1, source=0)))
    first = integers([63], [0], [0])  # the input drives neuron 0 only
    recurrent = integers([0, 0, 0], [60, 0, 0], [-40, 0, 0])  # 0 excites 1 and inhibits 2
    found = run_once(IDEAL, layout, [first, recurrent], events(*[(0, 0, 0.0)] * 3))
    assert found.spikes.unit.tolist() == [0]
    swing = found.codes[0].double() - 80
    assert float(swing[:, 1].max()) == pytest.approx(30, abs=1)
    assert float(swing[:, 2].min()) == pytest.approx(-20, abs=1)


def test_recurrent_chain_propagates() -> None:
    group = replace(SPIKING, size=4, threshold=100.0)  # one full weight suffices
    layout = Layout(1, (group,), (Wiring(0, 1, 0), Wiring(0, 4, 1, source=0)))
    recurrent = torch.diag(torch.full((3,), 63), -1).to(torch.int8)
    found = run_once(IDEAL, layout, [integers([63], [0], [0], [0]), recurrent], events((0, 0, 0.0)))
    assert found.spikes.unit.tolist() == [0, 1, 2, 3]
    delays = torch.diff(found.spikes.time.double())
    time = torch.linspace(0, 6 * US, 6001, dtype=torch.float64)
    crossing = float(time[63 * psp(time, 6 * US, 6 * US) > 20][0])
    assert float((delays - crossing - ON_CHIP_DELAY).abs().max()) < 0.1 * SUBSTEP


def test_noise_of_quiet_reads() -> None:
    layout = one_group(replace(READOUT, size=200))
    weights = [torch.zeros(200, 1, dtype=torch.int8)]
    codes = run_once(CALIBRATED, layout, weights, events(), batch=20).codes[:, 5:].double()
    within = codes - codes.mean((0, 1))
    assert 0.7 < float(within.std()) < 1.5
    # without the ADC's noise and rounding
    assert float(within.std()) == pytest.approx(np.sqrt(0.8**2 + 0.7**2 + 1 / 12), rel=0.05)


def test_membrane_noise_has_the_membranes_memory() -> None:
    preset = replace(IDEAL, membrane_noise=6.0)
    layout = one_group(replace(READOUT, size=200))
    weights = [torch.zeros(200, 1, dtype=torch.int8)]
    codes = run_once(preset, layout, weights, events(), batch=20, samples=40).codes[:, 15:].double() - 80
    assert float(codes.mean()) == pytest.approx(0, abs=0.2)
    assert float(codes.std()) == pytest.approx(6, rel=0.03)
    lag = (codes[:, 1:] * codes[:, :-1]).mean() / codes.square().mean()
    assert float(lag) == pytest.approx(np.exp(-CADC_INTERVAL / (6 * US)), abs=0.02)


def test_threshold_noise_is_constant_in_a_window_of_the_clock() -> None:
    preset = replace(IDEAL, threshold_noise=5.0)
    layout = one_group(SPIKING)
    stimulus = events(*[(b, 0, 0.0) for b in range(200) for _ in range(4)])
    found = run_once(preset, layout, [integers([63])], stimulus, batch=200).spikes
    first = [found.time[found.sample == b][0].item() for b in range(200)]
    assert len(set(first[:100])) == len(set(first[100:])) == 1
    assert first[0] != first[100]


def test_spike_jitter() -> None:
    preset = replace(IDEAL, spike_jitter=60e-9)
    stimulus = events(*[(b, 0, 0.0) for b in range(300) for _ in range(4)])
    times = run_once(preset, one_group(SPIKING), [integers([63])], stimulus, batch=300).spikes.time.double()
    assert float(times.std()) == pytest.approx(60e-9, rel=0.15)


def test_stamps_are_multiples_of_8_ns() -> None:
    stimulus = busy(1, 10, 20, 20, 200)
    weights = [torch.full((1, 20), 40, dtype=torch.int8)]
    times = run_once(CALIBRATED, one_group(SPIKING, 20), weights, stimulus, batch=10).spikes.time.double()
    assert len(times) > 20
    ticks = times / STAMP
    assert float((ticks - ticks.round()).abs().max()) < 1e-3


def test_readouts_never_spike() -> None:
    stimulus = busy(1, 4, 20, 20, 200)
    weights = [torch.full((1, 20), 63, dtype=torch.int8)]
    assert len(run_once(CALIBRATED, one_group(READOUT, 20), weights, stimulus, batch=4).spikes.time) == 0


def test_drive_is_the_slope_per_weight() -> None:
    assert pytest.approx(0.5 * np.e / 6e-6) == SYNAPTIC_DRIVE
    time = torch.tensor([1e-9, 2e-9])
    slope = torch.diff(psp(time, 6e-6, 6e-6)) / 1e-9
    assert float(slope) == pytest.approx(SYNAPTIC_DRIVE, rel=1e-3)
