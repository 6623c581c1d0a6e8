"""The twin: an ideal software model of the network, on the grid of the traces.

Weights are floats (Cramer, Billaudelle et al., PNAS 2022, software reference). `neurons/engines` computes the layers;
`readable.py` there has the equations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from hxtrain.backends import Circuit
from hxtrain.neurons import GridEvents, Model, SpikeGrid, decay
from hxtrain.neurons.engines import ModelLayer, engine_for

from .activity import LayerActivity
from .layers import Layer


def simulate(
    layers: Sequence[Layer],
    models: Sequence[Model],
    weights: Sequence[Sequence[Tensor]],
    events: GridEvents,
    recorded: bool = True,
) -> list[LayerActivity]:
    """Run layers in software; returns spikes and membranes `[T, B, N]` of each layer.

    Args:
        layers: layers from the first to the output.
        models: model of each layer.
        weights: float weights onto each layer: feed-forward ones and, if there are, recurrent ones.
        events: input events.
        recorded: whether membranes of hidden layers are stored; if not, they are computed again on demand.
    """
    result: list[LayerActivity] = []
    upstream: GridEvents | SpikeGrid = events
    for layer, model, (weight, *recurrent_weights) in zip(layers, models, weights, strict=True):
        recurrent = recurrent_weights[0] if recurrent_weights else None
        engine = engine_for(weight, model, recurrent)
        population = ModelLayer(model, weight, recurrent, upstream)
        spikes, membrane = engine.respond(population, layer.neurons.spiking, recorded)
        result.append(LayerActivity(spikes, membrane))
        upstream = upstream if spikes is None else spikes
    return result


def hidden_membranes(
    circuit: Circuit, weights: Mapping[str, Sequence[Tensor]], events: GridEvents, fired: Mapping[str, SpikeGrid]
) -> dict[str, Tensor]:
    """Return the membranes `[T, B, N]` of all spiking populations for measured spikes.

    Args:
        circuit: circuit of the network.
        weights: weights onto each population: feed-forward ones, then recurrent ones if any.
        events: input events.
        fired: spikes of each spiking population.
    """
    membranes: dict[str, Tensor] = {}
    upstream: GridEvents | SpikeGrid = events
    for p in circuit.populations:
        if p.threshold is not None:
            weight, *recurrent_weights = weights[p.name]
            recurrent = recurrent_weights[0] if recurrent_weights else None
            model = Model(decay(circuit.dt, p.tau_syn), decay(circuit.dt, p.tau_mem))
            engine = engine_for(weight, model, recurrent)
            membranes[p.name] = engine.follow(ModelLayer(model, weight, recurrent, upstream), fired[p.name])
            upstream = fired[p.name]
    return membranes
