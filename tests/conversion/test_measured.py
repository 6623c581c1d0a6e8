"""Conversion for a device: the spiking form of a network of rates, and the passes that measure."""

from dataclasses import replace

import pytest
import torch
from networks import perceptron
from torch import Tensor, nn

import hxtrain as hx
from hxtrain.conversion import (
    Conversion,
    ConversionError,
    MeasuredConfig,
    PassConfig,
    RateNetwork,
    convert,
    from_sequential,
    merge_linear,
    normalise_by_data,
    signed_inputs,
)
from hxtrain.conversion.measured import ON_DEVICE, correlation, fit_lines, fit_readout, regress_readout, start_readout
from hxtrain.conversion.realisation import Measurement, Realisation
from hxtrain.datasets.encoders import FirstSpikeEncoder, LatencyEncoder, RateEncoder
from hxtrain.network.config import NetworkConfig
from hxtrain.runs.randomness import seeded

IMAGES = torch.rand(60, 8, 8, generator=torch.Generator().manual_seed(1)) ** 2
IMAGES[:, 0] = 0  # one row of pixels is always silent
RATE = RateEncoder(spikes=12, duration=94e-6, threshold=0.0)
QUICK = MeasuredConfig(samples=60, gains=[2.0], onsets=[0.5], corrections=1)


def form(*sizes: int, seed: int = 0, regular: int = 4) -> Realisation:
    """Return the spiking form of a normalised perceptron on the images."""
    network = normalise_by_data(
        from_sequential(nn.Sequential(nn.Flatten(), perceptron(*sizes, seed=seed)), (8, 8)), IMAGES
    )
    return Realisation(network, IMAGES, RATE, NetworkConfig(steps=60), regular)


def test_lines_of_neurons_are_exact_and_a_silent_neuron_has_no_slope() -> None:
    activations = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    activations[:, 2] = 0
    drives = torch.tensor([2.0, 5.0, 1.0]) * activations + torch.tensor([0.5, -1.0, 0.25])
    line = fit_lines(drives, activations)
    torch.testing.assert_close(line.slope, torch.tensor([2.0, 5.0, 0.0]))
    torch.testing.assert_close(line.offset, torch.tensor([0.5, -1.0, 0.25]))
    assert line.error < 1e-5
    assert correlation(drives, torch.zeros_like(drives)) == 0


def test_regular_inputs_take_silent_pixels_first() -> None:
    spiking = form(64, 6, 3, regular=10)
    assert spiking.encoder.regular == [0, 1, 2, 3, 4, 5, 6, 7, 64, 65]
    assert spiking.net.layers[0].linear.inputs == 66
    spikes = spiking.encoder(IMAGES)
    assert int((spikes.unit == 65).sum()) == 60 * 12


def test_weights_carry_the_rates_of_an_ideal_form() -> None:
    spiking = form(64, 6, 5, 3)
    spiking.write()
    first, second, _ = (layer.linear.weight.detach() for layer in spiking.net.layers)
    rates = spiking.populations[1].rates
    expected = 2.0 * rates.weight.float() / spiking.populations[0].slope
    torch.testing.assert_close(second[:, :6], expected)
    assert second.shape == (5, 10)  # four regular neurons of the first population carry the biases
    potential = second[:, 6:].sum(1) * spiking.populations[0].regular_drive
    torch.testing.assert_close(potential, 2.0 * rates.bias.float())
    assert float(first[6:, 8:64].abs().max()) == 0


def test_masks_of_convolutions_stay_in_the_spiking_network() -> None:
    with seeded(0):
        module = nn.Sequential(
            nn.Unflatten(1, (1, 8)),
            nn.Conv2d(1, 2, 3, stride=2),
            nn.ReLU(),
            nn.AvgPool2d(3),
            nn.Flatten(),
            nn.Linear(2, 3),
        )
    network = normalise_by_data(merge_linear(from_sequential(module, (8, 8))), IMAGES)
    spiking = Realisation(network, IMAGES, RATE, NetworkConfig(steps=60), 4)
    spiking.write()
    linear = spiking.net.layers[0].linear
    assert linear.mask is not None
    assert int(linear.mask[:, 8:].sum(1).max()) <= 9
    assert bool(linear.mask[:, spiking.encoder.regular].all())
    assert float(linear.weight.detach()[~linear.mask].abs().max()) == 0


