"""Misfits: where a network exceeds a device's limits, by how much, and the remedy."""

from __future__ import annotations

import math

from hxtrain.backends import Capabilities, Circuit, Population
from hxtrain.network import LateralInhibition, Layer, Network

from .partition import recurrent
from .plan import Plan, circuits, fan_in


def placement_misfits(net: Network, plan: Plan, max_runs: int) -> list[str]:
    """Return a text for each misfit of a network and a device: layer, limit, excess and remedy.

    Args:
        net: Network that was planned.
        plan: Plan of the network, whether it fits or not.
        max_runs: Largest number of runs per sample.
    """
    return [
        *(
            text
            for layer, placed in zip(net.layers, plan.layers, strict=True)
            for text in _layer_misfits(layer, placed.population.merged, plan.capabilities)
        ),
        *_size_misfits(plan, max_runs),
        *_inhibition_misfits(net, plan),
        *_network_misfits(plan),
        *plan.resolution.misfits(plan.capabilities),
    ]


def _layer_misfits(layer: Layer, merged: int, caps: Capabilities) -> list[str]:
    misfits = []
    inputs = fan_in(layer)
    limit = caps.max_merged * caps.inputs_per_circuit
    if merged > caps.max_merged:
        split = "" if layer.recurrent is None else f" ({layer.linear.inputs} and {layer.recurrent.inputs} recurrent)"
        remedy = (
            "the inputs (for images: a smaller `size` of the data)" if layer.recurrent is None else "inputs or neurons"
        )
        misfits.append(
            f"{layer.name}: fan-in {inputs}{split} exceeds {limit} signed inputs per neuron "
            f"by {inputs - limit}; reduce {remedy}{_mask_remedy(caps)}"
        )
    if layer.recurrent is not None and not caps.recurrence:
        inhibits = isinstance(layer.recurrent, LateralInhibition)
        setting = "inhibition=0" if inhibits else "recurrent=false"
        misfits.append(
            f"{layer.name}: its neurons project onto themselves, which the device cannot do; "
            f"set {setting}, or use a device with recurrence"
        )
    low, high = caps.tau_range
    for name in ("tau_mem", "tau_syn"):
        tau = getattr(layer.neurons, name)
        if not low <= tau <= high:
            misfits.append(
                f"{layer.name}: {name}={tau:.3g} s is outside {low:.3g}..{high:.3g} s; "
                f"choose a value in this range (biological constants are divided by {caps.speedup:g})"
            )
    return misfits


def _mask_remedy(caps: Capabilities) -> str:
    """Return the text that recommends a mask, on a device whose signed inputs can be shared."""
    inputs = caps.inputs_per_circuit
    return f", or set a mask with mask.rows={inputs} and mask.fan_in={inputs}" if caps.sources_per_input > 1 else ""


def _inhibition_misfits(net: Network, plan: Plan) -> list[str]:
    """Return the lateral inhibitions that the device would clip; no training changes their weights."""
    misfits = []
    for projection, limit in zip(net.projections, plan.weight_limits(), strict=True):
        synapses = projection.synapses
        if isinstance(synapses, LateralInhibition) and limit is not None and synapses.strength > limit * (1 + 1e-6):
            misfits.append(
                f"{projection.post}: LateralInhibition of strength {synapses.strength:.4g} exceeds the largest weight "
                f"{limit:.4g} by {synapses.strength - limit:.4g}; use a strength (`inhibition` of "
                f"NetworkConfig) of at most {math.floor(limit * 1000) / 1000:g}, or a smaller `scale`"
            )
    return misfits


def _size_misfits(plan: Plan, max_runs: int) -> list[str]:
    """Return the neurons and recurrent populations that no run can hold; if all fit, an excess of runs."""
    circuit = plan.circuit
    caps = plan.capabilities
    misfits = []
    for p in circuit.populations:
        if p.merged > caps.neuron_circuits:
            misfits.append(
                f"{p.name}: one neuron needs {p.merged} merged neuron circuits, {p.merged - caps.neuron_circuits} more "
                f"than there are; use at most {caps.neuron_circuits * caps.inputs_per_circuit} inputs"
            )
        elif recurrent(p, circuit) and p.size * p.merged > caps.neuron_circuits:
            misfits.append(
                f"{p.name}: {p.size} neurons that project onto themselves need {p.size * p.merged} neuron circuits "
                f"({p.merged} each) in one run, {p.size * p.merged - caps.neuron_circuits} more than there are; such a "
                f"population cannot be split over several runs; use at most {_largest_recurrent(p, circuit, caps)} "
                f"neurons, or fewer inputs{_mask_remedy(caps)}"
            )
    return misfits or _run_misfits(plan, max_runs)


