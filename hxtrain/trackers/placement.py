"""The graph of a network's placement: populations and projections, of each run of the device."""

from __future__ import annotations

from collections.abc import Iterator

from hxtrain.backends import INPUT, Circuit
from hxtrain.execution import Plan, device_of
from hxtrain.network import Network

from .tracker import Node


def placement(net: Network) -> list[Node]:
    """Return the graph of a network: as it is placed on its device, or of its layers in software."""
    device = device_of(net)
    if device is not None and device.plan is not None:
        return list(_nodes_of_plan(device.plan))
    return list(_nodes_of_layers(net))


def _nodes_of_plan(plan: Plan) -> Iterator[Node]:
    parts = plan.parts
    homes: dict[str, list[str]] = {}
    for number, part in enumerate(parts, 1):
        scope = f"run_{number}/" if len(parts) > 1 else ""
        sources = tuple(homes.get(part.source, ()))
        inputs = f"{scope}{INPUT}"
        yield Node(inputs, "inputs", sources, {"units": str(part.circuit.inputs), "source": part.source})
        yield from _nodes_of_circuit(plan, part.circuit, scope, part.first)
        for population in part.circuit.populations:
            homes.setdefault(population.name, []).append(f"{scope}{population.name}")


def _nodes_of_circuit(plan: Plan, circuit: Circuit, scope: str, first: int) -> Iterator[Node]:
    scales = {item.projection.name: item.fixed_scale for item in plan.projections}
    for population in circuit.populations:
        incoming = [item for item in circuit.projections if item.post == population.name]
        for item in incoming:
            scale = scales.get(item.name)
            entries = {
                "synapses": f"{population.size} x {item.pre_size}",
                "signed inputs": str(len(set(item.places))),
                "integer weights": "largest just fits" if scale is None else f"{scale:.4g} per unit",
            }
            source = f"{scope}{item.pre}"
            # a graph of TensorBoard has no loops: a recurrent projection is a node with the population as an attribute
            is_recurrent = item.pre == population.name
            yield Node(
                f"{scope}{item.name.replace('->', '_to_')}",
                "projection",
                () if is_recurrent else (source,),
                {**entries, "from": item.pre},
            )
        yield Node(
            f"{scope}{population.name}",
            "readout" if population.threshold is None else "spiking population",
            tuple(f"{scope}{item.name.replace('->', '_to_')}" for item in incoming),
            {
                "neurons": str(population.size),
                "first neuron": str(first),
                "circuits per neuron": str(population.merged),
                "tau_mem": f"{population.tau_mem:.4g} s",
                "tau_syn": f"{population.tau_syn:.4g} s",
            },
        )


def _nodes_of_layers(net: Network) -> Iterator[Node]:
    yield Node(INPUT, "inputs", (), {"units": str(net.layers[0].linear.inputs)})
    previous = INPUT
    for number, layer in enumerate(net.layers):
        name = f"layer{number}"
        weights = f"{previous}_to_{name}"
        kind = "readout" if number == len(net.layers) - 1 and net.output_kind == "membranes" else "spiking population"
        yield Node(weights, "projection", (previous,), {"synapses": f"{layer.neurons.size} x {layer.linear.inputs}"})
        yield Node(name, kind, (weights,), {"neurons": str(layer.neurons.size)})
        previous = name