def _measured(monkeypatch: pytest.MonkeyPatch, spiking: Realisation, readout: object, drives: Tensor) -> None:
    def measure(x: Tensor, batch_size: int = 500) -> Measurement:
        weight = spiking.net.layers[-1].linear.weight.detach()
        return Measurement([drives], [0.0], readout(drives, weight), 0.0)  # type: ignore[operator]

    monkeypatch.setattr(spiking, "measure", measure)


def test_strengths_of_both_kinds_of_synapses_are_found_and_corrected(monkeypatch: pytest.MonkeyPatch) -> None:
    spiking = form(64, 6, 3)
    logits = torch.randn(60, 3, generator=torch.Generator().manual_seed(2))
    logits -= logits.mean(1, keepdim=True)
    start_readout(spiking, logits)
    spiking.write()
    ideal = spiking.net.layers[-1].linear.weight.detach().clone()
    drives = torch.rand(60, 6, generator=torch.Generator().manual_seed(3))
    rest = torch.tensor([0.1, -0.2, 0.3])

    def readout(v: Tensor, weight: Tensor) -> Tensor:
        return 1.4 * v @ weight.relu().T - 0.8 * v @ (-weight).relu().T + rest

    _measured(monkeypatch, spiking, readout, drives)
    fit_readout(spiking, IMAGES, logits)
    corrected = readout(drives, spiking.net.layers[-1].linear.weight.detach()) + spiking.offsets
    expected = drives @ ideal.T
    torch.testing.assert_close(corrected - corrected.mean(0), expected - expected.mean(0), rtol=1e-3, atol=1e-4)
    offsets = (corrected - logits / spiking.readout_scale).mean(0)
    torch.testing.assert_close(offsets - offsets.mean(), torch.zeros(3), rtol=0, atol=1e-5)


def test_the_regression_finds_the_outputs_in_distorted_drives(monkeypatch: pytest.MonkeyPatch) -> None:
    spiking = form(64, 6, 3)
    slope = spiking.populations[0].slope
    activations = torch.rand(60, 6, generator=torch.Generator().manual_seed(3))
    mixed = activations @ (torch.eye(6) + 0.2 * torch.rand(6, 6, generator=torch.Generator().manual_seed(4)))
    weight = spiking.last.weight.float()
    outputs = activations @ weight.T + 0.3
    logits = outputs - outputs.mean(1, keepdim=True)
    _measured(monkeypatch, spiking, lambda v, w: v @ w.T, mixed * slope)
    regress_readout(spiking, IMAGES, logits)
    assert spiking.last.bias is not None
    answers = mixed @ spiking.last.weight.float().T + spiking.last.bias.float()
    torch.testing.assert_close(answers - answers.mean(1, keepdim=True), logits, rtol=0, atol=0.02)


def _errors(conversion: Conversion) -> dict[str, float]:
    return {row.name: row.error for row in conversion.rows}


@pytest.mark.parametrize("preset", ["ideal", "uncalibrated"])
def test_measurements_reduce_the_error_of_a_chip(preset: str) -> None:
    model = nn.Sequential(nn.Flatten(), perceptron(64, 20, 4, seed=1)).float()
    with hx.open_device("emulator", chip="W66F3", preset=preset) as device:
        conversion = convert(model, IMAGES, device, measured=QUICK)
    errors = _errors(conversion)
    assert errors["original"] < 1e-6
    assert errors["data norm"] < 1e-5
    assert errors["readout: affine map"] < 0.6 * errors[ON_DEVICE]
    assert conversion.loss.offsets
    assert conversion.net.device is not None
    assert "uncalibrated" in preset or errors["readout: affine map"] < 0.3
    assert len(conversion.table().splitlines()) == 1 + len(conversion.rows)


