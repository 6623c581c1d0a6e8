"""The passes in their order, with a report after each: how far the network still is from the original."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hxtrain.checks import flag, one_of

from .graph import ABSOLUTE, IDENTITY, INPUT_MAPS, LINEAR, PAIRS, RECTIFIED, MaxLayer, RateLayer, RateNetwork
from .normalisation import DataNorm, normalise_by_data, normalise_by_model, spike_norm
from .rewrites import (
    absolute_inputs,
    average_pooling,
    encode_bias,
    fold_batch_norm,
    merge_linear,
    rectified_inputs,
    remove_bias,
    signed_inputs,
    signed_neurons,
)
from .simulation import Simulation, simulate

Pass = Callable[[RateNetwork, Tensor], RateNetwork]
"""Function of a network and calibration samples `[B, ...]` that returns another network."""
INPUT_PASSES = {ABSOLUTE: absolute_inputs, RECTIFIED: rectified_inputs, PAIRS: signed_inputs}


@dataclass
class PassConfig:
    """Settings of the passes.

    Attributes:
        inputs: What enters the network, of values that may be negative: `identity`, their magnitude (`absolute`),
            their positive part (`rectified`), or two inputs (`pairs`).
        bias: `keep`, `remove`, or `encode` as weights of a constant source.
        pooling: Max-pooling as gates (`gated`), or by means (`average`).
        linear: Linear hidden layers and means: multiplied into the next weights (`merge`), or `pairs` of neurons.
        normalisation: Unit of each layer: `data`, `model`, `spikes` of the running network, or `none`.
        percentile: Percentile of the activations above 0 that becomes the rate 1.
        percentile_slope: What is taken off the percentile for each further layer.
        output_percentile: Percentile of the outputs above 0.
        clip: Whether calibration cuts activations at the rate 1, as neurons do.
    """

    inputs: str = IDENTITY
    bias: str = "keep"
    pooling: str = "gated"
    linear: str = "merge"
    normalisation: str = "data"
    percentile: float = 99.9
    percentile_slope: float = 0.0
    output_percentile: float = 100.0
    clip: bool = False

    def __post_init__(self) -> None:
        one_of(INPUT_MAPS)("passes.inputs", self.inputs)
        one_of(("keep", "remove", "encode"))("passes.bias", self.bias)
        one_of(("gated", "average"))("passes.pooling", self.pooling)
        one_of(("merge", "pairs"))("passes.linear", self.linear)
        one_of(("data", "model", "spikes", "none"))("passes.normalisation", self.normalisation)
        flag("passes.clip", self.clip)
        self.data_norm()

    def data_norm(self) -> DataNorm:
        """Return the settings of the normalisation by data."""
        return DataNorm(self.percentile, self.percentile_slope, self.clip, self.output_percentile)


class PassReport(NamedTuple):
    """A network after a pass.

    Attributes:
        name: Name of the pass; `original` before the first one.
        layers: Number of layers.
        synapses: Number of synapses that exist.
        error: Deviation of the outputs from those of the original, as share of the norm of these.
        accuracy: Share of right answers of the network of rates; None without labels.
        spiking_accuracy: Share of right answers of the spiking network; None without labels, or if a layer has no
            spiking neuron yet.
    """

    name: str
    layers: int
    synapses: int
    error: float
    accuracy: float | None
    spiking_accuracy: float | None


@dataclass(frozen=True)
class Probe:
    """What a network is judged by after each pass.

    Attributes:
        x: Samples `[B, ...]`.
        labels: Classes, int64 `[B]`; None: no accuracies.
        simulation: Settings of the spiking network; None: no spiking network.
        seed: Seed of random codes and winners.
    """

    x: Tensor
    labels: Tensor | None = None
    simulation: Simulation | None = None
    seed: int = 0

    def report(self, name: str, network: RateNetwork, reference: Tensor) -> PassReport:
        """Return the report on a network.

        Args:
            name: Name of the pass.
            network: Network after the pass.
            reference: Outputs `[B, classes]` of the original.
        """
        output = network.output(self.x) * network.layers[-1].scale
        masks = [layer.synapses for layer in network.layers if isinstance(layer, RateLayer)]
        return PassReport(
            name,
            len(network.layers),
            sum(int(mask.sum()) for mask in masks),
            float((output - reference).norm() / reference.norm()),
            None if self.labels is None else float((output.argmax(1) == self.labels).double().mean()),
            self._spiking_accuracy(network),
        )

    def _spiking_accuracy(self, network: RateNetwork) -> float | None:
        if self.labels is None or self.simulation is None or not _is_spiking(network):
            return None
        generator = torch.Generator().manual_seed(self.seed)
        return simulate(network, self.x, self.simulation, generator).accuracies(self.labels)[-1]


def _is_spiking(network: RateNetwork) -> bool:
    """Return whether every layer has a spiking neuron."""
    *hidden, last = network.layers
    return isinstance(last, RateLayer) and all(
        isinstance(layer, MaxLayer) or (isinstance(layer, RateLayer) and layer.activation != LINEAR) for layer in hidden
    )


def passes(
    config: PassConfig, simulation: Simulation | None = None, generator: torch.Generator | None = None
) -> dict[str, Pass]:
    """Return the passes that settings ask for, by name, in their order.

    Args:
        config: Settings.
        simulation: Running network of `normalisation=spikes`; None: see `Simulation`.
        generator: Source of its random code.
    """
    chosen: dict[str, Pass] = {"fold batch norm": lambda network, x: fold_batch_norm(network)}
    if config.bias == "remove":
        chosen["remove bias"] = lambda network, x: remove_bias(network)
    if config.inputs != IDENTITY:
        chosen[f"{config.inputs} inputs"] = lambda network, x: INPUT_PASSES[config.inputs](network)
    if config.pooling == "average":
        chosen["average pooling"] = lambda network, x: average_pooling(network)
    if config.linear == "merge":
        chosen["merge linear"] = lambda network, x: merge_linear(network)
    else:
        chosen["signed neurons"] = lambda network, x: signed_neurons(network)
    if config.normalisation == "model":
        chosen["model norm"] = lambda network, x: normalise_by_model(network)
    elif config.normalisation == "data":
        chosen["data norm"] = lambda network, x: normalise_by_data(network, x, config.data_norm())
    elif config.normalisation == "spikes":
        chosen["spike norm"] = lambda network, x: spike_norm(network, x, simulation, generator)
    if config.bias == "encode":
        chosen["encode bias"] = lambda network, x: encode_bias(network)
    return chosen


def apply_passes(
    network: RateNetwork, chosen: dict[str, Pass], x: Tensor, probe: Probe | None = None
) -> tuple[RateNetwork, list[PassReport]]:
    """Return a network after passes, and a report on the original and after each pass.

    Args:
        network: Original.
        chosen: Passes by name, in their order.
        x: Calibration samples `[B, ...]`.
        probe: What the network is judged by; None: outputs on the calibration samples.

    Raises:
        ConversionError: A pass refuses a layer; the text has its name and a remedy.
    """
    probe = Probe(x) if probe is None else probe
    reference = network.output(probe.x) * network.layers[-1].scale
    reports = [probe.report("original", network, reference)]
    for name, step in chosen.items():
        network = step(network, x)
        reports.append(probe.report(name, network, reference))
    return network, reports


def table(reports: Sequence[PassReport]) -> str:
    """Return the reports as a table in plain text."""
    header = f"{'pass':<18} {'layers':>6} {'synapses':>9} {'error':>9} {'accuracy':>9} {'spiking':>9}"
    return "\n".join([header, *(_row(report) for report in reports)])


def _row(report: PassReport) -> str:
    accuracy = _percent(report.accuracy)
    spiking = _percent(report.spiking_accuracy)
    return f"{report.name:<18} {report.layers:>6} {report.synapses:>9} {report.error:>9.2e} {accuracy:>9} {spiking:>9}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
