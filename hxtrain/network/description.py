"""What a network is for a device: taken when it is attached, and compared in every pass.

Nothing else of a network reaches a device, but the values of its weights, which a pass sends. All that is left out,
such as surrogate derivatives, concerns the host, and takes effect whenever it is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .network import Layer, Network


class ProjectionDescription(NamedTuple):
    """A projection: shape of its weights `(targets, sources)`, and how they become integers; see `Synapses`."""

    name: str
    weight: tuple[int, ...]
    autoscale: bool
    scale: float | None
    max_scale: float


class LayerDescription(NamedTuple):
    """A population: number of neurons, whether they spike, time constants (s), and the projections onto it."""

    name: str
    size: int
    spiking: bool
    tau_mem: float
    tau_syn: float
    projections: tuple[ProjectionDescription, ...]


class Description(NamedTuple):
    """A network; attributes as those of `Network`."""

    steps: int
    dt: float
    weight_bits: int | None
    trace_bits: int | None
    traces: str
    layers: tuple[LayerDescription, ...]


def describe(net: Network) -> Description:
    """Return what a network is for a device."""
    layers = tuple([_describe_layer(layer) for layer in net.layers])
    return Description(net.steps, net.dt, net.weight_bits, net.trace_bits, net.traces, layers)


def _describe_layer(layer: Layer) -> LayerDescription:
    neurons = layer.neurons
    projections = tuple(
        [
            ProjectionDescription(p.name, tuple(s.weight.shape), s.autoscale, s.scale, s.max_scale)
            for p in layer.projections
            for s in (p.synapses,)
        ]
    )
    return LayerDescription(layer.name, neurons.size, neurons.spiking, neurons.tau_mem, neurons.tau_syn, projections)


def changes(before: Description, after: Description) -> str:
    """Return what differs, such as `steps 20 -> 10, layer0.tau_mem 6e-06 -> 3e-05`."""
    return ", ".join(_changes("", before, after))


def _changes(path: str, before: Any, after: Any) -> Iterator[str]:
    """Return the differences below a path, each with its own."""
    if before == after:
        return
    if isinstance(before, tuple) and hasattr(before, "_fields"):
        for name, old, new in zip(before._fields, before, after, strict=True):
            yield from _changes(f"{path}.{name}" if path else name, old, new)
    elif _listed(before) and _listed(after) and len(before) == len(after):
        for old, new in zip(before, after, strict=True):
            yield from _changes(old.name, old, new)
    elif _listed(before) or _listed(after):
        yield f"{path} {', '.join(x.name for x in before)} -> {', '.join(x.name for x in after)}"
    else:
        yield f"{path} {before} -> {after}"


def _listed(value: Any) -> bool:
    """Return whether a value is a list of layers or projections."""
    return isinstance(value, Sequence) and bool(value) and hasattr(value[0], "_fields")
