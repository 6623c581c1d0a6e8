"""Plan: a network that fits a device, with the conversion of weights to integers and of trace codes to membranes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor

from hxtrain.backends import Capabilities, Circuit, Population, Projection
from hxtrain.checks import not_finite
from hxtrain.console import html_table
from hxtrain.network import Layer
from hxtrain.neurons import decay

from .partition import Part, partition
from .resolution import Resolution

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
        sources_per_circuit: number of consecutive sources of a neuron, over all projections, at each of its circuits.
        is_held: whether modelled membranes are held for the refractory period; the network asks for it by naming one.
    """

    population: Population
    nominal_scale: float
    automatic: bool
    sources_per_circuit: int
    is_held: bool = False


@dataclass(frozen=True)
class ProjectionPlan:
    """Realisation of one projection on the device.

    Attributes:
        projection: projection that the device is configured with.
        fixed_scale: integer weight per unit of float weight; None: chosen so that the largest weight onto the
            population just fits.
        max_scale: limit of the automatic scale.
        first_source: number of sources of the population in projections that precede this one.
    """

    projection: Projection
    fixed_scale: float | None
    max_scale: float
    first_source: int = 0

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
        return html_table(PLAN_COLUMNS, self.rows())

    @property
    def trace_unit(self) -> float:
        """Trace codes between leak and threshold: the model's unit of membrane."""
        return self.capabilities.threshold - self.capabilities.leak

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Parts that run one after the other; a single part if the network fits."""
        return partition(self.circuit, self.capabilities)

    @property
    def held(self) -> frozenset[str]:
        """Populations whose modelled membranes are held for the refractory period."""
        return frozenset(layer.population.name for layer in self.layers if layer.is_held)

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
            (f"{p.name}: signed inputs", inputs + _sharing(plans), str(p.merged * caps.inputs_per_circuit)),
        ]
        for plan in plans:
            label = "recurrent weights" if plan.projection.pre == p.name else "integer weights"
            scale = "largest just fits" if plan.fixed_scale is None else f"{plan.fixed_scale:.4g} per unit"
            rows.append((f"{p.name}: {label}", scale, f"+-{caps.weight_max}"))
        return rows


def _sharing(plans: list[ProjectionPlan]) -> str:
    """Return a text on the signed inputs that sources share; an empty one if they do not."""
    if all(plan.projection.signed_inputs is None for plan in plans):
        return ""
    return f" on {len({place for plan in plans for place in plan.projection.places})}"


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


def fan_in(layer: Layer) -> int:
    """Return the number of signed inputs of each neuron of a layer."""
    return sum(projection.synapses.inputs for projection in layer.projections)
