"""Passes over the form of a network: outputs stay, or change as their definition says."""

import pytest
import torch
from networks import convolutional, perceptron, samples
from torch import nn

from hxtrain.conversion import (
    ConversionError,
    RateLayer,
    RateNetwork,
    absolute_inputs,
    average_pooling,
    encode_bias,
    fold_batch_norm,
    from_sequential,
    merge_linear,
    rectified_inputs,
    remove_bias,
    signed_inputs,
    signed_neurons,
)


def assert_equal_outputs(network: RateNetwork, reference: RateNetwork, x: torch.Tensor) -> None:
    """Check that two networks answer alike, and that the answers differ from sample to sample."""
    expected = reference.output(x)
    assert float(expected.std(0).min()) > 1e-3
    torch.testing.assert_close(network.output(x), expected, atol=1e-9, rtol=0)


def test_batch_norm_is_folded() -> None:
    network = from_sequential(convolutional(), (8, 8))
    folded = fold_batch_norm(network)
    assert len(folded.layers) == len(network.layers) - 2
    assert_equal_outputs(folded, network, samples(16, 8, 8))


def test_batch_norm_of_inputs_and_behind_an_activation_goes_downstream() -> None:
    parts = [
        nn.BatchNorm2d(1),
        nn.Conv2d(1, 2, 3, padding=1),
        nn.ReLU(),
        nn.BatchNorm2d(2),
        nn.Conv2d(2, 3, 3, padding=1),
    ]
    module = nn.Sequential(*parts).double()
    for _ in range(3):
        module(3 * samples(8, 1, 4, 4) + 1)
    network = from_sequential(module.eval(), (1, 4, 4))
    folded = fold_batch_norm(network)
    assert [type(layer) for layer in folded.layers] == [RateLayer, RateLayer]
    assert_equal_outputs(folded, network, samples(8, 1, 4, 4))


def test_batch_norm_in_front_of_a_maximum_behind_relu_is_refused() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2), nn.MaxPool2d(2)).eval()
    with pytest.raises(ConversionError, match=r"batchnorm2d_2 stands behind an activation .* put the normalisation"):
        fold_batch_norm(from_sequential(module, (1, 6, 6)))


def test_biases_are_removed_or_become_weights_of_a_constant_source() -> None:
    network = from_sequential(perceptron(6, 8, 7, 3), (6,))
    x = samples(9, 6)
    encoded = encode_bias(network)
    assert [layer.bias for layer in encoded.rate_layers] == [None] * 3
    assert encoded.activations(x)[1][:, -1].tolist() == [1.0] * 9
    assert_equal_outputs(encoded, network, x)
    assert_equal_outputs(encode_bias(signed_inputs(network)), network, x - 0.5)
    bare = remove_bias(network)
    assert float((bare.output(x) - network.output(x)).abs().max()) > 0.1
    assert not bool(bare.output(torch.zeros(1, 6)).any())


def test_average_pooling_replaces_maxima_and_merges_into_the_weights_downstream() -> None:
    parts = [
        nn.Conv2d(1, 2, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(2, 2, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2, 3),
    ]
    module = nn.Sequential(*parts).double()
    average = nn.Sequential(*module[:2], nn.AvgPool2d(2), *module[3:])
    x = samples(16, 1, 6, 6)
    replaced = average_pooling(from_sequential(module, (1, 6, 6)))
    torch.testing.assert_close(replaced.output(x), average(x), atol=1e-12, rtol=0)
    merged = merge_linear(replaced)
    assert [layer.name for layer in merged.layers] == ["conv2d_0", "conv2d_3", "linear_6"]
    torch.testing.assert_close(merged.output(x), average(x), atol=1e-12, rtol=0)


def test_linear_layers_become_pairs_or_are_merged() -> None:
    module = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    network = from_sequential(module, (5,))
    x = samples(16, 5) - 0.5
    pairs = signed_neurons(network)
    assert pairs.rate_layers[0].targets == 12
    assert all(float(rates.min()) >= 0 for rates in pairs.activations(x)[:-1])
    assert_equal_outputs(pairs, network, x)
    merged = merge_linear(network)
    assert len(merged.layers) == 2
    assert_equal_outputs(merged, network, x)


def test_signed_inputs_are_pairs_magnitudes_or_positive_parts() -> None:
    network = from_sequential(perceptron(5, 6, 3), (5,))
    x = samples(16, 5) - 0.5
    pairs = signed_inputs(network)
    assert float(pairs.input_rates(x).min()) == 0
    assert_equal_outputs(pairs, network, x)
    torch.testing.assert_close(absolute_inputs(network).output(x), network.output(x.abs()))
    torch.testing.assert_close(rectified_inputs(network).output(x), network.output(x.relu()))


def test_linear_layers_beside_maxima_stay_or_are_refused() -> None:
    parts = [nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 4), nn.Linear(4, 3)]
    network = from_sequential(nn.Sequential(*parts).double(), (1, 6, 6))
    merged = merge_linear(network)
    assert [layer.name for layer in merged.layers] == ["conv2d_0", "maxpool2d_1", "linear_4"]
    assert_equal_outputs(merged, network, samples(9, 1, 6, 6))
    with pytest.raises(ConversionError, match="conv2d_0 is linear in front of maxpool2d_1, which takes no pairs"):
        signed_neurons(network)
