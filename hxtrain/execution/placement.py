"""Placement: check of a network against a device's limits, before anything runs.

`place` reports every misfit at once; `Plan` holds the configuration of the device, and converts float weights to
integers and trace codes to membranes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from itertools import groupby

import torch
from torch import Tensor

from hxtrain.backends import Capabilities, Circuit, Population, Projection, Record
from hxtrain.checks import not_finite, optional, real, require_kind, whole
from hxtrain.network import LateralInhibition, Layer, Network
from hxtrain.network.runner import PlacementError
from hxtrain.neurons import decay

from .partition import Part, partition, recurrent
from .resolution import Resolution

MAX_RUNS = 64
"""Largest number of runs per sample; above it, the size of a network is probably a mistake."""


PLAN_COLUMNS = ("what", "used", "limit")
"""Columns of a plan's rows."""


@dataclass(frozen=True)
class LayerPlan:
    """Realisation of one layer on the device.

    Attributes:
        population: population that the device is configured with.
        nominal_scale: integer weight per unit of float weight at which a measured post-synaptic
            potential is as large as the model's.
        automatic: whether the integer weights onto the layer are scaled so that the largest just fits.
    """

    population: Population
    nominal_scale: float
    automatic: bool


@dataclass(frozen=True)
class ProjectionPlan:
    """Realisation of one projection on the device.

    Attributes:
        projection: projection that the device is configured with.
        fixed_scale: integer weight per unit of float weight; None: chosen so that the largest weight onto the
            population just fits.
        max_scale: limit of the automatic scale.
    """

    projection: Projection
    fixed_scale: float | None
    max_scale: float

    def scale(self, largest: float, weight_max: int) -> float:
        """Return the scale for a population whose largest incoming float weight is `largest`."""
        if self.fixed_scale is not None:
            return self.fixed_scale
        return min(weight_max / largest, self.max_scale) if largest > 0 else self.max_scale


