"""Checks, the same for every device: of a circuit against its limits, of the arguments of a run, of a recording."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from .capabilities import INTEGERS, Capabilities
from .circuit import INPUT, Circuit, Population, Projection
from .ranges import DURATION, FINITE, Range, misfits
from .recording import Cost, DeviceError, Health, Recording, Stimulus
from .spikes import Spikes

TYPES = {"sample": INTEGERS, "unit": INTEGERS, "time": (torch.float32, torch.float64)}
"""Types that the host accepts for the parts of an event."""


def check_circuit(circuit: Circuit, capabilities: Capabilities) -> None:
    """Check a circuit against the device's limits; backends call it first in `configure`.

    Raises:
        ValueError: The circuit does not fit; the text lists every violation.
    """
    caps = capabilities
    sizes = {p.name: p.size for p in circuit.populations}
    problems = misfits(circuit, _CIRCUIT, "circuit.")
    for population in circuit.populations:
        problems += misfits(population, _POPULATION, f"population {population.name}: ")
    for projection in circuit.projections:
        problems += misfits(projection, _PROJECTION, f"projection {projection.name}: ")
    if problems:
        raise ValueError(f"the circuit does not fit the device {caps.name!r}: {'; '.join(problems)}")
    problems = [text for p in circuit.populations for text in _population_misfits(p, caps)]
    if len(sizes) < len(circuit.populations) or INPUT in sizes:
        problems.append(f"populations need different names, none of them {INPUT!r}, got {[*sizes]}")
    used = sum(p.size * p.merged for p in circuit.populations)
    if used > caps.neuron_circuits:
        problems.append(f"populations need {used} neuron circuits, the device has {caps.neuron_circuits}")
    for projection in circuit.projections:
        problems += _projection_misfits(projection, circuit, caps)
    projections = [projection.name for projection in circuit.projections]
    if len({*projections}) < len(projections):
        problems.append(f"projections need different names, got {projections}")
    if not abs(circuit.dt / caps.trace_interval - 1) <= 0.01:
        problems.append(f"circuit.dt={circuit.dt:.4g} s differs from the trace interval {caps.trace_interval:.4g} s")
    if not 1 <= circuit.samples <= (caps.max_samples or circuit.samples):
        problems.append(f"circuit.samples={circuit.samples} is outside 1..{caps.max_samples or 'any'}")
    if circuit.trial_time is not None and not circuit.trial_time >= circuit.duration:
        problems.append(
            f"circuit.trial_time={circuit.trial_time} s is shorter than the {circuit.duration:.3g} s that are "
            "recorded; record fewer samples"
        )
    if circuit.forced_reset and not caps.forced_reset:
        problems.append("circuit.forced_reset: the device cannot reset membranes between trials")
    problems += _record_misfits(circuit, caps)
    if problems:
        raise ValueError(f"the circuit does not fit the device {caps.name!r}: {'; '.join(problems)}")


_CIRCUIT = {
    "inputs": Range(0, whole=True),
    "samples": Range(whole=True),
    "dt": DURATION,
    "trial_time": Range(0, above=True, optional=True, unit="s"),
}
_POPULATION = {
    **dict.fromkeys(("size", "merged"), Range(whole=True)),
    **dict.fromkeys(("leak", "reset"), FINITE),
    "threshold": Range(optional=True),
    **dict.fromkeys(("tau_mem", "tau_syn"), DURATION),
    "refractory": Range(0, unit="s"),
}
_PROJECTION = {"pre_size": Range(whole=True), "first_input": Range(whole=True)}
"""Ranges of the fields of a circuit on any device; the limits of the device apply in addition."""


def _population_misfits(p: Population, caps: Capabilities) -> list[str]:
    problems = []
    if p.size < 1:
        problems.append(f"population {p.name} has {p.size} neurons")
    if not 1 <= p.merged <= caps.max_merged:
        problems.append(f"population {p.name} merges {p.merged} circuits, the device 1..{caps.max_merged}")
    return problems


def _projection_misfits(projection: Projection, circuit: Circuit, caps: Capabilities) -> list[str]:
    name = projection.name
    populations = {p.name: p for p in circuit.populations}
    missing = {projection.pre, projection.post} - {*populations, INPUT} | {projection.post} - set(populations)
    if missing:
        return [f"projection {name}: there is no population {', '.join(map(repr, sorted(missing)))}"]
    problems = []
    sources = circuit.inputs if projection.pre == INPUT else populations[projection.pre].size
    if projection.pre_size != sources:
        problems.append(f"projection {name} has {projection.pre_size} sources, {projection.pre} has {sources} units")
    rows = populations[projection.post].merged * caps.inputs_per_circuit
    if projection.signed_inputs is not None:
        return problems + _sharing_misfits(projection, sources, rows, circuit, caps)
    end = projection.first_input + sources
    if projection.first_input < 0 or end > rows:
        problems.append(
            f"projection {name} uses signed inputs {projection.first_input}..{end - 1} of {projection.post}, whose "
            f"neurons have {rows} each; merge more circuits per neuron"
        )
    if projection.pre == projection.post and not caps.recurrence:
        problems.append(f"projection {name}: the device has no recurrence, {projection.pre} cannot project onto itself")
    return problems


def _sharing_misfits(
    projection: Projection, sources: int, rows: int, circuit: Circuit, caps: Capabilities
) -> list[str]:
    """Return what is wrong with the signed inputs of a projection, one for each source.

    Args:
        projection: Projection.
        sources: Number of its sources.
        rows: Signed inputs of a target neuron.
        circuit: Circuit of the projection.
        caps: Capabilities of the device.
    """
    name = f"projection {projection.name}"
    places = projection.places
    if not isinstance(places, tuple) or len(places) != sources or any(type(place) is not int for place in places):
        return [f"{name}: signed_inputs must be a tuple of {sources} whole numbers, one for each source"]
    if not all(0 <= place < rows for place in places):
        return [
            f"{name} uses signed inputs {min(places)}..{max(places)} of {projection.post}, whose neurons have {rows} "
            "each; merge more circuits per neuron"
        ]
    onto = [competitor for competitor in circuit.projections if competitor.post == projection.post]
    shares = Counter(place for competitor in onto for place in competitor.places)
    ((place, n_sources),) = shares.most_common(1)
    if n_sources > caps.sources_per_input:
        return [
            f"{name}: {n_sources} sources use signed input {place} of {projection.post}, the device takes "
            f"{caps.sources_per_input}; give each its own, or merge more circuits per neuron"
        ]
    return []


def _record_misfits(circuit: Circuit, caps: Capabilities) -> list[str]:
    record = circuit.record
    problems = []
    spiking = {p.name for p in circuit.populations if p.threshold is not None}
    for name, names, available, remedy in (
        ("spikes", record.spikes, spiking, "name spiking populations"),
        ("traces", record.traces, {p.name for p in circuit.populations}, "name populations"),
    ):
        if names is not None and (not isinstance(names, tuple) or len({*names}) < len(names) or {*names} - available):
            available_names = ", ".join(sorted(available)) or "none"
            problems.append(
                f"circuit.record.{name}={names!r}: {remedy} in a tuple, each once, of those there are "
                f"({available_names}); None for all"
            )
    if record.traces and not caps.traces:
        problems.append(
            f"circuit.record.traces={record.traces!r}: the device records no membranes; request none of them, ()"
        )
    if circuit.populations and not circuit.spiking and not circuit.traced:
        problems.append("circuit.record requests neither spikes nor traces of any population; request at least one")
    return problems


def check_run(
    circuit: Circuit | None, weights: Mapping[str, Tensor], stimulus: Stimulus | Sequence[Stimulus], weight_max: int
) -> Circuit:
    """Check the arguments of a backend's `run` or `run_all`, and return the circuit; backends call it first.

    Raises:
        DeviceError: The device is not configured.
        ValueError: Weights are missing, not integers, of the wrong shape or out of range, or the stimulus
            has another number of inputs than the circuit.
    """
    if circuit is None:
        raise DeviceError("the device is not configured; call configure(circuit) before run")
    for batch in [stimulus] if isinstance(stimulus, Stimulus) else stimulus:
        if batch.spikes.units != circuit.inputs:
            raise ValueError(f"stimulus has {batch.spikes.units} inputs, the circuit {circuit.inputs}")
    sizes = {population.name: population.size for population in circuit.populations}
    for projection in circuit.projections:
        matrix = weights.get(projection.name)
        shape = (sizes[projection.post], projection.pre_size)
        if matrix is None or tuple(matrix.shape) != shape or matrix.dtype not in INTEGERS:
            form = "none" if matrix is None else f"{matrix.dtype} {tuple(matrix.shape)}"
            raise ValueError(f"weights of {projection.name}: expected integers {shape}, got {form}")
    _check_values(circuit, weights, weight_max)
    return circuit


def _check_values(circuit: Circuit, weights: Mapping[str, Tensor], weight_max: int) -> None:
    """Refuse weights out of range, and weights from several sources at one signed input; a GPU is waited for once."""
    names = [projection.name for projection in circuit.projections if weights[projection.name].numel()]
    uses = _uses(circuit, weights)
    extremes = [torch.stack(torch.aminmax(weights[name])) for name in names]
    extremes += [torch.stack(torch.aminmax(used)) for used in uses.values()]
    if not extremes:
        return
    device = extremes[0].device
    values = torch.stack([pair.to(device, torch.int64) for pair in extremes]).tolist()
    for name, (low, high) in zip(names, values, strict=False):
        if max(high, -low) > weight_max:
            raise ValueError(f"weights of {name} reach {max(high, -low)}, the device holds up to {weight_max}")
    for (post, used), (_, most) in zip(uses.items(), values[len(names) :], strict=True):
        if most > 1:
            neuron, place = (used > 1).nonzero()[0].tolist()
            raise ValueError(
                f"weights onto neuron {neuron} of {post} come from {int(used[neuron, place])} sources at signed input "
                f"{place}, which a single one may use; keep to the mask that was placed, or place the network again "
                "(net.attach(device))"
            )


def _uses(circuit: Circuit, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return how many sources use each signed input of a neuron `[N, inputs]`, by name of a population that shares.

    A synapse listens to a single source, so that no number may exceed 1.
    """
    uses = {}
    for post in dict.fromkeys(p.post for p in circuit.projections if p.signed_inputs is not None):
        onto = [projection for projection in circuit.projections if projection.post == post]
        matrices = [weights[projection.name] for projection in onto]
        if not all(matrix.numel() for matrix in matrices):
            continue
        inputs = 1 + max(place for projection in onto for place in projection.places)
        used = torch.zeros(len(matrices[0]), inputs, dtype=torch.int16, device=matrices[0].device)
        for projection, matrix in zip(onto, matrices, strict=True):
            used.index_add_(1, _index(projection.places, used.device), (matrix != 0).to(used))
        uses[post] = used
    return uses


