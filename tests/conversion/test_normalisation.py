"""Units of the layers: exact scaling, bounds from weights, percentiles of data, thresholds of the running network."""

import numpy as np
import pytest
import torch
from networks import perceptron, samples
from torch import nn

from hxtrain.conversion import (
    ConversionError,
    DataNorm,
    RateLayer,
    RateNetwork,
    Simulation,
    SoftLIF,
    fold_batch_norm,
    from_sequential,
    normalise_by_data,
    normalise_by_model,
    rescaled,
    simulate,
    spike_norm,
)


def test_outputs_are_divided_by_the_factor_of_the_last_layer() -> None:
    network = from_sequential(nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.ReLU(),
                                            nn.Flatten(), nn.Linear(8, 3)).double(), (6, 6))  # fmt: skip
    x = samples(9, 6, 6)
    scaled = rescaled(network, [3.0, 3.0, 0.7])
    for layer, activation, expected in zip(scaled.layers, scaled.activations(x), network.activations(x), strict=True):
        torch.testing.assert_close(activation * layer.scale, expected, atol=1e-12, rtol=0)
    assert [layer.scale for layer in scaled.layers] == [3.0, 3.0, 0.7]
    twice = rescaled(scaled, [2.0, 2.0, 2.0])
    assert [layer.scale for layer in twice.layers] == pytest.approx([6.0, 6.0, 1.4])


def test_no_input_exceeds_the_bound_of_the_model() -> None:
    network = normalise_by_model(from_sequential(perceptron(20, 16, 12, 3), (20,)))
    corners = (samples(4000, 20) > 0.5).double()
    peaks = [float(rates.max()) for rates in network.activations(corners)]
    assert max(peaks) <= 1
    weight = network.rate_layers[0].weight
    bias = network.rate_layers[0].bias
    assert bias is not None
    worst = int((weight.clamp(min=0).sum(1) + bias).argmax())
    assert float(network.activations((weight[worst] > 0).double()[None])[0].max()) == pytest.approx(1)


def test_percentile_is_of_the_activations_above_zero() -> None:
    network = from_sequential(perceptron(10, 30, 20, 3), (10,))
    x = samples(50, 10)
    activations = [rates.numpy() for rates in network.activations(x)]
    scaled = normalise_by_data(network, x, DataNorm(percentile=90, slope=10, output=100))
    expected = [
        np.percentile(activations[0][activations[0] > 0], 90),
        np.percentile(activations[1][activations[1] > 0], 80),
        activations[2].max(),
    ]
    assert (activations[0] == 0).mean() > 0.2
    assert [layer.scale for layer in scaled.layers] == pytest.approx(expected)


def test_clipping_calibrates_layers_on_what_saturated_neurons_pass_on() -> None:
    network = from_sequential(perceptron(10, 30, 3, bias=False), (10,))
    x = samples(50, 10)
    x[0] = 20  # an outlier that saturates
    free = normalise_by_data(network, x, DataNorm(percentile=90))
    clipped = normalise_by_data(network, x, DataNorm(percentile=90, clip=True))
    assert clipped.layers[0].scale == free.layers[0].scale
    saturated = free.activations(x)[0].clamp(max=1) * free.layers[0].scale
    assert clipped.layers[1].scale == pytest.approx(float((saturated @ network.rate_layers[1].weight.T).max()))
    assert clipped.layers[1].scale < 0.5 * free.layers[1].scale


def test_a_linear_output_that_is_negative_is_scaled_by_its_magnitude() -> None:
    weight = torch.tensor([[-2.0], [-4.0]])
    network = RateNetwork((RateLayer("out", weight, activation="linear"),), (1,))
    scaled = normalise_by_data(network, torch.tensor([[0.5], [1.0]]))
    assert scaled.output(torch.ones(1, 1)).tolist() == [[-0.5, -1.0]]


def test_spike_norm_takes_the_largest_weighted_input_of_the_running_network() -> None:
    network = from_sequential(perceptron(10, 30, 20, 3, bias=False), (10,))
    x = samples(50, 10)
    scaled = spike_norm(network, x, Simulation(steps=40))
    activity = simulate(scaled, x, Simulation(steps=40))
    assert activity.peaks == pytest.approx([1, 1, 1])
    assert scaled.layers[0].scale == pytest.approx(float(network.activations(x)[0].max()))
    assert scaled.layers[1].scale > float(network.activations(x)[1].max())  # spikes of a step coincide by chance
    torch.testing.assert_close(scaled.output(x) * scaled.layers[-1].scale, network.output(x), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("bias", "layers", "text"),
    [
        (1, [nn.BatchNorm1d(3)], "batchnorm1d_1 is a batch normalisation; call fold_batch_norm first"),
        (-100, [nn.ReLU(), nn.Linear(3, 3)], "linear_0 cannot be scaled by 0: no calibration"),
        (1, [SoftLIF()], "linear_0 has the curve of a neuron, whose unit is fixed"),
    ],
)
def test_networks_that_have_no_unit_are_refused(bias: float, layers: list[nn.Module], text: str) -> None:
    module = nn.Sequential(nn.Linear(4, 3), *layers).double().eval()
    nn.init.constant_(module[0].bias, bias)
    with pytest.raises(ConversionError, match=text):
        normalise_by_data(from_sequential(module, (4,)), samples(5, 4))


def test_fold_and_normalise_leave_masks_in_place() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))
    network = normalise_by_data(fold_batch_norm(from_sequential(module.eval(), (1, 4, 4))), torch.rand(9, 1, 4, 4))
    layer = network.rate_layers[0]
    assert layer.mask is not None
    assert not bool(layer.weight[~layer.mask].any())


@pytest.mark.parametrize(("name", "value"), [("percentile", 0), ("percentile", 101), ("output", -1), ("slope", -0.1)])
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConversionError, match=f"normalisation.{name}={value} must"):
        DataNorm(**{name: value})


def test_a_slope_that_leaves_no_percentile_is_refused() -> None:
    eye = torch.eye(2)
    network = RateNetwork(tuple(RateLayer(f"layer{place}", eye) for place in range(4)), (2,))
    with pytest.raises(ConversionError, match=r"slope=60 leaves percentile -20\.1 to layer 2"):
        normalise_by_data(network, torch.ones(3, 2), DataNorm(slope=60))