@dataclass(frozen=True, repr=False)
class Plan:
    """A network that fits a device, in one run or in several.

    The device runs `parts`: the whole circuit, or parts of it if the circuit is larger than the device.

    Weights, scales and limits are lists with one entry per projection, in the order of `projections`.

    Attributes:
        capabilities: capabilities of the device.
        circuit: whole network, as populations and projections.
        layers: realisation of each layer.
        projections: realisation of each projection.
        resolution: resolution of weights and traces in use.
    """

    capabilities: Capabilities
    circuit: Circuit
    layers: tuple[LayerPlan, ...]
    projections: tuple[ProjectionPlan, ...]
    resolution: Resolution = field(default_factory=Resolution)

    def __repr__(self) -> str:
        """Describe the plan in a line; `print` shows its table."""
        sizes = "-".join(str(population.size) for population in self.circuit.populations)
        runs = f"{len(self.parts)} run{'s' * (len(self.parts) > 1)}"
        return f"Plan({self.circuit.inputs}-{sizes}, {circuits(self.circuit)} neuron circuits, {runs} per sample)"

    def __str__(self) -> str:
        """Return the plan as a table."""
        rows = [PLAN_COLUMNS, *self.rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(PLAN_COLUMNS))]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    def _repr_html_(self) -> str:
        """Return the plan as a table of a notebook."""
        lines = [
            f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in row)}</tr>"
            for tag, rows in (("th", [PLAN_COLUMNS]), ("td", self.rows()))
            for row in rows
        ]
        return f"<table>{''.join(lines)}</table>"

    @property
    def trace_unit(self) -> float:
        """Trace codes between leak and threshold: the model's unit of membrane."""
        return self.capabilities.threshold - self.capabilities.leak

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Parts that run one after the other; a single part if the network fits."""
        return partition(self.circuit, self.capabilities)

    @property
    def trials_per_run(self) -> int | None:
        """Trials that one run of the device can record, in every part."""
        counts = [part.trials_per_run(self.capabilities) for part in self.parts]
        return min((trials for trials in counts if trials is not None), default=None)

    def quantise(self, weights: list[Tensor]) -> tuple[dict[str, Tensor], list[float]]:
        """Return integer weights by projection (rounded, clipped to the range) and their scales.

        Raises:
            ValueError: a weight is not finite.
        """
        limit = self.capabilities.weight_max
        largest: dict[str, float] = {}
        bounds = torch.stack([torch.stack(torch.aminmax(weight.detach())) for weight in weights]).tolist()
        for plan, (low, high) in zip(self.projections, bounds, strict=True):  # NaN if a weight is NaN
            post = plan.projection.post
            if not (math.isfinite(low) and math.isfinite(high)):
                raise not_finite(plan.projection.name)
            if plan.fixed_scale is None:
                largest[post] = max(largest.get(post, 0.0), -low, high)
        scales = [plan.scale(largest.get(plan.projection.post, 0.0), limit) for plan in self.projections]
        integers = {}
        for plan, weight, scale in zip(self.projections, weights, scales, strict=True):
            integers[plan.projection.name] = self.resolution.round_weights(weight.detach() * scale, self.capabilities)
        return integers, scales

    def as_sent(self, integers: dict[str, Tensor], scales: list[float]) -> dict[str, list[Tensor]]:
        """Return by layer the weights that integer weights represent, in the model's unit of membrane, float32.

        Each list holds feed-forward weights, then recurrent ones if any. With an automatic or the nominal
        scale these are the float weights, rounded and clipped. With another fixed scale they are the weights that the
        device's membranes show.
        """
        nominal = {layer.population.name: layer.nominal_scale for layer in self.layers}
        weights: dict[str, list[Tensor]] = {name: [] for name in nominal}
        for plan, scale in zip(self.projections, scales, strict=True):
            unit = scale if plan.fixed_scale is None else nominal[plan.projection.post]
            weights[plan.projection.post].append(integers[plan.projection.name].to(torch.float32) / unit)
        return weights

    def trace_units(self, scales: list[float]) -> list[float]:
        """Return per layer the model's unit of membrane in trace codes, for the scales of the projections."""
        incoming = {plan.projection.post: scale for plan, scale in zip(self.projections, scales, strict=True)}
        return [
            self.trace_unit * (incoming[layer.population.name] / layer.nominal_scale if layer.automatic else 1.0)
            for layer in self.layers
        ]

    def weight_limits(self) -> list[float | None]:
        """Return the largest float weight of each projection that is not clipped; None for an automatic scale."""
        limit = self.capabilities.weight_max
        return [None if plan.fixed_scale is None else limit / plan.fixed_scale for plan in self.projections]

    def rows(self) -> list[tuple[str, str, str]]:
        """Return the plan as rows (what, used, limit)."""
        caps = self.capabilities
        circuit = self.circuit
        rows = self._rows_of_parts()
        for population in circuit.populations:
            rows += self._rows_of(population)
        rows += self.resolution.rows(caps)
        per_run = self.trials_per_run
        trial_time = circuit.trial_time or caps.trial_time
        rows.append(("trace samples per trial", str(circuit.samples), str(caps.max_samples or "any")))
        rows.append(("trials per run (trace memory)", str(per_run or "any"), f"{caps.trace_memory or 'any'} bytes"))
        rows.append(("recorded window", f"{circuit.duration * 1e6:.4g} us", f"{trial_time * 1e6:.4g} us per trial"))
        return rows

    def _rows_of_parts(self) -> list[tuple[str, str, str]]:
        """Return the number of neuron circuits in use and, for several parts, their contents and durations."""
        caps = self.capabilities
        parts = self.parts
        used = str(circuits(self.circuit))
        if len(parts) == 1:
            return [("neuron circuits", used, str(caps.neuron_circuits))]
        trial_time = self.circuit.trial_time or caps.trial_time
        rows = [
            ("neuron circuits of all runs", used, f"{caps.neuron_circuits} per run"),
            ("runs per sample", str(len(parts)), ""),
            ("time per sample", f"{len(parts) * trial_time * 1e6:.4g} us", f"{trial_time * 1e6:.4g} us per run"),
        ]
        number = 1
        for circuit, alike in groupby(parts, key=lambda part: part.circuit):
            group = list(alike)
            label = f"run {number}" if len(group) == 1 else f"runs {number}-{number + len(group) - 1}"
            rows.append(
                (f"{label}: {self._content(group[0])}", f"{circuits(circuit)} circuits", str(caps.neuron_circuits))
            )
            number += len(group)
        return rows

    def _content(self, part: Part) -> str:
        """Return the populations of a part and its source, e.g. `layer0 (64 of 256) behind input`."""
        sizes = {population.name: population.size for population in self.circuit.populations}
        names = [
            p.name if p.size == sizes[p.name] else f"{p.name} ({p.size} of {sizes[p.name]})"
            for p in part.circuit.populations
        ]
        return f"{', '.join(names)} behind {part.source}"

    def _rows_of(self, p: Population) -> list[tuple[str, str, str]]:
        caps = self.capabilities
        plans = [plan for plan in self.projections if plan.projection.post == p.name]
        kind = "readout" if p.threshold is None else "spiking"
        inputs = " + ".join(str(plan.projection.pre_size) for plan in plans)
        rows = [
            (f"{p.name}: {p.size} {kind} neurons", f"{p.merged} circuits each", f"{caps.max_merged}"),
            (f"{p.name}: signed inputs", inputs, str(p.merged * caps.inputs_per_circuit)),
        ]
        for plan in plans:
            label = "recurrent weights" if plan.projection.pre == p.name else "integer weights"
            scale = "largest just fits" if plan.fixed_scale is None else f"{plan.fixed_scale:.4g} per unit"
            rows.append((f"{p.name}: {label}", scale, f"+-{caps.weight_max}"))
        return rows


