"""Placement: a network on a device, checked against the device's limits before anything runs.

`place` reports every misfit at once.
"""

from __future__ import annotations

from hxtrain.backends import Capabilities, Circuit, Population, Projection, Record
from hxtrain.checks import optional, real, require_kind, whole
from hxtrain.network import LIF, Layer, Network
from hxtrain.network.runner import PlacementError

from .misfits import placement_misfits
from .packing import Packing, pack
from .plan import LayerPlan, Plan, ProjectionPlan, nominal_scale
from .resolution import Resolution

MAX_RUNS = 64
"""Largest number of runs per sample; above it, the size of a network is probably a mistake."""


def place(
    net: Network,
    capabilities: Capabilities,
    trial_time: float | None = None,
    forced_reset: bool = False,
    max_runs: int = MAX_RUNS,
) -> Plan:
    """Plan a network for a device; a network that is larger than the device is divided into several runs.

    Args:
        net: network to place.
        capabilities: capabilities of the device.
        trial_time: time from trial to trial (s) if trials may affect each other; None: trials are far apart.
        forced_reset: whether the device is reset between trials.
        max_runs: largest number of runs per sample.

    Raises:
        PlacementError: the network does not fit; the text gives layer, limit, excess and remedy of every misfit.
        TypeError: an argument is not a network, or not capabilities.
    """
    _check_kinds(net, capabilities)
    max_runs = whole("max_runs", max_runs)
    trial_time = optional(real)("trial_time", trial_time)
    caps = capabilities
    packings = [pack(layer, caps) for layer in net.layers]
    layers = [_plan_layer(layer, packing, net.dt, caps) for layer, packing in zip(net.layers, packings, strict=True)]
    projections = [
        projection
        for layer, packing, plan in zip(net.layers, packings, layers, strict=True)
        for projection in _plan_projections(layer, packing, plan.nominal_scale)
    ]
    circuit = Circuit(
        inputs=net.layers[0].linear.inputs,
        populations=tuple(plan.population for plan in layers),
        projections=tuple(plan.projection for plan in projections),
        samples=net.steps,
        dt=net.dt,
        trial_time=trial_time,
        forced_reset=forced_reset,
        record=_record(net),
    )
    resolution = Resolution(net.weight_bits, net.trace_bits, net.hidden_traces == "spikes_only")
    plan = Plan(caps, circuit, tuple(layers), tuple(projections), resolution)
    misfits = placement_misfits(net, plan, max_runs)
    if misfits:
        lines = "\n".join(f"  {i}. {text}" for i, text in enumerate(misfits, 1))
        raise PlacementError(f"the network does not fit the device {caps.name!r}:\n{lines}")
    return plan


def _check_kinds(net: Network, capabilities: Capabilities) -> None:
    require_kind(net, Network, "net", "place(net, backend.capabilities)")
    require_kind(capabilities, Capabilities, "capabilities", "give those of a device: place(net, backend.capabilities)")


def _record(net: Network) -> Record:
    """Return what the host reads of a recording: all spikes, and the membranes that gradients or the readout need."""
    if net.hidden_traces != "spikes_only":
        return Record()
    return Record(traces=tuple(layer.name for layer in net.layers if not layer.neurons.spiking))


def _plan_layer(layer: Layer, packing: Packing, dt: float, caps: Capabilities) -> LayerPlan:
    neurons = layer.neurons
    refractory = neurons.refractory if isinstance(neurons, LIF) else None
    population = Population(
        name=layer.name,
        size=neurons.size,
        merged=packing.merged,
        leak=caps.leak,
        threshold=caps.threshold if neurons.spiking else None,
        reset=caps.reset,
        tau_mem=neurons.tau_mem,
        tau_syn=neurons.tau_syn,
        refractory=caps.refractory if refractory is None else refractory,
    )
    return LayerPlan(
        population,
        nominal_scale(layer, dt, caps),
        layer.linear.autoscale,
        packing.sources_per_circuit,
        refractory is not None,
    )


def _plan_projections(layer: Layer, packing: Packing, nominal: float) -> list[ProjectionPlan]:
    """Place the projections onto a layer one after another on its neurons' signed inputs."""
    plans = []
    first = 0
    for incoming in layer.projections:
        synapses = incoming.synapses
        fixed = nominal if synapses.scale is None else synapses.scale
        end = first + synapses.inputs
        shared = None if packing.places is None else packing.places[first:end]
        projection = Projection(
            incoming.name, incoming.pre, incoming.post, synapses.inputs, first if shared is None else 0, shared
        )
        plans.append(ProjectionPlan(projection, None if synapses.autoscale else fixed, synapses.max_scale, first))
        first = end
    return plans
