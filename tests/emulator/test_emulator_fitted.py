"""Chips that are defined by measured parameters only."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from emulator_bench import (
    QUIET,
    READOUT,
    SPIKING,
    US,
    busy,
    calibrated,
    counts,
    events,
    fabricated,
    machine,
    neurons_of,
    random_weights,
    run_once,
    silent,
)

from hxtrain.emulator import FABRICATED, IDEAL, Chip, FittedChip, Layout, Wiring
from hxtrain.emulator.dynamics import noise_level
from hxtrain.emulator.silicon import SILENT_THRESHOLD

INPUTS, BATCH = 200, 100
LAYOUT = Layout(
    INPUTS,
    (replace(SPIKING, size=60, circuits=2), replace(READOUT, size=5, circuits=2)),
    (Wiring(0, INPUTS, 0), Wiring(1, 60, 0, source=0)),
)
WEIGHTS = [random_weights(1, 60, INPUTS, 4, 20), random_weights(2, 5, 60, 0, 20)]
STIMULUS = busy(3, BATCH, INPUTS, 20, 80)


def fit_of(chip: Chip, **noise: object) -> FittedChip:
    """Return the fit of a perfect measurement: the true values of a chip, in its own trace codes."""
    true = neurons_of(chip, LAYOUT)

    def code_of(potential: np.ndarray) -> np.ndarray:
        """Return the code of a potential."""
        return true.cadc_gain * (potential - 128) + 128 + true.cadc_offset

    levels = ("membrane_noise", "cadc_noise", "threshold_noise", "spike_jitter", "synapse_saturation", "rails")
    return FittedChip(
        name="fit",
        hash="0123",
        merged=2,
        leak=code_of(true.rest),
        reset=code_of(true.reset),
        threshold=np.where(true.threshold == SILENT_THRESHOLD, np.inf, code_of(true.threshold)),
        tau_mem=true.tau_mem,
        tau_syn=true.tau_syn,
        synapse=true.synapse * true.cadc_gain,
        noise=IDEAL.changed(**{**{name: getattr(chip.noise, name) for name in levels}, **noise}),
    )


def test_quiet_fit_gives_the_same_recording() -> None:
    """Offset and slope of the ADC become part of potentials and strengths."""
    chip = calibrated(**QUIET, synapse_saturation=None, rails=None)
    recording_of_fit, expected = (run_once(c, LAYOUT, WEIGHTS, STIMULUS, BATCH) for c in (fit_of(chip), chip))
    assert float((recording_of_fit.codes != expected.codes).double().mean()) < 0.01
    number = [counts(recording.spikes, BATCH, 65) for recording in (recording_of_fit, expected)]
    assert number[1].sum() > 3000
    assert (number[0] != number[1]).mean() < 1e-3


@pytest.mark.parametrize("chip", [calibrated(), fabricated()], ids=["calibrated", "uncalibrated"])
def test_fit_has_the_same_statistics(chip: Chip) -> None:
    fitted = fit_of(chip)
    foreign = fabricated("W62F0")
    recording_of_fit, expected, wrong = (run_once(c, LAYOUT, WEIGHTS, STIMULUS, BATCH) for c in (fitted, chip, foreign))
    mean = [recording.codes.double().mean(0) for recording in (recording_of_fit, expected, wrong)]
    spread = [recording.codes.double().std(0) for recording in (recording_of_fit, expected)]
    rate = [counts(recording.spikes, BATCH, 65).mean(0) for recording in (recording_of_fit, expected, wrong)]
    assert expected.dropped.sum() == 0
    assert float((mean[0] - mean[1]).abs().mean()) < 2.0  # rails and saturation are common to all neurons here
    assert float((mean[0] - mean[1]).abs().mean()) < 0.15 * float((mean[2] - mean[1]).abs().mean())
    assert float((spread[0] / spread[1]).mean()) == pytest.approx(1, abs=0.05)
    assert np.abs(rate[0] - rate[1]).mean() < 0.1
    assert np.abs(rate[0] - rate[1]).mean() < 0.2 * np.abs(rate[2] - rate[1]).mean()


@pytest.mark.parametrize("tau_mem", [6.0, 20.0])
def test_noise_of_a_fit_is_that_at_its_own_time_constant(tau_mem: float) -> None:
    """Membrane noise is given at 6 us; `noise_level` converts measurements at other time constants."""
    fitted = fit_of(calibrated(), membrane_noise=noise_level(4.0, tau_mem * US), cadc_noise=0.0)
    fitted = replace(fitted, tau_mem=np.full(65, tau_mem * US))
    layout = Layout(1, (replace(READOUT, size=60, circuits=2),), (Wiring(0, 1, 0),))
    codes = run_once(fitted, layout, [silent(60)], events(), 40, samples=80).codes[:, 50:].double()
    assert float((codes - codes.mean((0, 1))).std()) == pytest.approx(4.0, rel=0.05)


def test_a_smaller_network_uses_the_first_neurons() -> None:
    fitted = fit_of(calibrated())
    small = Layout(INPUTS, (replace(SPIKING, size=7, circuits=2),), (Wiring(0, INPUTS, 0),))
    neurons = fitted.neurons(small)
    assert np.array_equal(neurons.rest, fitted.leak[:7])
    assert np.array_equal(neurons.threshold, fitted.threshold[:7])
    assert neurons.synapse.shape == (2, 128, 2, 7)


def test_a_readout_and_a_neuron_that_never_fired_do_not_spike() -> None:
    fitted = fit_of(calibrated())
    mute = replace(fitted, threshold=np.where(np.arange(65) == 3, np.inf, fitted.threshold))
    layout = replace(LAYOUT, groups=(LAYOUT.groups[0], replace(LAYOUT.groups[1], threshold=None)))
    fired = counts(run_once(mute, layout, WEIGHTS, STIMULUS, BATCH).spikes, BATCH, 65).sum(0)
    assert fired[3] == 0
    assert np.all(fired[60:] == 0)
    assert counts(run_once(fitted, layout, WEIGHTS, STIMULUS, BATCH).spikes, BATCH, 65).sum(0)[3] > 0


def test_fitted_chips_take_part_in_populations_and_close_trials() -> None:
    first = fit_of(calibrated())
    second = replace(fit_of(fabricated()), name="other")
    population = machine([first, second], LAYOUT).run(WEIGHTS, STIMULUS, BATCH, chip=np.arange(BATCH) % 2)
    alone = run_once(second, LAYOUT, WEIGHTS, STIMULUS, BATCH)
    assert torch.equal(population.codes[1::2], alone.codes[1::2])
    close = run_once(first, replace(LAYOUT, gap=1.7 * US), WEIGHTS, STIMULUS, BATCH)
    assert not torch.equal(close.codes[1:], run_once(first, LAYOUT, WEIGHTS, STIMULUS, BATCH).codes[1:])


REFUSALS = {
    "more neurons": (
        replace(LAYOUT, groups=(replace(SPIKING, size=60, circuits=2), replace(READOUT, size=6, circuits=2))),
        r"chip fit was fitted with 65 neurons of 2 merged circuits, the network needs 66 of \[2, 2\]",
    ),
    "merged otherwise": (
        Layout(9, (replace(SPIKING, size=4, circuits=3),), (Wiring(0, 9, 0),)),
        r"the network needs 4 of \[3\]; fit the device in this circuit",
    ),
    "synapses off": (replace(LAYOUT, synapses_enabled=False), "chip fit is fitted; it has no cells"),
    "capacitance": (replace(LAYOUT, corrected_capacitance=False), "chip fit is fitted; it has no cells"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusal(case: str) -> None:
    layout, text = REFUSALS[case]
    with pytest.raises(ValueError, match=text):
        machine(fit_of(calibrated()), layout)


def test_a_fitted_chip_has_no_reference_access() -> None:
    emulated = machine(fit_of(calibrated()), LAYOUT)
    with pytest.raises(ValueError, match="chip fit is fitted; it has no access to the inputs of the CADC"):
        emulated.read_reference(100.0, 3)
    assert emulated.run([silent(60, INPUTS), silent(5, 60)], events(), 1).codes.shape == (1, 20, 65)
    assert fit_of(calibrated()).noise.cadc_noise == FABRICATED.cadc_noise
