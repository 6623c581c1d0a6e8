"""Diagnosis of missing input and of silent, saturated or clipped layers, each with a remedy to try."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hxtrain.backends import INPUT
from hxtrain.network import Activity, Network
from hxtrain.network.arrival import early_input, missing_input, sparse_input
from hxtrain.network.firing import EDGE, SATURATED_SHARE, spike_limit
from hxtrain.neurons import GridEvents

SILENT_SPIKES = 0.05
"""Spikes per sample of a whole layer below which the layer is silent."""
CLIPPED_SHARE = 0.05
"""Share of integer weights at their limit above which a layer counts as clipped."""
JUDGED_SAMPLES = 100
"""Number of samples that a diagnosis rests on, if the epoch has as many."""


class Observations:
    """Activity of passes, gathered until there are enough samples for a diagnosis."""

    def __init__(self) -> None:
        self.inputs: list[GridEvents] = []
        self._counts: dict[str, list[Tensor]] = {}
        self._traces: dict[str, list[Tensor]] = {}

    @torch.no_grad()
    def add(self, net: Network, activity: Activity) -> None:
        """Add the activity of a pass; membranes of hidden layers only if they are measured."""
        if activity.inputs is not None:
            self.inputs.append(activity.inputs)
        for layer, recording in zip(net.layers, activity.layers, strict=True):
            if recording.counts is not None:
                self._counts.setdefault(layer.name, []).append(recording.counts.detach())
            if net.device is not None or recording.fired is None:
                self._traces.setdefault(layer.name, []).append(recording.trace.detach())

    @torch.no_grad()
    def warnings(self, net: Network, trained: bool) -> list[str]:
        """Return warnings about the network, input first: without input, no layer can spike.

        Args:
            net: Network of all passes.
            trained: Whether training has begun (a hidden layer may start silent).
        """
        misplaced = missing_input(self.inputs) or early_input(self.inputs)
        warnings = [] if misplaced is None else [misplaced]
        sparse = sparse_input(self.inputs)
        for layer in net.layers:
            if layer.name in self._counts and misplaced is None:
                sources = sparse if layer.source == INPUT else None
                counts = torch.cat(self._counts[layer.name])
                is_output = layer is net.layers[-1]
                warnings += _spiking(layer.name, counts, net.steps, trained, sources, is_output)
            if net.device is not None:
                warnings += _saturation(layer.name, torch.cat(self._traces[layer.name], dim=1), layer.neurons.spiking)
        if any(bool(torch.isnan(trace).any()) for trace in self._traces.get(net.layers[-1].name, [])):
            warnings.append("the readout is not a number; check the input's range")
        return warnings + _clipping(net)


class Place(NamedTuple):
    """The place of a step in a training.

    Attributes:
        epoch: Number of finished epochs.
        first: First sample of the step, in the order of the epoch.
        samples: Number of samples of the step.
        total: Number of samples of an epoch.
    """

    epoch: int
    first: int
    samples: int
    total: int

    @property
    def remaining(self) -> int:
        """Number of samples of the epoch after this step."""
        return self.total - self.first - self.samples


class StepDiagnosis:
    """Diagnosis of the steps of a training, at its start and at the end of each epoch.

    Steps of few samples are judged together. A first epoch of a single step is not judged as trained.
    """

    def __init__(self) -> None:
        self._start = Observations()
        self._end = Observations()

    def warnings(self, net: Network, activity: Activity, place: Place) -> list[str]:
        """Add the activity of a step; returns warnings of missing input and unhealthy layers, once they are judged."""
        warnings = []
        if place.epoch == 0 and place.first < JUDGED_SAMPLES:
            self._start.add(net, activity)
            if place.first + place.samples >= JUDGED_SAMPLES or place.remaining == 0:
                warnings += self._start.warnings(net, trained=False)
                self._start = Observations()
        is_first_of_all = place.epoch == place.first == 0
        if place.remaining < JUDGED_SAMPLES and not (is_first_of_all and place.remaining == 0):
            self._end.add(net, activity)
            if place.remaining == 0:
                warnings += self._end.warnings(net, trained=True)
                self._end = Observations()
        return warnings


def diagnose(net: Network, activity: Activity, trained: bool) -> list[str]:
    """Return warnings about one pass. The arguments are those of `Observations`."""
    observations = Observations()
    observations.add(net, activity)
    return observations.warnings(net, trained)


def _spiking(name: str, counts: Tensor, steps: int, trained: bool, sparse: str | None, is_output: bool) -> list[str]:
    """Return warnings about the numbers of spikes `[B, N]` of a layer.

    Args:
        name: Name of the layer.
        counts: Spikes of each sample and neuron `[B, N]`.
        steps: Steps of the window.
        trained: Whether training has begun.
        sparse: Reason for which the input may be insufficient; None if it is sufficient.
        is_output: Whether the layer is the output of the network.
    """
    per_sample = float(counts.sum()) / len(counts)
    if per_sample < SILENT_SPIKES and trained:
        consequence = "there is no answer" if is_output else "nothing reaches the downstream layers"
        remedy = "Try network.init_gain=2, or a smaller regularizer.burst.strength"
        return [
            f"{name} is silent ({per_sample:.2g} spikes per sample): "
            + (f"{consequence}. {remedy}" if sparse is None else sparse)
        ]
    if per_sample / counts.shape[1] > spike_limit(steps):
        return [
            f"{name} fires {per_sample / counts.shape[1]:.1f} spikes per neuron and sample, close to what the "
            "refractory period allows. Try a larger regularizer.burst.strength"
        ]
    return []


def _saturation(name: str, trace: Tensor, spiking: bool) -> list[str]:
    """Return warnings about the range of a layer's membranes `[T, B, N]`.

    In a readout, only the highest membrane of each sample counts, which is the answer. Training drives the membranes of
    wrong classes far below rest: after two epochs of the default recipe, 8 % of all membrane samples lie there.
    """
    low, high = trace.amin(), trace.amax()
    if float(high - low) < 1:
        return []
    is_top = trace > high - EDGE
    share = float((is_top | (trace < low + EDGE)).float().mean() if spiking else is_top.any(-1).any(0).float().mean())
    if share < SATURATED_SHARE:
        return []
    subject = "membrane samples lie" if spiking else "answers lie"
    remedy = (
        "a larger regularizer.weight_decay.strength"
        if spiking
        else "regularizer=[burst,weight_decay,readout_amplitude]"
    )
    return [
        f"{name} is saturated: {share:.0%} of its {subject} at the edge of the recorded range "
        f"({float(low):.2f}..{float(high):.2f} thresholds). Try {remedy} or a smaller network.scale"
    ]


def _clipping(net: Network) -> list[str]:
    if net.device is None or net.device.plan is None:
        return []
    warnings = []
    for projection, limit in zip(net.projections, net.weight_limits(), strict=True):
        if limit is None:
            continue
        synapses = projection.synapses
        magnitudes = synapses.effective_weight.detach().abs()
        if synapses.learned:
            share = float((magnitudes >= limit * (1 - 1e-6)).float().mean())
            text = "at the limit of the integer range. Try a larger regularizer.weight_decay.strength, or"
        else:
            share = float((magnitudes > limit * (1 + 1e-6)).float().mean())
            text = "beyond the integer range, and fixed. Set smaller ones, or"
        if share > CLIPPED_SHARE:
            warnings.append(
                f"{projection.name} is clipped: {share:.0%} of its weights are {text} a smaller network.scale"
            )
    return warnings
