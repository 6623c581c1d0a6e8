"""Modules of torch as layers of rates: equal activations, masks where the geometry has no synapse, refusals."""

import pytest
import torch
from networks import convolutional, samples
from torch import Tensor, nn

from hxtrain.conversion import ConversionError, MaxLayer, RateLayer, ScalingLayer, SoftLIF, from_sequential


def test_activations_equal_those_of_the_modules() -> None:
    module = convolutional()
    network = from_sequential(module, (8, 8))
    x = samples(16, 8, 8)
    kinds = [type(layer) for layer in network.layers]
    assert kinds == [RateLayer, ScalingLayer, MaxLayer, RateLayer, RateLayer, RateLayer, ScalingLayer, RateLayer]
    assert [layer.shape for layer in network.layers][2:5] == [(4, 4, 4), (6, 2, 2), (6, 1, 1)]
    ends = {3: 1, 4: 2, 5: 3, 6: 4, 11: 6, 12: 7}  # module after which the activations are those of a layer
    activations = network.activations(x)
    values = x
    for place, part in enumerate(module):
        values = part(values)
        if place in ends:
            torch.testing.assert_close(activations[ends[place]], values.flatten(1), atol=1e-12, rtol=0)
    assert torch.equal(network.output(x).argmax(1), module(x).argmax(1))


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
        nn.Conv2d(3, 6, 3, padding="same", groups=3, padding_mode="circular"),
        nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
        nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
    ],
    ids=lambda module: type(module).__name__,
)
def test_every_geometry_is_unrolled(module: nn.Module) -> None:
    network = from_sequential(nn.Sequential(module.double()), (3, 7, 6))
    x = samples(5, 3, 7, 6) - 0.5
    torch.testing.assert_close(network.output(x).double(), module(x).flatten(1), atol=1e-6, rtol=0)


def test_mask_holds_the_synapses_of_the_geometry_and_not_the_zeros_of_the_weights() -> None:
    convolution = nn.Conv2d(1, 1, 3, bias=False)
    nn.init.zeros_(convolution.weight)
    layer = from_sequential(nn.Sequential(convolution), (1, 5, 5)).rate_layers[0]
    assert layer.mask is not None
    assert layer.mask.sum(1).tolist() == [9] * 9
    assert not bool(layer.weight.any())


def test_relu_behind_max_pooling_acts_on_the_convolution() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.ReLU(), nn.AvgPool2d(2)).double()
    network = from_sequential(module, (1, 6, 6))
    x = samples(8, 1, 6, 6) - 0.5
    assert [getattr(layer, "activation", None) for layer in network.layers] == ["relu", None, "relu"]
    torch.testing.assert_close(network.output(x), module(x).flatten(1), atol=1e-12, rtol=0)


def test_soft_lif_layers_have_their_curve() -> None:
    module = nn.Sequential(nn.Linear(4, 5), SoftLIF(noise=0.1), nn.Linear(5, 2)).double().eval()
    network = from_sequential(module, (4,))
    x = 4 * samples(8, 4)
    torch.testing.assert_close(network.output(x), module(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("module", "shape", "text"),
    [
        (
            nn.Sequential(nn.Linear(4, 3), nn.Sigmoid()),
            (4,),
            r"module 1 \(Sigmoid\) cannot be converted; train .* ReLU",
        ),
        (nn.Sequential(nn.Sequential(nn.GRU(4, 3))), (4,), r"module 0\.0 \(GRU\) cannot be converted; build"),
        (nn.Sequential(nn.Linear(4, 3)), (5,), r"linear_0 takes 4 features, .* \[5\]; put Flatten"),
        (nn.Sequential(nn.Conv2d(1, 2, 3)), (5, 5), r"conv2d_0 takes images .* put Unflatten\(1, \(1, 5\)\)"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 7)),
            (1, 5, 5),
            r"module 0 \(Conv2d\) does not take samples of shape \[1, 5, 5\]",
        ),
        (nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False)), (4,), "has no running statistics"),
        (nn.Sequential(nn.Linear(4, 3)), (0,), "must be positive sizes"),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name(module: nn.Module, shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(ConversionError, match=text):
        from_sequential(module, shape)


def test_weights_outside_a_mask_are_refused() -> None:
    with pytest.raises(ConversionError, match="layer: a weight outside the mask is not 0"):
        RateLayer("layer", torch.ones(2, 2), mask=torch.eye(2).bool())


class Residual(nn.Sequential):
    """A sequence that adds its input, which a chain of layers cannot express."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Doubled(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (
            nn.Sequential(Residual(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2)),
            r"module 0 \(Residual\) computes something",
        ),
        (
            nn.Sequential(nn.Linear(4, 4), Doubled(), nn.Linear(4, 2)),
            r"module 1 \(Doubled\) .* than ReLU: it has a method",
        ),
        (nn.Sequential(nn.MaxPool2d(2, return_indices=True)), "returns indices, too; set return_indices=False"),
    ],
)
def test_a_class_with_another_forward_is_refused(module: nn.Module, match: str) -> None:
    with pytest.raises(ConversionError, match=match):
        from_sequential(module, (4,))