def nominal_scale(layer: Layer, dt: float, capabilities: Capabilities) -> float:
    """Return the integer weight at which a chip's post-synaptic potential equals the model's for weight 1.

    The model's response `(beta^k - alpha^k) / (beta - alpha)` and the chip's `drive
    (exp(-t/tau_mem) - exp(-t/tau_syn)) / (1/tau_syn - 1/tau_mem)` have one shape at t = k dt.
    """
    mem, syn = layer.neurons.tau_mem, layer.neurons.tau_syn
    alpha, beta = decay(dt, syn), decay(dt, mem)
    equal = abs(mem / syn - 1) < 1e-6
    ratio = dt * beta if equal else (beta - alpha) / (1 / syn - 1 / mem)
    return (capabilities.threshold - capabilities.leak) / (capabilities.synaptic_drive * ratio)


def circuits(circuit: Circuit) -> int:
    """Return the number of neuron circuits that a circuit occupies."""
    return sum(p.size * p.merged for p in circuit.populations)


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
    misfits: list[str] = []
    layers: list[LayerPlan] = []
    projections: list[ProjectionPlan] = []
    for layer in net.layers:
        misfits += _layer_misfits(layer, caps)
        layers.append(_plan_layer(layer, net.dt, caps))
        projections += _plan_projections(layer, layers[-1].nominal_scale)
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
    misfits += _size_misfits(plan, max_runs)
    misfits += _inhibition_misfits(net, plan)
    misfits += _network_misfits(plan)
    misfits += resolution.misfits(caps)
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


def _fan_in(layer: Layer) -> int:
    return sum(projection.synapses.inputs for projection in layer.projections)


def _merged(layer: Layer, caps: Capabilities) -> int:
    return -(-_fan_in(layer) // caps.inputs_per_circuit)


def _plan_layer(layer: Layer, dt: float, caps: Capabilities) -> LayerPlan:
    neurons = layer.neurons
    population = Population(
        name=layer.name,
        size=neurons.size,
        merged=_merged(layer, caps),
        leak=caps.leak,
        threshold=caps.threshold if neurons.spiking else None,
        reset=caps.reset,
        tau_mem=neurons.tau_mem,
        tau_syn=neurons.tau_syn,
        refractory=caps.refractory,
    )
    return LayerPlan(population, nominal_scale(layer, dt, caps), layer.linear.autoscale)


def _plan_projections(layer: Layer, nominal: float) -> list[ProjectionPlan]:
    """Place the projections onto a layer one after another on its neurons' signed inputs."""
    plans = []
    first = 0
    for incoming in layer.projections:
        synapses = incoming.synapses
        fixed = nominal if synapses.scale is None else synapses.scale
        projection = Projection(incoming.name, incoming.pre, incoming.post, synapses.inputs, first)
        plans.append(ProjectionPlan(projection, None if synapses.autoscale else fixed, synapses.max_scale))
        first += synapses.inputs
    return plans


def _layer_misfits(layer: Layer, caps: Capabilities) -> list[str]:
    misfits = []
    fan_in = _fan_in(layer)
    limit = caps.max_merged * caps.inputs_per_circuit
    if fan_in > limit:
        split = "" if layer.recurrent is None else f" ({layer.linear.inputs} and {layer.recurrent.inputs} recurrent)"
        remedy = (
            "the inputs (for images: a smaller `size` of the data)" if layer.recurrent is None else "inputs or neurons"
        )
        misfits.append(
            f"{layer.name}: fan-in {fan_in}{split} exceeds {limit} signed inputs per neuron "
            f"by {fan_in - limit}; reduce {remedy}"
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


def _inhibition_misfits(net: Network, plan: Plan) -> list[str]:
    """Return the lateral inhibitions that the device would clip; no training changes their weights."""
    misfits = []
    for projection, limit in zip(net.projections, plan.weight_limits(), strict=True):
        synapses = projection.synapses
        if isinstance(synapses, LateralInhibition) and limit is not None and synapses.strength > limit * (1 + 1e-6):
            misfits.append(
                f"{projection.post}: LateralInhibition of strength {synapses.strength:.4g} exceeds the largest weight "
                f"{limit:.4g} by {synapses.strength - limit:.4g}; use a strength (network.inhibition) of at most "
                f"{math.floor(limit * 1000) / 1000:g}, or a smaller scale (network.scale)"
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
                "neurons, or fewer inputs"
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
        neurons = max(sum(p.size for p in part.circuit.populations) for part in plan.parts)
        misfits.append(
            f"network: one trial of {circuit.samples} samples of {neurons} neurons does not fit "
            f"{caps.trace_memory} bytes of trace memory; use fewer steps"
        )
    return misfits if caps.traces else misfits + _trace_misfits(circuit)


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
