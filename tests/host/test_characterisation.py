"""The characterisation against the truth of emulated chips, and the fitted emulator against the chip itself."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hxtrain.backends import Circuit, Population, Spikes, create_backend
from hxtrain.backends.parameters import NeuronParameters
from hxtrain.characterisation import Bench, MembraneModel, bench_circuit, characterise
from hxtrain.characterisation.response import response
from hxtrain.commands.fit import FitConfig, fit_device, table
from hxtrain.emulator import Group, Layout, Wiring
from hxtrain.emulator.dynamics import build_neurons
from hxtrain.execution.config import BackendConfig
from hxtrain.network import NetworkConfig

NEURONS, MERGED = 48, 2
CHIP = "W62F0"
DRIVE = 0.5 * np.e / 6e-6


def true_parameters(backend, size, merged):
    """Return a chip's true parameters in each neuron's own trace codes."""
    inputs = 128 * merged
    layout = Layout(inputs, (Group(size, merged, 80.0, 150.0, 80.0, 6e-6, 6e-6, 2e-6),), (Wiring(0, inputs, 0),))
    n = build_neurons(backend.emulated.chip, layout)

    def code(potential):
        return n.cadc_gain * (potential - 128) + 128 + n.cadc_offset

    return {
        "leak": code(n.rest),
        "reset": code(n.reset),
        "threshold - leak": code(n.threshold) - code(n.rest),
        "tau_mem": n.tau_mem,
        "tau_syn exc": n.tau_syn[:, 0],
        "tau_syn inh": n.tau_syn[:, 1],
        "gain exc": n.gain[:, 0] * n.cadc_gain,
        "gain inh": n.gain[:, 1] * n.cadc_gain,
        "strength": n.synapse.reshape(inputs, 2, size) * n.cadc_gain,
    }


def estimates(fit):
    p = fit.parameters
    gain = fit.measured.shapes.gain
    return {
        "leak": p.leak,
        "reset": p.reset,
        "threshold - leak": p.threshold - p.leak,
        "tau_mem": p.tau_mem,
        "tau_syn exc": p.tau_syn[:, 0],
        "tau_syn inh": p.tau_syn[:, 1],
        "gain exc": gain[:, 0],
        "gain inh": gain[:, 1],
        "strength": p.strength,
    }


@pytest.fixture(scope="module", params=["calibrated", "uncalibrated"])
def fitted(request, tmp_path_factory):
    backend = create_backend("emulator", chip=CHIP, preset=request.param)
    circuit = bench_circuit(NEURONS, MERGED, backend)
    with backend:
        fit = characterise(backend, circuit)
        truth = true_parameters(backend, NEURONS, MERGED)
    file = tmp_path_factory.mktemp("fit") / "chip.npz"
    fit.parameters.save(file)
    return request.param, fit, truth, file


LIMITS = {  # minimum correlation on a calibrated and on an uncalibrated chip, maximum bias relative to the mean
    "leak": (0.99, 0.999, 0.001),
    "reset": (0.9, 0.98, 0.01),
    "threshold - leak": (0.98, 0.998, 0.005),
    "tau_mem": (0.96, 0.99, 0.015),
    "tau_syn exc": (0.96, 0.995, 0.015),
    "tau_syn inh": (0.95, 0.99, 0.015),
    "gain exc": (0.98, 0.99, 0.01),
    "gain inh": (0.98, 0.99, 0.01),
    "strength": (0.98, 0.98, 0.01),
}


@pytest.mark.parametrize("name", LIMITS)
def test_estimates_follow_the_truth(fitted, name):
    preset, fit, truth, _ = fitted
    reliable = ~np.any(list(fit.missing.values()), axis=0) & ~fit.measured.thresholds.restless
    assert reliable.sum() >= 0.9 * NEURONS
    estimate = estimates(fit)[name][..., reliable].ravel()
    true = truth[name][..., reliable].ravel()
    calibrated, uncalibrated, bias = LIMITS[name]
    assert np.corrcoef(estimate, true)[0, 1] > (calibrated if preset == "calibrated" else uncalibrated)
    assert abs(estimate.mean() / true.mean() - 1) < bias


def test_common_levels(fitted):
    _, fit, _, _ = fitted
    p, m = fit.parameters, fit.measured
    assert p.membrane_noise == pytest.approx(0.8, rel=0.1)
    assert p.trace_noise == pytest.approx(0.7, rel=0.1)
    assert p.threshold_noise == pytest.approx(1.1, rel=0.15)
    assert p.spike_jitter == pytest.approx(60e-9, rel=0.2)
    assert p.saturation == pytest.approx(378, rel=0.1)
    assert p.rails == pytest.approx((25, 228), abs=10)
    assert np.nanmedian(m.refractory) == pytest.approx(2e-6, rel=0.05)


def responses(backend, seed):
    """Return spike counts `[B, N]` and codes `[B, T, N]` of random input patterns that span 15 us."""
    rng = np.random.default_rng(seed)
    bench = Bench(backend, bench_circuit(NEURONS, MERGED, backend))
    weights = np.clip(np.rint(rng.normal(4, 20, (NEURONS, bench.inputs))), -63, 63).astype(np.int64)
    times = np.where(rng.random((60, bench.inputs)) < 0.2, rng.uniform(0, 15e-6, (60, bench.inputs)), np.inf)
    trials = bench.stimulate(weights, Spikes.from_times(torch.from_numpy(times)), spiking=True)
    return np.isfinite(trials.spike_times(8)).sum(0), trials.codes.astype(float)


def test_a_fitted_emulator_answers_like_the_chip(fitted):
    preset, _, _, file = fitted
    devices = {
        "chip": create_backend("emulator", chip=CHIP, preset=preset),
        "other seed": create_backend("emulator", chip=CHIP, preset=preset, seed=1),
        "fit": create_backend("emulator", parameters=file),
        "ideal": create_backend("emulator", preset="ideal"),
    }
    answers = {}
    for name, backend in devices.items():
        with backend:
            answers[name] = responses(backend, seed=3)
    counts, codes = answers["chip"]
    assert counts.mean() > 0.3
    miscounts = {name: (answer[0] != counts).mean() for name, answer in answers.items()}
    assert miscounts["fit"] < 1.3 * miscounts["other seed"] + 0.01
    assert miscounts["ideal"] > 1.5 * miscounts["fit"]
    distance = {name: np.abs(answer[1] - codes).mean() for name, answer in answers.items()}
    assert distance["fit"] < 1.2 * distance["other seed"]


def test_sick_neurons_are_named_and_nothing_is_undefined():
    backend = create_backend(
        "emulator", chip=CHIP, preset="uncalibrated", faults={"dead_neurons": 0.12, "firing_neurons": 0.15}
    )
    with backend:
        fit = characterise(backend, bench_circuit(32, 1, backend))
        truth = true_parameters(backend, 32, 1)
    p = fit.parameters
    for name in ("leak", "reset", "tau_mem", "tau_syn", "strength"):
        assert np.isfinite(getattr(p, name)).all()
    silent = (truth["threshold - leak"] > 1e6) | (truth["leak"] > 1e6)  # the second condition: both faults
    restless = (truth["threshold - leak"] < -10) & ~silent
    assert silent.sum() >= 2
    assert restless.sum() >= 2
    np.testing.assert_array_equal(fit.missing["threshold"], silent)
    np.testing.assert_array_equal(np.isposinf(p.threshold), silent)
    np.testing.assert_array_equal(fit.measured.thresholds.restless, restless)
    np.testing.assert_allclose((p.threshold - p.leak)[restless], truth["threshold - leak"][restless], atol=3)
    assert any(f"{silent.sum()} of 32 neurons never fired" in note for note in p.notes)


@pytest.mark.parametrize("charge", [20.0, 200.0, 330.0])
@pytest.mark.parametrize("taus", [(6e-6, 6e-6), (5e-6, 9e-6), (12e-6, 3e-6)])
def test_closed_form_solves_the_equations(charge, taus):
    mem, syn = taus
    h, saturation = 2e-9, 378.0
    t = np.arange(20000) * h
    x = charge * np.exp(-t / syn) / saturation
    drive = DRIVE * saturation * x * (15 + x**2) / (15 + 6 * x**2)
    integral = np.cumsum(np.exp(t / mem) * drive) * h
    expected = np.exp(-t / mem) * integral
    potential = response(t, np.array(mem), np.array(syn), np.array(charge), DRIVE, saturation**-2)
    assert np.abs(potential - expected).max() < 2e-3 * expected.max()
    model = MembraneModel(DRIVE, np.array([mem]), np.full((1, 2, 1), syn), np.ones((4, 2, 1)), saturation)
    charges = model.charges(np.full((1, 4), charge / 4), np.ones((1, 4)))
    assert model.peak(charges)[0, 0] == pytest.approx(expected.max(), rel=2e-3)


def test_a_readout_is_measured_with_the_usual_threshold():
    backend = create_backend("reference")
    population = bench_circuit(3, 1, backend).populations[0]
    hidden = replace(population, name="hidden")
    readout = replace(population, name="readout", size=2, threshold=None)
    bench = Bench(backend, Circuit(4, (hidden, readout), (), 20, 1.7e-6))
    assert (bench.neurons, bench.inputs) == (5, 128)
    np.testing.assert_array_equal(bench.target("threshold"), 150.0)
    trials = bench.run(np.full((5, 128), 63), np.ones((2, 128), bool), np.zeros(2), spiking=True)
    assert np.isfinite(trials.spike_times(1)).all()


def test_populations_of_different_kinds_are_refused():
    backend = create_backend("reference")
    single, merged = (Population(str(m), 2, m, 80, 150, 80, 6e-6, 6e-6, 2e-6) for m in (1, 2))
    with pytest.raises(ValueError, match=r"merge \[1, 2\] circuits; characterise populations of one kind at a time"):
        Bench(backend, Circuit(4, (single, merged), (), 20, 1.7e-6))


def test_command_writes_parameters_and_record(tmp_path):
    config = FitConfig(
        backend=BackendConfig("reference"), network=NetworkConfig(hidden=[4]), inputs=100, classes=2,
        file=str(tmp_path / "reference.npz"),
    )  # fmt: skip
    steps = []
    fit = fit_device(config, tmp_path, "hxtrain-fit ...", lambda step, index, count: steps.append((index, count)))
    assert steps == [(i, len(steps)) for i in range(len(steps))]
    loaded = NeuronParameters.load(tmp_path / "reference.npz")
    assert loaded.leak.tolist() == [80.0] * 6
    np.testing.assert_allclose(loaded.threshold, 150, atol=1)  # this device sees spikes every 0.4 us
    assert (loaded.saturation, loaded.rails, loaded.trace_noise) == (None, None, 0.0)
    record = json.loads((tmp_path / "fit.json").read_text())
    assert (record["backend"], record["hash"], record["command"]) == ("reference", loaded.hash, "hxtrain-fit ...")
    assert len(table(fit)) == len(record["parameters"])
    with pytest.raises(ValueError, match="there is no folder"):
        fit_device(replace(config, file=str(tmp_path / "none" / "x.npz")), tmp_path, "")
