"""The graph of a network's placement: populations and projections, of each run of the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hxtrain.backends import INPUT, Projection
from hxtrain.execution import Plan, device_of
from hxtrain.execution.partition import Part
from hxtrain.network import Network
from hxtrain.network.layers import Incoming

from .tracker import Node


def placement(net: Network) -> list[Node]:
    """Return the graph of a network: as it is placed on its device, or of its layers in software."""
    device = device_of(net)
    if device is not None and device.plan is not None:
        return list(_nodes_of_plan(device.plan))
    return list(_nodes_of_layers(net))


def _nodes_of_plan(plan: Plan) -> Iterator[Node]:
    homes: dict[str, list[str]] = {}
    for number, part in enumerate(plan.parts, 1):
        scope = f"run_{number}/" if len(plan.parts) > 1 else ""
        entries = {"units": str(part.circuit.inputs), "source": part.source}
        yield Node(f"{scope}{INPUT}", "inputs", tuple(homes.get(part.source, ())), entries)
        yield from _nodes_of_part(plan, part, scope)
        for population in part.circuit.populations:
            homes.setdefault(population.name, []).append(f"{scope}{population.name}")


def _nodes_of_part(plan: Plan, part: Part, scope: str) -> Iterator[Node]:
    scales = {item.projection.name: item.fixed_scale for item in plan.projections}
    for population in part.circuit.populations:
        incoming = [item for item in part.circuit.projections if item.post == population.name]
        for item in incoming:
            scale = scales[item.name]
            entries = {
                "synapses": f"{population.size} x {item.pre_size}",
                "from": part.source if item.pre == INPUT else item.pre,
                "signed inputs": str(len(set(item.places))),
                "integer weights": "largest just fits" if scale is None else f"{scale:.4g} per unit",
            }
            yield _projection(item, scope, entries)
        entries = {
            "neurons": str(population.size),
            "first neuron": str(part.first),
            "circuits per neuron": str(population.merged),
            "tau_mem": f"{population.tau_mem:.4g} s",
            "tau_syn": f"{population.tau_syn:.4g} s",
        }
        kind = "readout" if population.threshold is None else "spiking population"
        inputs = tuple(f"{scope}{_node_name(item)}" for item in incoming)
        yield Node(f"{scope}{population.name}", kind, inputs, entries)


def _nodes_of_layers(net: Network) -> Iterator[Node]:
    yield Node(INPUT, "inputs", (), {"units": str(net.layers[0].linear.inputs)})
    for layer in net.layers:
        incoming = [item for item in net.projections if item.post == layer.name]
        for item in incoming:
            synapses = f"{layer.neurons.size} x {item.synapses.inputs}"
            yield _projection(item, "", {"synapses": synapses, "from": item.pre})
        kind = "spiking population" if layer.neurons.spiking else "readout"
        yield Node(layer.name, kind, tuple(map(_node_name, incoming)), {"neurons": str(layer.neurons.size)})


def _projection(item: Projection | Incoming, scope: str, entries: Mapping[str, str]) -> Node:
    """Return the node of a projection; a recurrent one has no input, since a graph of TensorBoard has no loops."""
    inputs = () if item.pre == item.post else (f"{scope}{item.pre}",)
    return Node(f"{scope}{_node_name(item)}", "projection", inputs, entries)


def _node_name(item: Projection | Incoming) -> str:
    return item.name.replace("->", "_to_")
