"""Passes that change the form of a network of rates: normalisation, bias, pooling, signs, inputs.

All but `remove_bias`, `average_pooling` and the two maps of inputs leave the outputs as they are, up to rounding.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from .graph import (
    ABSOLUTE,
    IDENTITY,
    LINEAR,
    PAIRS,
    RECTIFIED,
    RELU,
    ConversionError,
    Layer,
    MaxLayer,
    RateLayer,
    RateNetwork,
    ScalingLayer,
)


def fold_batch_norm(network: RateNetwork) -> RateNetwork:
    """Move batch normalisation into the weights beside it.

    A normalisation between weights and activation goes upstream: `W <- W gamma / sigma`,
    `b <- gamma (b - mu) / sigma + beta` (Rueckauer et al. 2017). One behind an activation, or on the inputs, goes
    downstream: `W <- W diag(factor)`, `b <- b + W shift`, which is exact at the edges of images, too, as the weights
    are unrolled.

    Raises:
        ConversionError: A maximum or the end of the network follows a normalisation that can only go downstream.
    """
    layers: list[Layer] = []
    pending: ScalingLayer | None = None
    for layer in network.layers:
        upstream = layers[-1] if layers else None
        if isinstance(layer, ScalingLayer):
            if pending is not None:
                pending = _composed(pending, layer)
            elif isinstance(upstream, RateLayer) and upstream.activation == LINEAR:
                layers[-1] = _folded_upstream(upstream, layer)
            else:
                pending = layer
            continue
        if pending is not None:
            layer = _folded_downstream(pending, layer)
            pending = None
        layers.append(layer)
    if pending is not None:
        raise ConversionError(f"{pending.name} ends the network behind an activation; put a Linear behind it")
    return network.with_layers(layers)


def _composed(first: ScalingLayer, second: ScalingLayer) -> ScalingLayer:
    if first.activation != LINEAR:
        raise ConversionError(f"{second.name} follows the activation of {first.name}; put a Linear or Conv2d between")
    return replace(second, factor=first.factor * second.factor, shift=first.shift * second.factor + second.shift)


def _folded_upstream(layer: RateLayer, scaling: ScalingLayer) -> RateLayer:
    bias = scaling.shift if layer.bias is None else layer.bias * scaling.factor + scaling.shift
    weight = layer.weight * scaling.factor[:, None]
    return replace(layer, weight=weight, bias=bias, activation=scaling.activation, curve=scaling.curve)


def _folded_downstream(scaling: ScalingLayer, layer: Layer) -> RateLayer:
    if not isinstance(layer, RateLayer) or scaling.activation != LINEAR:
        raise ConversionError(
            f"{scaling.name} stands behind an activation and in front of a pooling or activation; put the "
            "normalisation between the weights and their activation, and train anew"
        )
    shift = layer.weight @ scaling.shift
    bias = shift if layer.bias is None else layer.bias + shift
    return replace(layer, weight=layer.weight * scaling.factor, bias=bias)


def remove_bias(network: RateNetwork) -> RateNetwork:
    """Set all biases to 0. Networks that are trained without biases lose nothing (Diehl et al. 2015)."""
    return network.with_layers(
        [replace(layer, bias=None) if isinstance(layer, RateLayer) else layer for layer in network.layers]
    )


def encode_bias(network: RateNetwork) -> RateNetwork:
    """Turn biases into weights of sources that always have the rate 1.

    The network gets one more input, and each hidden layer a neuron that passes it on. The new synapses of a layer are
    those whose bias is not 0.

    Raises:
        ConversionError: A hidden layer with a curve stands between.
    """
    layers = network.rate_layers
    if network.has_constant or all(layer.bias is None for layer in layers):
        return network
    for layer in layers[:-1]:
        if layer.curve is not None:
            raise ConversionError(
                f"{layer.name} is {layer.activation}, through which no constant passes; keep the biases"
            )
    encoded = [_with_constant_source(layer, passes_on=layer is not layers[-1]) for layer in layers]
    return replace(network, layers=tuple(encoded), has_constant=True)


def _with_constant_source(layer: RateLayer, passes_on: bool) -> RateLayer:
    bias = torch.zeros_like(layer.weight[:, 0]) if layer.bias is None else layer.bias
    weight = torch.cat((layer.weight, bias[:, None]), 1)
    synapses = torch.cat((layer.synapses, bias[:, None] != 0), 1)
    if passes_on:
        row = torch.zeros_like(weight[:1])
        row[0, -1] = 1
        weight = torch.cat((weight, row))
        synapses = torch.cat((synapses, row != 0))
    return replace(layer, weight=weight, bias=None, mask=synapses, shape=(len(weight),))


def average_pooling(network: RateNetwork) -> RateNetwork:
    """Replace each maximum by the mean of its window; the network should be trained on with average pooling."""
    layers: list[Layer] = []
    for layer in network.layers:
        if isinstance(layer, MaxLayer):
            share = layer.mask.to(network.dtype) / layer.mask.sum(1, keepdim=True)
            is_linear = not layers or getattr(layers[-1], "activation", RELU) == LINEAR
            layer = RateLayer(
                layer.name, share, None, layer.mask, LINEAR if is_linear else RELU, scale=layer.scale, shape=layer.shape
            )
        layers.append(layer)
    return network.with_layers(layers)


def merge_linear(network: RateNetwork) -> RateNetwork:
    """Multiply the weights of linear layers, and of poolings by a mean, into the layer downstream.

    The network has fewer layers to place, and spikes pass fewer thresholds; the merged layer has more synapses.
    """
    layers = list(network.layers)
    place = 0
    while place < len(layers) - 1:
        layer = layers[place]
        downstream = layers[place + 1]
        if isinstance(layer, RateLayer) and isinstance(downstream, RateLayer) and _is_linear(network, layers, place):
            layers[place : place + 2] = [_product(layer, downstream)]
        else:
            place += 1
    return network.with_layers(layers)


def _is_linear(network: RateNetwork, layers: list[Layer], place: int) -> bool:
    """Return whether a layer is linear, or a sum of values that are not negative, which a ReLU does not change."""
    layer = layers[place]
    if not isinstance(layer, RateLayer) or layer.activation == LINEAR:
        return isinstance(layer, RateLayer)
    upstream = next((part for part in reversed(layers[:place]) if not isinstance(part, MaxLayer)), None)
    is_rectified = network.input_map != IDENTITY if upstream is None else upstream.activation != LINEAR
    return layer.activation == RELU and is_rectified and layer.bias is None and bool((layer.weight >= 0).all())


def _product(first: RateLayer, second: RateLayer) -> RateLayer:
    bias = second.bias
    if first.bias is not None:
        shift = second.weight @ first.bias
        bias = shift if bias is None else bias + shift
    synapses = (second.synapses.to(first.weight.dtype) @ first.synapses.to(first.weight.dtype)) > 0
    mask = None if bool(synapses.all()) else synapses
    return replace(second, weight=second.weight @ first.weight, bias=bias, mask=mask)


def absolute_inputs(network: RateNetwork) -> RateNetwork:
    """Let the magnitudes of the values enter the network, since no rate is negative."""
    return replace(network, input_map=ABSOLUTE)


def rectified_inputs(network: RateNetwork) -> RateNetwork:
    """Let the positive parts of the values enter the network."""
    return replace(network, input_map=RECTIFIED)


def signed_inputs(network: RateNetwork) -> RateNetwork:
    """Give each value two inputs, one for its positive and one for its negative part.

    Raises:
        ConversionError: The inputs have a map already, or enter a maximum.
    """
    first = network.layers[0]
    if network.input_map != IDENTITY or network.has_constant:
        raise ConversionError("the inputs are mapped already, or have a constant; call signed_inputs first")
    if not isinstance(first, RateLayer):
        raise ConversionError(f"{first.name} takes the inputs without weights; fold or replace it first")
    return replace(network, layers=(_with_pairs_upstream(first), *network.layers[1:]), input_map=PAIRS)


def signed_neurons(network: RateNetwork) -> RateNetwork:
    """Replace each neuron of a linear hidden layer by a pair with ReLU: one for positive, one for negative values.

    The pair has weights W and -W upstream and V and -V downstream, so that `relu(u) - relu(-u) = u`.

    Raises:
        ConversionError: A maximum or a batch normalisation follows a linear layer.
    """
    layers = list(network.layers)
    for place in range(len(layers) - 1):
        layer = layers[place]
        downstream = layers[place + 1]
        if not isinstance(layer, RateLayer) or layer.activation != LINEAR:
            continue
        if not isinstance(downstream, RateLayer):
            raise ConversionError(
                f"{layer.name} is linear in front of {downstream.name}, which takes no pairs; put a ReLU between"
            )
        bias = None if layer.bias is None else torch.cat((layer.bias, -layer.bias))
        mask = None if layer.mask is None else torch.cat((layer.mask, layer.mask))
        weight = torch.cat((layer.weight, -layer.weight))
        layers[place] = replace(layer, weight=weight, bias=bias, mask=mask, activation=RELU, shape=(len(weight),))
        layers[place + 1] = _with_pairs_upstream(downstream)
    return network.with_layers(layers)


def _with_pairs_upstream(layer: RateLayer) -> RateLayer:
    mask = None if layer.mask is None else torch.cat((layer.mask, layer.mask), 1)
    return replace(layer, weight=torch.cat((layer.weight, -layer.weight), 1), mask=mask)
