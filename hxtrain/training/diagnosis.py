"""Diagnosis: missing input, silent, saturated or clipped layers, each with a fix to try."""

from __future__ import annotations

import torch
from torch import Tensor

from hxtrain.backends import INPUT
from hxtrain.network import Activity, Network
from hxtrain.network.arrival import missing_input, sparse_input
from hxtrain.neurons import GridEvents

SILENT_SPIKES = 0.05
"""Fewer spikes per sample than this from a whole layer: it is silent."""
BURSTING = 8.0
"""More spikes than this per neuron and sample in a window of 20 steps: it is driven to its limit."""
CLIPPED_SHARE = 0.05
"""Share of integer weights at their limit from which on a layer counts as clipped."""
SATURATED_SHARE = 0.10
"""Share of trace samples at the edge of the recorded range from which on a layer counts as saturated."""
EDGE = 0.1
"""Width of that edge in units of the threshold."""
ENOUGH_SAMPLES = 100
"""Samples that a judgement rests on, if there are so many."""


class Observations:
    """What passes did, gathered until they say something about the network: one of few samples says little."""

    def __init__(self) -> None:
        self.inputs: list[GridEvents] = []
        self._counts: dict[str, list[Tensor]] = {}
        self._traces: dict[str, list[Tensor]] = {}

    @torch.no_grad()
    def add(self, net: Network, activity: Activity) -> None:
        """Take what a pass of the network did; membranes of hidden layers only if they were measured."""
        if activity.inputs is not None:
            self.inputs.append(activity.inputs)
        for layer, did in zip(net.layers, activity.layers, strict=True):
            if did.counts is not None:
                self._counts.setdefault(layer.name, []).append(did.counts.detach())
            if net.device is not None or did.fired is None:
                self._traces.setdefault(layer.name, []).append(did.trace.detach())

    @torch.no_grad()
    def warnings(self, net: Network, trained: bool) -> list[str]:
        """Return warnings about the network; those of its input first, for without input layers cannot do anything.

        Args:
            net: the network of all passes.
            trained: whether training has begun (a hidden layer may start silent).
        """
        missing = missing_input(self.inputs)
        warnings = [] if missing is None else [missing]
        sparse = sparse_input(self.inputs)
        for layer in net.layers:
            if layer.name in self._counts and missing is None:
                sources = sparse if layer.source == INPUT else None
                warnings += _spiking(layer.name, torch.cat(self._counts[layer.name]), net.steps, trained, sources)
            if net.device is not None:
                warnings += _saturation(layer.name, torch.cat(self._traces[layer.name], dim=1), layer.neurons.spiking)
        if any(bool(torch.isnan(trace).any()) for trace in self._traces.get(net.layers[-1].name, [])):
            warnings.append("the readout is not a number; check the input's range")
        return warnings + _clipping(net)


def diagnose(net: Network, activity: Activity, trained: bool) -> list[str]:
    """Return warnings about one pass; arguments as those of `Observations`."""
    observations = Observations()
    observations.add(net, activity)
    return observations.warnings(net, trained)


def _spiking(name: str, counts: Tensor, steps: int, trained: bool, sparse: str | None) -> list[str]:
    """Return warnings about the numbers of spikes `[B, N]` of a layer.

    Args:
        sparse: Why its input may not be enough.
    """
    per_sample = float(counts.sum()) / len(counts)
    if per_sample < SILENT_SPIKES and trained:
        remedy = "Try network.init_gain=2, or a smaller regularizer.burst.strength"
        return [
            f"{name} is silent ({per_sample:.2g} spikes per sample): "
            + (f"nothing reaches the layers behind it. {remedy}" if sparse is None else sparse)
        ]
    if per_sample / counts.shape[1] > BURSTING * steps / 20:
        return [
            f"{name} fires {per_sample / counts.shape[1]:.1f} spikes per neuron and sample, close to what the "
            "refractory period allows. Try a larger regularizer.burst.strength"
        ]
    return []


def _saturation(name: str, trace: Tensor, spiking: bool) -> list[str]:
    """Return warnings about the range of a layer's membranes `[T, B, N]`.

    Of a readout only the highest membrane of each sample counts: it is the answer. Wrong classes far below rest are
    what training is for: 8 % of all membrane samples lie there after two epochs of the default recipe.
    """
    low, high = trace.amin(), trace.amax()
    if float(high - low) < 1:
        return []
    top = trace > high - EDGE
    share = float((top | (trace < low + EDGE)).float().mean() if spiking else top.any(-1).any(0).float().mean())
    if share < SATURATED_SHARE:
        return []
    meant = "membrane samples lie" if spiking else "answers lie"
    return [
        f"{name} is saturated: {share:.0%} of its {meant} at the edge of the recorded range "
        f"({float(low):.2f}..{float(high):.2f} thresholds). Try regularizer=[burst,weight_decay,readout_amplitude] "
        "or a smaller network.scale"
    ]


def _clipping(net: Network) -> list[str]:
    if net.device is None or net.device.plan is None:
        return []
    warnings = []
    for projection, limit in zip(net.projections, net.weight_limits(), strict=True):
        if limit is None:
            continue
        share = float((projection.synapses.weight.detach().abs() >= limit * (1 - 1e-6)).float().mean())
        if share > CLIPPED_SHARE:
            warnings.append(
                f"{projection.name} is clipped: {share:.0%} of its weights are at the limit of the integer range. "
                "Try a larger regularizer.weight_decay.strength, or a smaller network.scale"
            )
    return warnings
