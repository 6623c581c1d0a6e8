"""The code of first spikes: one spike per neuron, the earlier the larger its activation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hxtrain.checks import count

from .codes import check_range
from .graph import RELU, ConversionError, RateNetwork


class FirstSpikes(NamedTuple):
    """First spikes of a network.

    Attributes:
        times: Step of the spike of each neuron in the window of its layer, `[B, N]` per layer, the inputs first and
            without the output; a silent neuron has the length of the window.
        output: Mean potentials of the last layer at the end, `[B, classes]`.
        spikes: Mean number of spikes per sample, inputs included.
    """

    times: tuple[Tensor, ...]
    output: Tensor
    spikes: float


@torch.no_grad()
def first_spikes(network: RateNetwork, x: Tensor, steps: int = 100) -> FirstSpikes:
    """Run a network with one spike per neuron at most: a rate a is the time `steps (1 - a)`.

    This is the conversion to first spikes of Rueckauer and Liu (2018), with times linear in the rate.
    Each layer has a window of `steps` steps. A spike switches a constant current on until the end of the window, so
    that the membrane then stands at the sum of `weight (steps - time)`. In the next window a threshold falls
    from `steps - 1/2` by 1 a step, and a neuron fires when it meets the membrane. Rates are thus rounded to multiples
    of `1 / steps`, and cut to 0..1.

    Args:
        network: Network of weights and ReLU, with a linear output, and activations about in 0..1.
        x: Samples `[B, ...]` in 0..1.
        steps: Length of a window.

    Raises:
        ConversionError: A hidden layer is no ReLU, or the inputs are not in 0..1.
    """
    count("steps", steps)
    rates = network.input_rates(x)
    check_range("the code of first spikes", rates)
    layers = network.rate_layers
    times = [_times(rates, steps)]
    for layer in layers[:-1]:
        if layer.activation != RELU:
            raise ConversionError(
                f"{layer.name} is {layer.activation}: first spikes stand for ReLU; call signed_neurons or merge_linear"
            )
        times.append(_times(layer.currents(_rates(times[-1], steps)), steps))
    n_spikes = sum(int((time < steps).sum()) for time in times) / len(x)
    return FirstSpikes(tuple(times), layers[-1].currents(_rates(times[-1], steps)), n_spikes)


def _times(rates: Tensor, steps: int) -> Tensor:
    """Return the steps in which the falling threshold meets membranes of `steps * rates`."""
    return (steps - 0.5 - steps * rates).ceil().clamp(0, steps)


def _rates(times: Tensor, steps: int) -> Tensor:
    """Return the rates that times stand for."""
    return (steps - times) / steps
