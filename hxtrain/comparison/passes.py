"""One pass of a network on one target, with the details that comparisons need.

Shape letters: `T` time steps, `B` samples, `N` neurons.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hxtrain.backends import INPUT, Health, Spikes
from hxtrain.network import Activity, LayerActivity, Network
from hxtrain.objectives import Loss
from hxtrain.objectives.losses import check_output, predictions

from .response import Response, first_spikes, linear_response, measure_response


class LayerPass(NamedTuple):
    """Activity and response of a layer in a pass.

    Attributes:
        spikes: spikes within the recorded window; None for a readout.
        trace: membrane `[T, B, N]` (leak 0, threshold 1).
        response: response of the layer, relative to the model with its measured input.
    """

    spikes: Spikes | None
    trace: Tensor
    response: Response


class Pass(NamedTuple):
    """Result of a pass of a network.

    Attributes:
        layers: pass of each layer, in the network's order.
        gradients: gradients of the loss in the weights of each learned projection, by name.
        answers: predicted classes `[B]`.
        health: losses and retries of the device.
        in_software: whether the twin ran.
    """

    layers: list[LayerPass]
    gradients: dict[str, Tensor]
    answers: Tensor
    health: Health
    in_software: bool


@torch.enable_grad()
def run_pass(net: Network, spikes: Spikes, loss: Loss, labels: Tensor | None) -> Pass:
    """Run a network on its device or in software; `.grad` is not changed.

    Args:
        net: network to run.
        spikes: input of `B` samples.
        loss: loss that defines the answers and the gradients.
        labels: true classes `[B]`; None: the answers of this pass.

    Raises:
        ValueError: the loss reads another kind of output.
    """
    check_output(net, loss)
    activity = net(spikes)
    output = loss.read(activity)
    answers = predictions(loss.scores(output.detach()))
    classes = answers if labels is None else labels.to(answers.device)
    weights = {p.name: p.synapses.weight for p in net.projections if p.synapses.is_trainable}
    gradients = torch.autograd.grad(loss(output, classes), [*weights.values()]) if weights else ()
    with torch.no_grad():
        layers = _layers(net, spikes.to(answers.device), activity)
    return Pass(layers, dict(zip(weights, gradients, strict=True)), answers.cpu(), activity.health, net.device is None)


def _layers(net: Network, spikes: Spikes, activity: Activity) -> list[LayerPass]:
    """Return the activity of each layer, and its response relative to the model with its measured input."""
    sources = {INPUT: spikes if net.device else Spikes.from_grid(spikes.to_grid(net.dt, net.steps), net.dt)}
    passes = []
    for layer, outcome in zip(net.layers, activity.layers, strict=True):
        fired = _measured_spikes(outcome, net)
        trace = outcome.trace.detach()
        if fired is not None:
            sources[layer.name] = fired
        taus = layer.neurons.tau_mem, layer.neurons.tau_syn
        modelled = torch.zeros_like(trace)
        for projection in layer.projections:
            weight = projection.synapses.effective_weight
            events = sources[projection.pre]
            modelled += linear_response(weight, events, net.dt, net.steps, *taus)
        first = None if fired is None else first_spikes(fired)
        passes.append(LayerPass(fired, trace, measure_response(modelled, trace, first, net.dt)))
    return passes


def _measured_spikes(layer: LayerActivity, net: Network) -> Spikes | None:
    """Return a layer's spikes within the window, at measured times, or in software on the grid."""
    if layer.events is None:
        return None if layer.spikes is None else Spikes.from_grid(layer.spikes.detach(), net.dt)
    events = layer.events.to(layer.trace.device)
    inside = events.bins(net.dt) < net.steps
    parts = events.sample[inside], events.unit[inside], events.time[inside]
    return Spikes.trusted(*parts, events.samples, events.units)