def _largest_recurrent(population: Population, circuit: Circuit, caps: Capabilities) -> int:
    """Return the largest size of a recurrent population that fits one run with the same inputs."""
    outside = sum(p.pre_size for p in circuit.projections if p.post == population.name != p.pre)
    sizes = range(population.size, 0, -1)
    return next((n for n in sizes if n * -(-(outside + n) // caps.inputs_per_circuit) <= caps.neuron_circuits), 0)


def _run_misfits(plan: Plan, max_runs: int) -> list[str]:
    caps = plan.capabilities
    circuit = plan.circuit
    runs = len(plan.parts)
    if runs <= max_runs:
        return []
    used = circuits(circuit)
    neurons = sum(p.size for p in circuit.populations)
    shares = ", ".join(f"{p.name} {p.size} x {p.merged}" for p in circuit.populations)
    excess = (
        f"{used} neuron circuits ({shares}) exceed {caps.neuron_circuits} by {used - caps.neuron_circuits}"
        if used > caps.neuron_circuits
        else f"one trial of {circuit.samples} samples of {neurons} neurons exceeds {caps.trace_memory} bytes of memory"
    )
    return [
        f"network: {excess}, which takes {runs} runs per sample; max_runs={max_runs}; use fewer neurons, at "
        f"most {caps.inputs_per_circuit} inputs per merged circuit, or set max_runs={runs}"
    ]


def _network_misfits(plan: Plan) -> list[str]:
    circuit = plan.circuit
    caps = plan.capabilities
    misfits = []
    step = circuit.dt
    if abs(step / caps.trace_interval - 1) > 0.01:
        step = caps.trace_interval  # the other checks assume the correct interval
        misfits.append(
            f"network: dt={circuit.dt:.4g} s differs from the trace interval {caps.trace_interval:.4g} s; "
            f"set dt={caps.trace_interval:.4g}"
        )
    if caps.max_samples is not None and circuit.samples > caps.max_samples:
        misfits.append(
            f"network: {circuit.samples} trace samples per trial exceed {caps.max_samples} by "
            f"{circuit.samples - caps.max_samples}; set steps={caps.max_samples}"
        )
    trial_time = circuit.trial_time or caps.trial_time
    if circuit.samples * step > trial_time * (1 + 1e-9):
        steps = int(trial_time / step)
        shorter = f"steps={steps} or less, or " if steps else ""
        misfits.append(
            f"network: a trial of {circuit.samples * step:.4g} s is longer than the {trial_time:.4g} s from trial "
            f"to trial; set {shorter}trial_time={circuit.samples * step:.4g} or more"
        )
    if circuit.forced_reset and not caps.forced_reset:
        misfits.append("network: the device cannot reset membranes between trials; set forced_reset=false")
    if circuit.forced_reset and circuit.trial_time is None:
        misfits.append("network: a forced reset needs trials that follow closely; set `trial_time` (s)")
    if plan.trials_per_run == 0:
        misfits.append(_memory_misfit(plan))
    return misfits if caps.traces else misfits + _trace_misfits(circuit)


def _memory_misfit(plan: Plan) -> str:
    """Return the text on a trial whose trace samples exceed the memory of a run; some part cannot be divided."""
    caps = plan.capabilities
    steps = plan.circuit.samples
    memory = caps.trace_memory or 0
    stored = max(caps.trace_channels or caps.stored(part.circuit) for part in plan.parts)
    hidden = sum(p.size for p in plan.circuit.traced if p.threshold is not None)
    remedies = []
    if memory >= stored:
        remedies.append(f"set steps={memory // stored} or less")
    if caps.trace_channels is None and caps.selective and hidden:
        remedies.append("set traces=spikes_only, so that membranes of the output alone are recorded")
    remedies.append("end in a spiking population with traces=spikes_only, so that no membranes are recorded")
    remedies.append(
        f"use a device with {steps * stored} bytes for the traces of a run, such as the emulated chip "
        f"with backend.settings.trace_memory={steps * stored}"
    )
    return (
        f"network: one trial of {steps} samples of {stored} neurons does not fit {memory} bytes of trace memory "
        f"(trace_memory); {', or '.join(remedies)}"
    )


def _trace_misfits(circuit: Circuit) -> list[str]:
    """Return the populations whose membranes the host reads, for a device that records none."""
    hidden = [p.name for p in circuit.traced if p.threshold is not None]
    readouts = [p.name for p in circuit.traced if p.threshold is None]
    misfits = []
    if hidden:
        misfits.append(
            f"{', '.join(hidden)}: the gradient reads the membranes of spiking neurons, and the device records none; "
            "set traces=spikes_only (membranes are then modelled from the measured spikes), or use a device "
            "that records membranes"
        )
    if readouts:
        misfits.append(
            f"{', '.join(readouts)}: the answer of a readout LI is its membrane, and the device records none; end the "
            "network in a spiking population, use a device that records membranes, or train in software "
            "(backend=software)"
        )
    return misfits
