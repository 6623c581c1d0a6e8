"""Passes that set the unit of each layer, so that the rate 1 stands for its largest activation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .graph import LINEAR, SOFTLIF, ConversionError, Layer, MaxLayer, RateLayer, RateNetwork, ScalingLayer
from .simulation import POTENTIAL, Simulation, simulate


def rescaled(network: RateNetwork, factors: Sequence[float]) -> RateNetwork:
    """Return the network with other units: `W <- W factor_upstream / factor`, `b <- b / factor`.

    All activations are divided by their layer's factor, exactly (Rueckauer et al. 2017).

    Args:
        network: Network without batch normalisation.
        factors: Activation of each layer that becomes 1; for a maximum that of the layer upstream.

    Raises:
        ConversionError: A factor is not positive, or a layer has a unit of its own (`softlif`).
    """
    if len(factors) != len(network.layers):
        raise ConversionError(f"there are {len(factors)} factors for {len(network.layers)} layers; give one for each")
    layers: list[Layer] = []
    upstream = 1.0
    for layer, factor in zip(network.layers, factors, strict=True):
        if not 0 < factor < float("inf"):
            raise ConversionError(
                f"{layer.name} cannot be scaled by {factor:.4g}: no calibration sample excites it; give other samples, "
                "or leave the layer out"
            )
        layers.append(_scaled(layer, upstream, factor))
        upstream = factor
    return network.with_layers(layers)


def _scaled(layer: Layer, upstream: float, factor: float) -> Layer:
    if isinstance(layer, ScalingLayer):
        raise ConversionError(f"{layer.name} is a batch normalisation; call fold_batch_norm first")
    if isinstance(layer, MaxLayer):
        return replace(layer, scale=layer.scale * upstream)
    if layer.activation == SOFTLIF:
        raise ConversionError(f"{layer.name} has the curve of a neuron, whose unit is fixed; leave normalisation out")
    bias = None if layer.bias is None else layer.bias / factor
    return replace(layer, weight=layer.weight * (upstream / factor), bias=bias, scale=layer.scale * factor)


def normalise_by_model(network: RateNetwork) -> RateNetwork:
    """Scale by the largest activation that inputs in 0..1 can cause, from the weights alone (Diehl et al. 2015).

    The factor of a layer is the largest sum of positive weights (and the bias) of a neuron, with the weights after
    the scaling of the layer upstream. No rate exceeds 1; most are far smaller, so that long runs are needed.
    """
    factors: list[float] = []
    upstream = 1.0
    for layer in network.layers:
        if isinstance(layer, RateLayer):
            bound = layer.weight.clamp(min=0).sum(1) * upstream
            if layer.bias is not None:
                bound = bound + layer.bias
            upstream = float(bound.max())
        factors.append(upstream)
    return rescaled(network, factors)


@dataclass(frozen=True)
class DataNorm:
    """Settings of the normalisation by data.

    Attributes:
        percentile: Percentile of the activations above 0 that becomes the rate 1; 100: the maximum.
        slope: What is taken off the percentile for each further layer, as deeper layers have longer tails.
        clip: Whether activations are cut at the rate 1 of their layer while the layers downstream are calibrated, as
            a neuron that fires at its largest rate cuts them.
        output: Percentile of the output layer; 100 keeps the largest outputs apart.
    """

    percentile: float = 99.9
    slope: float = 0.0
    clip: bool = False
    output: float = 100.0

    def __post_init__(self) -> None:
        for name in ("percentile", "output"):
            if not 0 < getattr(self, name) <= 100:
                raise ConversionError(f"normalisation.{name}={getattr(self, name)} must be in 0 < x <= 100")
        if self.slope < 0:
            raise ConversionError(f"normalisation.slope={self.slope} must not be negative")

    def of_layer(self, place: int, layers: int) -> float:
        """Return the percentile of a layer, by its place among the layers.

        Raises:
            ConversionError: The slope leaves nothing of the percentile.
        """
        if place == layers - 1:
            return self.output
        percentile = self.percentile - self.slope * place
        if percentile <= 0:
            raise ConversionError(
                f"normalisation.slope={self.slope} leaves percentile {percentile:.4g} to layer {place}; lower it"
            )
        return percentile


def normalise_by_data(network: RateNetwork, x: Tensor, settings: DataNorm | None = None) -> RateNetwork:
    """Scale by a percentile of the activations above 0 on calibration samples (Rueckauer et al. 2017).

    Zeros are left out, since in a sparse layer they would decide the percentile. A linear layer without a value above 0
    is scaled by the magnitudes.

    Args:
        network: Network without batch normalisation.
        x: Calibration samples `[B, ...]`.
        settings: Percentile, its schedule, and clipping.

    Raises:
        ConversionError: No sample excites a layer.
    """
    settings = DataNorm() if settings is None else settings
    rates = network.input_rates(x)
    factors: list[float] = []
    for place, layer in enumerate(network.layers):
        with torch.no_grad():
            rates = layer(rates)
        if isinstance(layer, MaxLayer):
            factors.append(factors[-1] if factors else 1.0)
            continue
        is_negative = isinstance(layer, RateLayer) and layer.activation == LINEAR and not bool((rates > 0).any())
        values = -rates if is_negative else rates
        factors.append(_percentile(values, settings.of_layer(place, len(network.layers))))
        if settings.clip:
            rates = rates.clamp(max=factors[-1])
    return rescaled(network, factors)


def _percentile(values: Tensor, percentile: float) -> float:
    """Return a percentile of the values above 0; 0 if there are none."""
    positive = values[values > 0]
    return float(np.percentile(positive.numpy(), percentile)) if len(positive) else 0.0


def spike_norm(
    network: RateNetwork,
    x: Tensor,
    simulation: Simulation | None = None,
    generator: torch.Generator | None = None,
) -> RateNetwork:
    """Scale each layer by the largest weighted input that it has while the spiking network runs (Sengupta et al. 2019).

    The network is run up to each layer in turn, with the layers upstream scaled already. The largest sum of weighted
    spikes of a step, over steps, samples and neurons, is the threshold. Thresholds are 1 here: weights are divided
    by it instead.

    Args:
        network: Network without batch normalisation.
        x: Calibration samples `[B, ...]`.
        simulation: Steps, code and neurons; None: those of `Simulation`.
        generator: Source of a random code.

    Raises:
        ConversionError: No sample excites a layer.
    """
    simulation = replace(Simulation() if simulation is None else simulation, output=POTENTIAL)
    factors: list[float] = []
    for place, layer in enumerate(network.layers):
        upstream = factors[-1] if factors else 1.0
        if isinstance(layer, MaxLayer):
            factors.append(upstream)
            continue
        part = network.with_layers(network.layers[: place + 1])
        peaks = simulate(rescaled(part, [*factors, 1.0]), x, simulation, generator).peaks
        factors.append(peaks[-1])
    return rescaled(network, factors)
