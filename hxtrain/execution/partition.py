"""Partition: a circuit that is larger than the device, as parts that share the device in turn.

Every part is a separate circuit. Its external inputs are the input events, or the spikes measured of a population in
an earlier part. Two rules apply, in the order of the populations:

- populations that fit together share a part; within the part, spikes travel on the chip as usual;
- a population that does not fit alone is split into slices of (almost) equal size, one part each.

No other division into such parts has fewer of them. Slices of equal size are the same circuit with different weights:
they use the same physical neurons, and the device is not configured again between them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hxtrain.backends import (
    INPUT,
    Capabilities,
    Circuit,
    Health,
    Population,
    Projection,
    Record,
    Recording,
    Spikes,
    total,
)


@dataclass(frozen=True)
class Part:
    """The part of a circuit that one run of the device holds.

    Attributes:
        circuit: whole populations, or a slice of one; its external inputs are the spikes of `source`.
        source: name of a population in an earlier part, or `INPUT`.
        first: index in the whole population of the slice's first neuron; 0 for whole populations.
    """

    circuit: Circuit
    source: str
    first: int = 0

    def weights(self, whole: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return this part's rows of the weights `[post, pre]` of all projections."""
        sizes = {population.name: population.size for population in self.circuit.populations}
        weights = {}
        for projection in self.circuit.projections:
            matrix = whole[projection.name]
            rows = sizes[projection.post]
            weights[projection.name] = matrix if rows == len(matrix) else matrix[self.first : self.first + rows]
        return weights

    def trials_per_run(self, capabilities: Capabilities) -> int | None:
        """Return the number of trials that one run can record; None for any number."""
        return capabilities.trials_per_run(self.circuit.samples, capabilities.stored(self.circuit))


def partition(circuit: Circuit, capabilities: Capabilities) -> tuple[Part, ...]:
    """Return the parts of a circuit in the order in which they run; a single one if the whole circuit fits.

    Every neuron must fit the device. Populations that project onto themselves are not split. Populations of which
    nothing is requested, nor of any that they drive, are left out.
    """
    groups: list[list[Population]] = []
    for population in circuit.populations:
        if groups and _fit([*groups[-1], population], circuit, capabilities):
            groups[-1].append(population)
        else:
            groups.append([population])
    if len(groups) == 1 and _fit(groups[0], circuit, capabilities):
        return (Part(circuit, INPUT),)
    groups = _read_groups(groups, circuit)
    names = {population.name for group in groups for population in group}
    read = replace(circuit, projections=tuple(p for p in circuit.projections if p.post in names))
    return tuple(part for group in groups for part in _parts(group, read, capabilities))


def _read_groups(groups: list[list[Population]], circuit: Circuit) -> list[list[Population]]:
    """Return the groups that must run: what is requested of them, or of a group that they drive, see `Circuit.record`.

    All groups are returned if nothing is requested, which devices refuse.
    """
    requested = {p.name for p in (*circuit.spiking, *circuit.traced)}
    read: list[list[Population]] = []
    for group in reversed(groups):
        names = {population.name for population in group}
        if names & requested:
            read.insert(0, group)
            requested |= {p.pre for p in circuit.projections if p.post in names}
    return read or groups


def recurrent(population: Population, circuit: Circuit) -> bool:
    """Return whether a population projects onto itself."""
    return any(p.pre == p.post == population.name for p in circuit.projections)


def replayed(spikes: Spikes, duration: float) -> Spikes:
    """Return measured spikes as events for a later part, at their times, if these are below `duration` (s)."""
    inside = spikes.time < duration
    return replace(spikes, sample=spikes.sample[inside], unit=spikes.unit[inside], time=spikes.time[inside])


def spikes_of(population: str, recordings: Sequence[tuple[Part, Recording]]) -> Spikes:
    """Return the spikes of a population, from the recordings of all parts with neurons of it."""
    slices = [
        (part.first, recording.spikes[population]) for part, recording in recordings if population in recording.spikes
    ]
    if len(slices) == 1:
        return slices[0][1]
    units = sum(spikes.units for _, spikes in slices)
    sample, time = (torch.cat([getattr(spikes, name) for _, spikes in slices]) for name in ("sample", "time"))
    unit = torch.cat([spikes.unit + first for first, spikes in slices])
    return Spikes.from_events(sample, unit, time, slices[0][1].samples, units)


def merge(circuit: Circuit, recordings: Sequence[tuple[Part, Recording]]) -> Recording:
    """Return one recording of a circuit from complete recordings of all its parts, of the same trials."""
    traces = {
        p.name: [recording.traces[p.name] for _, recording in recordings if p.name in recording.traces]
        for p in circuit.traced
    }
    return Recording(
        spikes={p.name: spikes_of(p.name, recordings) for p in circuit.spiking},
        traces={name: torch.cat(codes, dim=2) for name, codes in traces.items()},
        cost=total([recording.cost for _, recording in recordings]),
        health=sum((recording.health for _, recording in recordings), Health()),
    )


def _fit(group: Sequence[Population], circuit: Circuit, caps: Capabilities) -> bool:
    """Return whether populations fit the neuron circuits, and their traces of one trial the trace memory."""
    used = sum(p.size * p.merged for p in group)
    stored = caps.stored(replace(circuit, populations=tuple(group)))
    return used <= caps.neuron_circuits and caps.trials_per_run(circuit.samples, stored) != 0


def _parts(group: list[Population], circuit: Circuit, caps: Capabilities) -> list[Part]:
    """Return the part that several populations share, or the parts of a single population."""
    population = group[0]
    if len(group) > 1 or _fit(group, circuit, caps) or recurrent(population, circuit):
        return [_part(group, circuit)]
    count = -(-population.size // _room(population, circuit, caps))
    small, larger = divmod(population.size, count)
    parts = []
    first = 0
    for index in range(count):
        size = small + (index < larger)
        parts.append(_part([replace(population, size=size)], circuit, first))
        first += size
    return parts


def _room(population: Population, circuit: Circuit, caps: Capabilities) -> int:
    """Return the number of a population's neurons that one part can hold, at least one."""
    room = caps.neuron_circuits // population.merged
    if caps.trace_channels is None and caps.stored(replace(circuit, populations=(population,))):
        recorded = caps.trials_per_run(circuit.samples, 1)
        room = room if recorded is None else min(room, recorded)
    return max(room, 1)


def _part(group: Sequence[Population], circuit: Circuit, first: int = 0) -> Part:
    """Cut populations out of a circuit; their upstream source becomes the external input."""
    inside = {population.name for population in group}
    onto = [projection for projection in circuit.projections if projection.post in inside]
    source = next(projection for projection in onto if projection.pre not in inside)
    projections = tuple(p if p.pre in inside else _external(p) for p in onto)
    cut = replace(
        circuit,
        inputs=source.pre_size,
        populations=tuple(group),
        projections=projections,
        record=_record(inside, circuit),
    )
    return Part(cut, source.pre, first)


def _record(inside: Collection[str], circuit: Circuit) -> Record:
    """Return what a part with some populations records: what is requested of them, and the spikes of later inputs."""
    spikes, traces = circuit.record.spikes, circuit.record.traces
    sources = {p.pre for p in circuit.projections if p.pre in inside and p.post not in inside}
    names = [p.name for p in circuit.populations if p.name in inside]
    return Record(
        None if spikes is None else tuple(name for name in names if name in spikes or name in sources),
        None if traces is None else tuple(name for name in names if name in traces),
    )


def _external(projection: Projection) -> Projection:
    return replace(projection, pre=INPUT)