def test_two_hidden_layers_and_first_spikes_in_software() -> None:
    model = nn.Sequential(nn.Flatten(), perceptron(64, 12, 10, 4, seed=1)).float()
    rate = convert(model, IMAGES, test=(IMAGES[:40], torch.zeros(40, dtype=torch.long)), measured=QUICK)
    assert _errors(rate)["readout: affine map"] < 0.4
    assert all(row.accuracy is not None for row in rate.rows)
    first = convert(
        model,
        IMAGES,
        encoder=FirstSpikeEncoder(),
        network=NetworkConfig(steps=12),
        measured=replace(QUICK, gains=[3.0], onsets=[0.4]),
    )
    assert first.rows[-1].hidden_spikes < rate.rows[-1].hidden_spikes / 3
    assert _errors(first)["readout: affine map"] < 0.8


def test_what_spiking_neurons_cannot_be_is_refused_by_name() -> None:
    plain = from_sequential(nn.Sequential(nn.Flatten(), perceptron(64, 6, 3)), (8, 8))
    config = NetworkConfig(steps=60)
    with pytest.raises(ConversionError, match="regular inputs for biases; take RateEncoder"):
        Realisation(plain, IMAGES, LatencyEncoder(), config)
    linear = from_sequential(nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Linear(6, 3)), (8, 8))
    with pytest.raises(ConversionError, match="call merge_linear"):
        Realisation(linear, IMAGES, RATE, config)
    with pytest.raises(ConversionError, match="is the output, with a ReLU"):
        Realisation(RateNetwork(plain.layers[:1], (8, 8)), IMAGES, RATE, config)
    with pytest.raises(ConversionError, match="input_map=pairs"):
        Realisation(signed_inputs(plain), IMAGES, RATE, config)
    with pytest.raises(ConversionError, match="bias=encode"):
        convert(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), IMAGES, config=PassConfig(bias="encode"))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"measured\.gains=\[0.0\] must be a list of positive numbers"):
        MeasuredConfig(gains=[0.0])
    with pytest.raises(ValueError, match=r"measured\.samples=1 must be at least 2"):
        MeasuredConfig(samples=1)


@pytest.mark.parametrize(
    ("module", "samples", "match"),
    [
        (perceptron(64, 3), IMAGES, r"linear_1_0 is the only layer: without a hidden layer nothing fires"),
        (perceptron(64, 6, 1), IMAGES, r"has one output; classes are compared"),
        (perceptron(64, 6, 3), IMAGES[:1], "samples: 1 given; a calibration takes 2 or more"),
        (perceptron(64, 6, 3), IMAGES * torch.nan, "samples are not finite"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(module: nn.Module, samples: Tensor, match: str) -> None:
    with pytest.raises(ConversionError, match=match):
        convert(nn.Sequential(nn.Flatten(), module), samples, None, measured=QUICK)


def test_a_window_without_an_input_spike_is_refused() -> None:
    module = nn.Sequential(nn.Flatten(), perceptron(64, 6, 3))
    with pytest.raises(ConversionError, match=r"no input spike reaches a neuron .*network.steps=1\)"):
        convert(module, IMAGES, None, measured=QUICK, network=NetworkConfig(steps=1))


def test_samples_that_are_all_alike_still_give_a_network() -> None:
    module = nn.Sequential(nn.Flatten(), perceptron(64, 6, 3))
    conversion = convert(module, IMAGES[:1].expand(40, -1, -1), None, measured=QUICK)
    assert all(bool(weight.isfinite().all()) for weight in conversion.net.effective_weights())


def test_test_samples_need_a_label_each() -> None:
    module = nn.Sequential(nn.Flatten(), perceptron(64, 6, 3))
    with pytest.raises(ConversionError, match=r"test: 60 samples with labels of shape \[3\]"):
        convert(module, IMAGES, None, test=(IMAGES, torch.zeros(3)))
    with pytest.raises(TypeError, match="model: expected Module"):
        convert("ann.pt", IMAGES)  # type: ignore[arg-type]
