"""A network of the handwritten digits, trained here, converted, and run with spikes in software."""

from typing import NamedTuple

import pytest
import torch
from networks import perceptron
from torch import Tensor, nn

from hxtrain.conversion import (
    ConstantCode,
    InputCode,
    PoissonCode,
    RateNetwork,
    Simulation,
    first_spikes,
    from_sequential,
    normalise_by_data,
    simulate,
)
from hxtrain.datasets import DataConfig


class Digits(NamedTuple):
    """A network of rates with its test samples.

    Attributes:
        network: Network as trained.
        normalised: Network after normalisation by data.
        x: Test samples `[B, 64]`.
        labels: Their classes.
        accuracy: Accuracy of the network as trained.
    """

    network: RateNetwork
    normalised: RateNetwork
    x: Tensor
    labels: Tensor
    accuracy: float


@pytest.fixture(scope="module")
def digits() -> Digits:
    """Return a bias-free network 64-128-10 of the digits, trained for some epochs."""
    data = DataConfig("digits").load()
    train = data.train.images.flatten(1) / 255
    module = perceptron(64, 128, 10, bias=False).float()
    for epoch in range(30):
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(epoch))
        for indices in order.split(50):
            loss = nn.functional.cross_entropy(module(train[indices]), data.train.labels[indices])
            with torch.no_grad():
                for weight, gradient in zip(
                    module.parameters(), torch.autograd.grad(loss, list(module.parameters())), strict=True
                ):
                    weight -= 0.5 * gradient
    network = from_sequential(module, (64,))
    x = data.test.images.flatten(1) / 255
    accuracy = network.accuracy(x, data.test.labels)
    assert accuracy > 0.96
    return Digits(network, normalise_by_data(network, train), x, data.test.labels, accuracy)


@pytest.mark.parametrize(
    ("code", "steps", "loss"), [(ConstantCode(), 100, 0.01), (PoissonCode(), 100, 0.01), (PoissonCode(), 20, 0.02)]
)
def test_at_most_one_point_is_lost(digits: Digits, code: InputCode, steps: int, loss: float) -> None:
    activity = simulate(
        digits.normalised, digits.x, Simulation(steps=steps, code=code), torch.Generator().manual_seed(0)
    )
    assert activity.accuracies(digits.labels)[0] >= digits.accuracy - loss


def test_without_normalisation_neurons_saturate_and_the_output_is_off(digits: Digits) -> None:
    errors = []
    for network in (digits.network, digits.normalised):
        expected = network.output(digits.x)
        output = simulate(network, digits.x).outputs[0]
        errors.append(float((output - expected).norm() / expected.norm()))
    assert errors[0] > 5 * errors[1]
    assert errors[1] < 0.03


def test_first_spikes_answer_with_a_spike_per_neuron(digits: Digits) -> None:
    activity = first_spikes(digits.normalised, digits.x, steps=20)
    assert float((activity.output.argmax(1) == digits.labels).double().mean()) >= digits.accuracy - 0.01
    assert activity.spikes < 64 + 128
