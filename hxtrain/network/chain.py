"""The chain of layers that the modules of a network form."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from hxtrain.backends import INPUT

from .layers import LI, LIF, Dropout, Incoming, Layer, Linear, Recurrent

M = TypeVar("M", bound=nn.Module)

GRAMMAR = (
    "expected Linear, LIF, [Recurrent or LateralInhibition,] [Dropout,] ..., Linear, LI (or LIF: a spiking output)"
)


def pair_modules(modules: list[nn.Module]) -> list[Layer]:
    """Group modules into layers.

    Raises:
        ValueError: their order is wrong.
    """
    layers: list[Layer] = []
    queue = list(modules)
    while queue:
        linear = queue.pop(0)
        neurons = queue.pop(0) if queue else None
        if not isinstance(linear, Linear) or not isinstance(neurons, LIF | LI):
            raise ValueError(f"network is {', '.join(map(_kind, modules)) or 'empty'}; {GRAMMAR}")
        name = f"layer{len(layers)}"
        recurrent = _take(queue, Recurrent)
        if recurrent is not None and queue and isinstance(queue[0], Recurrent):
            raise ValueError(
                f"{name} has {_kind(recurrent)} and {_kind(queue[0])}, but a population has one projection onto "
                "itself; leave one out (a Recurrent can learn to inhibit, too)"
            )
        dropping = _take(queue, Dropout)
        source = layers[-1].name if layers else INPUT
        layers.append(Layer(name, source, linear, neurons, recurrent, dropping))
    if not layers or layers[-1].dropping:
        raise ValueError(f"the last population must be an output, LI or LIF, without dropout; {GRAMMAR}")
    return layers


def _kind(module: nn.Module) -> str:
    """Return a module's class, with its package if it is not this one: torch also has a Linear."""
    kind = type(module)
    package = kind.__module__.split(".")[0]
    return kind.__name__ if package == __name__.split(".")[0] else f"{package}'s {kind.__name__}"


def check_chain(layers: list[Layer]) -> None:
    """Refuse layers whose sizes do not match, and layers in the wrong place.

    Raises:
        ValueError: a layer does not fit; the text names it and its sizes.
    """
    previous = layers[0].linear.inputs
    for layer in layers:
        if layer.linear.inputs != previous or layer.linear.outputs != layer.neurons.size:
            raise ValueError(
                f"{layer.name} is Linear({layer.linear.inputs}, {layer.linear.outputs}) onto {layer.neurons.size} "
                f"neurons behind {previous} units; sizes must match"
            )
        if layer is not layers[-1] and not isinstance(layer.neurons, LIF):
            raise ValueError(f"{layer.name} is a readout LI in the middle of the network; {GRAMMAR}")
        if layer.recurrent is not None:
            _check_recurrent(layer, layer.recurrent)
        for projection in layer.projections:
            _check_shape(projection)
        previous = layer.neurons.size


def _check_shape(projection: Incoming) -> None:
    synapses = projection.synapses
    shape = tuple(synapses.weight.shape)
    if shape != (synapses.outputs, synapses.inputs):
        raise ValueError(
            f"weights of {projection.name} are {shape}, but its {type(synapses).__name__} has {synapses.outputs} "
            f"targets and {synapses.inputs} sources; for other sizes put other modules into net.stack"
        )


def _take(queue: list[nn.Module], kind: type[M]) -> M | None:
    """Remove and return the first module of the queue if it is of a kind, else None."""
    head = queue[0] if queue else None
    if not isinstance(head, kind):
        return None
    del queue[0]
    return head


def _check_recurrent(layer: Layer, recurrent: Recurrent) -> None:
    if not layer.neurons.spiking:
        raise ValueError(f"{layer.name} is a readout LI, which has no spikes to feed back; {GRAMMAR}")
    if recurrent.inputs != layer.neurons.size:
        raise ValueError(f"{layer.name} is Recurrent({recurrent.inputs}) on {layer.neurons.size} neurons; use its size")
    automatic = {(s.autoscale, s.max_scale if s.autoscale else None) for s in (layer.linear, recurrent)}
    if len(automatic) > 1:
        raise ValueError(
            f"{layer.name}: Linear(autoscale={layer.linear.autoscale}, max_scale={layer.linear.max_scale}) and "
            f"Recurrent(autoscale={recurrent.autoscale}, max_scale={recurrent.max_scale}) differ, but a population "
            "has one unit of membrane; give both the same"
        )
