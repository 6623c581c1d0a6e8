"""Description of a network for a device: made when the network is attached, and compared in every pass.

Besides the description, only the values of the weights reach a device; a pass sends them. Everything else, such as
surrogate derivatives, concerns the host, and a change of it takes effect at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .layers import LIF, Layer


class ProjectionDescription(NamedTuple):
    """A projection: shape of its weights `(targets, sources)`, and their scale to integers; see `Synapses`."""

    name: str
    weight: tuple[int, ...]
    autoscale: bool
    scale: float | None
    max_scale: float


class LayerDescription(NamedTuple):
    """A population: number of neurons, whether they spike, times (s), and the projections onto it.

    `refractory` is None for a readout, and where the device's refractory period is used.
    """

    name: str
    size: int
    spiking: bool
    tau_mem: float
    tau_syn: float
    refractory: float | None
    projections: tuple[ProjectionDescription, ...]


class Description(NamedTuple):
    """A network; the attributes are those of `Network`."""

    steps: int
    dt: float
    weight_bits: int | None
    trace_bits: int | None
    traces: str
    layers: tuple[LayerDescription, ...]


def describe(
    layers: Sequence[Layer],
    steps: int,
    dt: float,
    weight_bits: int | None,
    trace_bits: int | None,
    traces: str,
) -> Description:
    """Return the description of a network for a device; arguments as the attributes of `Network`."""
    return Description(steps, dt, weight_bits, trace_bits, traces, tuple([_describe_layer(layer) for layer in layers]))


def _describe_layer(layer: Layer) -> LayerDescription:
    neurons = layer.neurons
    projections = tuple(
        [
            ProjectionDescription(p.name, tuple(s.weight.shape), s.autoscale, s.scale, s.max_scale)
            for p in layer.projections
            for s in (p.synapses,)
        ]
    )
    times = (neurons.tau_mem, neurons.tau_syn, neurons.refractory if isinstance(neurons, LIF) else None)
    return LayerDescription(layer.name, neurons.size, neurons.spiking, *times, projections)


def changes(previous: Description, current: Description) -> str:
    """Return the differences, such as `steps 20 -> 10, layer0.tau_mem 6e-06 -> 3e-05`."""
    return ", ".join(_changes("", previous, current))


def _changes(path: str, previous: Any, current: Any) -> Iterator[str]:
    """Return the differences below a path, each with its full path."""
    if previous == current:
        return
    if isinstance(previous, tuple) and hasattr(previous, "_fields"):
        for name, old, new in zip(previous._fields, previous, current, strict=True):
            yield from _changes(f"{path}.{name}" if path else name, old, new)
    elif _is_list(previous) and _is_list(current) and len(previous) == len(current):
        for old, new in zip(previous, current, strict=True):
            yield from _changes(old.name, old, new)
    elif _is_list(previous) or _is_list(current):
        yield f"{path} {', '.join(x.name for x in previous)} -> {', '.join(x.name for x in current)}"
    else:
        yield f"{path} {previous} -> {current}"


def _is_list(value: Any) -> bool:
    """Return whether a value is a list of layers or projections."""
    return isinstance(value, Sequence) and bool(value) and hasattr(value[0], "_fields")
