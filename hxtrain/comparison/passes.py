"""One pass of a network on one target, taken apart for comparisons.

Shape letters: `T` time steps, `B` samples, `N` neurons.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hxtrain.backends import INPUT, Health, Spikes
from hxtrain.network import Activity, LayerActivity, Network
from hxtrain.objectives import MaxOverTime
from hxtrain.objectives.losses import predictions

from .response import Response, first_spikes, linear_response, measure_response


class LayerPass(NamedTuple):
    """What a layer did in a pass.

    Attributes:
        spikes: those within the recorded window; None for a readout.
        trace: membrane `[T, B, N]` (leak 0, threshold 1).
        response: the layer against the model of its measured input.
    """

    spikes: Spikes | None
    trace: Tensor
    response: Response


class Pass(NamedTuple):
    """What a network did in a pass.

    Attributes:
        layers: in the network's order.
        gradients: of the loss in the weights of each projection, by name.
        answers: `[B]`.
        health: losses and retries of the device.
        in_software: whether this was the twin.
    """

    layers: list[LayerPass]
    gradients: dict[str, Tensor]
    answers: Tensor
    health: Health
    in_software: bool


@torch.enable_grad()
def run_pass(net: Network, spikes: Spikes, loss: MaxOverTime, labels: Tensor | None) -> Pass:
    """Run a network where it is attached; `.grad` is left alone.

    Args:
        net: the network.
        spikes: input of `B` samples.
        loss: how readouts become answers, and whose gradient is taken.
        labels: true classes `[B]`; None: the answers of this pass.
    """
    activity = net(spikes)
    answers = predictions(loss.scores(activity.readout.detach()))
    wanted = answers if labels is None else labels.to(answers.device)
    weights = [projection.synapses.weight for projection in net.projections]
    gradients = torch.autograd.grad(loss(activity.readout, wanted), weights)
    with torch.no_grad():
        layers = _layers(net, spikes.to(answers.device), activity)
    names = (projection.name for projection in net.projections)
    return Pass(layers, dict(zip(names, gradients, strict=True)), answers.cpu(), activity.health, net.device is None)


def _layers(net: Network, spikes: Spikes, activity: Activity) -> list[LayerPass]:
    """Return what each layer did, in itself and against the model of its measured input."""
    sources = {INPUT: spikes if net.device else Spikes.from_grid(spikes.to_grid(net.dt, net.steps), net.dt)}
    found = []
    for layer, did in zip(net.layers, activity.layers, strict=True):
        own, trace = _measured_spikes(did, net), did.trace.detach()
        if own is not None:
            sources[layer.name] = own
        taus = layer.neurons.tau_mem, layer.neurons.tau_syn
        modelled = torch.zeros_like(trace)
        for projection in layer.projections:
            weight, arrived = projection.synapses.weight, sources[projection.pre]
            modelled += linear_response(weight, arrived, net.dt, net.steps, *taus)
        first = None if own is None else first_spikes(own)
        found.append(LayerPass(own, trace, measure_response(modelled, trace, first, net.dt)))
    return found


def _measured_spikes(layer: LayerActivity, net: Network) -> Spikes | None:
    """Return a layer's spikes within the window: at measured times, or in software on the grid."""
    if layer.events is None:
        return None if layer.spikes is None else Spikes.from_grid(layer.spikes.detach(), net.dt)
    events = layer.events.to(layer.trace.device)
    inside = events.bins(net.dt) < net.steps
    parts = events.sample[inside], events.unit[inside], events.time[inside]
    return Spikes.trusted(*parts, events.samples, events.units)
