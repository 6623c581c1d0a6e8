"""The twin: an ideal software model of the network, on the grid of the traces.

Weights are floats (Cramer, Billaudelle et al., PNAS 2022, software reference). `neurons/engines` computes the layers;
`readable.py` there has the equations.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from hxtrain.backends import Circuit, Spikes
from hxtrain.checks import not_finite
from hxtrain.finite import all_finite
from hxtrain.gradients import Gradient
from hxtrain.neurons import GridEvents, Model, SpikeGrid, decay, hold_of_measured
from hxtrain.neurons.engines import ModelLayer, engine_for
from hxtrain.neurons.engines.engine import UnrecordedMembranes

from .activity import Activity, LayerActivity
from .layers import Layer
from .program import Program


class Modelled(Protocol):
    """What a twin reads of a network."""

    dt: float
    steps: int
    gradient: Gradient

    @property
    def program(self) -> Program:
        """Return the layers, projections and models."""


class Twin:
    """Runner in software: a network without limits, mismatch and noise of a device; see `Runner`.

    The network is read in every pass, so that it may change between passes.

    Args:
        net: Network that the twin runs.
    """

    def __init__(self, net: Modelled) -> None:
        self._net = net
        self._is_recording = False

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Store membranes of hidden layers within the context, where passes without a graph would not."""
        previous = self._is_recording
        self._is_recording = True
        try:
            yield
        finally:
            self._is_recording = previous

    @property
    def plan(self) -> None:
        """Return None: nothing needs a place."""

    def place(self, net: Modelled) -> None:
        """Run another network from now on; every network fits."""
        self._net = net

    def run(self, weights: list[Tensor], spikes: Spikes, events: GridEvents | None = None) -> Activity:
        """Run a batch, see `Runner.run`; membranes of hidden layers are stored for what reads them.

        Raises:
            ValueError: Weights are not finite.
        """
        net = self._net
        program = net.program
        if not all_finite(weights):
            named = zip(program.projections, weights, strict=True)
            raise not_finite(*(projection.name for projection, weight in named if not all_finite([weight])))
        inputs = events or GridEvents(spikes, net.dt, net.steps)
        recorded = self._is_recording or (torch.is_grad_enabled() and net.gradient.reads_membranes)
        with torch.no_grad():
            return Activity(simulate(program.layers, program.models, program.by_layer(weights), inputs, recorded))

    def saturations(self, current: float) -> list[None]:
        """Return None by layer: inputs are linear."""
        return [None] * len(self._net.program.layers)

    def weight_limits(self) -> list[float | None]:
        """Return None by projection: no weight is clipped."""
        return [None] * len(self._net.program.projections)

    def representable(self, weights: list[Tensor]) -> list[Tensor]:
        """Return the weights, which are exact."""
        return weights


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


class ModelledMembranes(NamedTuple):
    """Membranes of the model for measured spikes, which are computed when they are read.

    Attributes:
        source: Layer of the model with its inputs and the measured spikes.
        dtype: Type of the membranes.
    """

    source: UnrecordedMembranes
    dtype: torch.dtype

    def __repr__(self) -> str:
        """Describe the membranes in a line."""
        return f"ModelledMembranes({list(self.shape)} [T, B, N])"

    @property
    def shape(self) -> tuple[int, int, int]:
        """T, B, N."""
        return self.source.shape

    def trace(self) -> Tensor:
        """Return the membranes `[T, B, N]`."""
        return self.source.trace().to(self.dtype)


def hidden_membranes(
    circuit: Circuit,
    weights: Mapping[str, Sequence[Tensor]],
    events: GridEvents,
    fired: Mapping[str, SpikeGrid],
    dtype: torch.dtype,
    held: Collection[str] = (),
) -> dict[str, ModelledMembranes]:
    """Return the membranes `[T, B, N]` of all spiking populations for measured spikes; none is computed yet.

    Args:
        circuit: circuit of the network.
        weights: weights onto each population: feed-forward ones, then recurrent ones if any; they stay as they are.
        events: input events.
        fired: spikes of each spiking population.
        dtype: type of the membranes.
        held: populations whose model holds the membrane for the refractory period; all others subtract the threshold.
    """
    membranes: dict[str, ModelledMembranes] = {}
    upstream: GridEvents | SpikeGrid = events
    for p in circuit.populations:
        if p.threshold is not None:
            weight, *recurrent_weights = weights[p.name]
            recurrent = recurrent_weights[0] if recurrent_weights else None
            hold = hold_of_measured(p.refractory if p.name in held else None, circuit.dt)
            model = Model(decay(circuit.dt, p.tau_syn), decay(circuit.dt, p.tau_mem), hold=hold)
            layer = ModelLayer(model, weight, recurrent, upstream)
            source = UnrecordedMembranes(engine_for(weight, model, recurrent), layer, fired[p.name])
            membranes[p.name] = ModelledMembranes(source, dtype)
            upstream = fired[p.name]
    return membranes