@lru_cache(maxsize=64)
def _index(places: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the signed inputs of sources as a tensor, which all runs of a circuit share."""
    return torch.tensor(places, device=device)


def check_recording(circuit: Circuit, recording: object, stimulus: Stimulus) -> Recording:
    """Return what the circuit requests of a recording, if a run can give it; the codes themselves are not checked.

    Args:
        circuit: Circuit of the run.
        recording: Value that a backend's `run` returned.
        stimulus: Stimulus of the run.

    Raises:
        DeviceError: A part is missing or has another type or size, a spike is out of range, or the recording belongs
            to another run.
    """
    if not isinstance(recording, Recording):
        raise DeviceError(f"the device returned {type(recording).__name__}, not a Recording")
    if not isinstance(recording.cost, Cost) or not isinstance(recording.health, Health):
        types = f"{type(recording.cost).__name__} and {type(recording.health).__name__}"
        raise DeviceError(f"cost and health: expected Cost and Health, got {types}")
    if recording.clock not in (None, stimulus.clock):
        raise DeviceError(
            f"the recording is of the run at clock {recording.clock}, not of the one at clock {stimulus.clock}: an "
            "answer came too late, or twice"
        )
    batch = stimulus.spikes.samples
    lost = recording.lost
    if lost is not None and not _is(lost, (torch.bool,), (batch,)):
        raise DeviceError(f"lost trials: expected torch.bool ({batch},), got {_describe(lost)}")
    traced = circuit.traced
    spiking = circuit.spiking
    for population in traced:
        shape = (batch, circuit.samples, population.size)
        codes = recording.traces.get(population.name)
        if not _is(codes, (torch.uint8,), shape):
            raise DeviceError(f"traces of {population.name}: expected uint8 {shape}, got {_describe(codes)}")
    for population in spiking:
        _check_spikes(population, recording.spikes.get(population.name), batch)
    if (len(recording.traces), len(recording.spikes)) == (len(traced), len(spiking)):
        return recording
    return replace(
        recording,
        traces={population.name: recording.traces[population.name] for population in traced},
        spikes={population.name: recording.spikes[population.name] for population in spiking},
    )


def _check_spikes(population: Population, spikes: object, batch: int) -> None:
    """Refuse spikes that no trial can have: compiled loops use them as indices to read and write memory."""
    if not isinstance(spikes, Spikes) or (spikes.samples, spikes.units) != (batch, population.size):
        size = f"{spikes.samples} trials of {spikes.units} units" if isinstance(spikes, Spikes) else _describe(spikes)
        raise DeviceError(
            f"spikes of {population.name} are missing or of the wrong size: expected {batch} trials of "
            f"{population.size} units, got {size}"
        )
    events = spikes.time.numel() if isinstance(spikes.time, Tensor) else 0
    for name, types in TYPES.items():
        part = getattr(spikes, name)
        if not _is(part, types, (events,)):
            kind = "float32" if name == "time" else "int64"
            raise DeviceError(f"spikes.{name} of {population.name}: expected {kind} ({events},), got {_describe(part)}")
    try:
        spikes.check()
    except ValueError as error:
        raise DeviceError(f"spikes of {population.name}: {error}") from error


def _is(part: object, types: tuple[torch.dtype, ...], shape: tuple[int, ...]) -> bool:
    return isinstance(part, Tensor) and part.dtype in types and tuple(part.shape) == shape


def _describe(part: object) -> str:
    if isinstance(part, Tensor):
        return f"{part.dtype} {tuple(part.shape)}"
    return "none" if part is None else type(part).__name__
