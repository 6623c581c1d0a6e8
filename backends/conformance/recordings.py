"""The form of a recording: names, shapes, types and units, health and cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import torch

from ..circuit import Circuit, Record
from ..recording import DeviceError, Health, Origin, Recording, Stimulus
from .bench import ATTEMPTS, Bench, ConformanceError, NotApplicableError, difference, require


def _recorded(bench: Bench, record: Record | None = None, clock: int | None = None) -> Recording:
    """Run two layers, every neuron driven in one of the trials; `record` is None for everything."""
    circuit = bench.two_layers()
    bench.configure(circuit if record is None else replace(circuit, record=record))
    weights = {
        "input->neurons": bench.diagonal(bench.caps.weight_max),
        "neurons->readout": torch.ones(bench.width - 1, bench.width, dtype=bench.caps.weight_type),
    }
    return bench.run(weights, bench.driven(list(range(bench.width))), clock)


def traces_have_shape_and_type(bench: Bench) -> str:
    """Traces are codes uint8 `[B, T, N]` on the CPU, of every population."""
    if not bench.caps.traces:
        raise NotApplicableError("the device records no traces")
    recording = _recorded(bench)
    batch = bench.width * bench.tolerances.trials
    expected = {"neurons": (batch, bench.samples, bench.width), "readout": (batch, bench.samples, bench.width - 1)}
    shapes = {name: tuple(codes.shape) for name, codes in recording.traces.items()}
    require(shapes == expected, f"traces have shapes {shapes}, expected {expected}")
    for name, codes in recording.traces.items():
        require(codes.dtype == torch.uint8, f"traces of {name} are {codes.dtype}, expected torch.uint8")
        require(codes.device.type == "cpu", f"traces of {name} are on {codes.device}, expected cpu")
        highest = int(codes.max())
        require(highest < 2**bench.caps.trace_bits, f"traces of {name} reach {highest} > {bench.caps.trace_bits} bits")
    return f"{', '.join(map(str, expected.values()))} uint8"


def requested_data_are_recorded(bench: Bench) -> str:
    """A recording holds the spikes and traces that `Circuit.record` requests; only these if the device is selective."""
    requests = _requests(bench)
    for record in requests:
        recording = _recorded(bench, record)
        circuit = replace(bench.two_layers(), record=record)
        for kind, data, populations in (
            ("spikes", recording.spikes, circuit.spiking),
            ("traces", recording.traces, circuit.traced),
        ):
            names = [p.name for p in populations]
            missing = [name for name in names if name not in data]
            require(not missing, f"{_described(record)}: the recording lacks {kind} of {', '.join(missing)}")
            surplus = sorted({*data} - {*names})
            require(
                not (bench.caps.selective and surplus),
                f"{_described(record)}: a selective device recorded {kind} of {', '.join(surplus)}",
            )
    return f"{len(requests)} requests, {'nothing else' if bench.caps.selective else 'and perhaps more'}"


def fewer_data_change_nothing(bench: Bench) -> str:
    """With fewer populations recorded, the remaining spikes and traces are the same."""
    if not bench.caps.deterministic:
        raise NotApplicableError("two runs of the device differ by themselves (`deterministic`)")
    expected = _recorded(bench, clock=0)
    requests = _requests(bench)
    for record in requests:
        circuit = replace(bench.two_layers(), record=record)
        changed = difference(_only(expected, circuit), _only(_recorded(bench, record, clock=0), circuit))
        require(changed is None, f"{_described(record)}: {changed} differ from those of a run that records everything")
    return f"{len(requests)} requests"


def _requests(bench: Bench) -> list[Record]:
    """Return requests of a part of two layers; without traces on a device that records none."""
    requests = [Record(traces=())]
    if bench.caps.traces:
        requests += [Record(traces=("readout",)), Record((), ("readout",)), Record((), ("neurons",))]
    return requests


def _only(recording: Recording, circuit: Circuit) -> Recording:
    """Return the part of a recording that a circuit requests."""
    return replace(
        recording,
        spikes={p.name: recording.spikes[p.name] for p in circuit.spiking},
        traces={p.name: recording.traces[p.name] for p in circuit.traced},
    )


def _described(record: Record) -> str:
    parts = {"spikes": record.spikes, "traces": record.traces}
    words = [f"{kind} of {'all' if names is None else ', '.join(names) or 'none'}" for kind, names in parts.items()]
    return f"asked for {' and '.join(words)}"


def spikes_have_form_and_types(bench: Bench) -> str:
    """Spikes come from spiking populations only: int64 ascending samples, int64 units, float32 times."""
    recording = _recorded(bench)
    batch = bench.width * bench.tolerances.trials
    require(list(recording.spikes) == ["neurons"], f"spikes of {list(recording.spikes)}, expected of ['neurons']")
    spikes = recording.spikes["neurons"]
    sizes = (spikes.samples, spikes.units)
    require(sizes == (batch, bench.width), f"spikes count (samples, units) = {sizes}, expected {(batch, bench.width)}")
    types = {name: getattr(spikes, name).dtype for name in ("sample", "unit", "time")}
    expected = {"sample": torch.int64, "unit": torch.int64, "time": torch.float32}
    require(types == expected, f"spikes have types {types}, expected {expected}")
    require(len(spikes) > 0, "no neuron spiked, though each was driven far beyond its threshold")
    require(bool((spikes.sample.diff() >= 0).all()), "spikes.sample does not ascend")
    for name, index, limit in (("sample", spikes.sample, batch), ("unit", spikes.unit, bench.width)):
        low, high = int(index.min()), int(index.max())
        require(low >= 0 and high < limit, f"spikes.{name} spans {low}..{high}, allowed 0..{limit - 1}")
    return f"{len(spikes)} spikes"


def spike_times_are_seconds_of_the_trial(bench: Bench) -> str:
    """Spike times are seconds since the trial's start, not before the stimulus and within the recorded window."""
    recording = _recorded(bench)
    spikes = recording.spikes["neurons"]
    require(len(spikes) > 0, "no neuron spiked, though each was driven far beyond its threshold")
    end = bench.samples * bench.caps.trace_interval
    low, high = float(spikes.time.min()), float(spikes.time.max())
    require(
        math.isfinite(low + high) and low >= 0 and high <= end * (1 + 1e-6),
        f"spike times span {low:.4g}..{high:.4g} s, the trial 0..{end:.4g} s",
    )
    late = bench.first_spikes(recording).nan_to_num(nan=math.inf).amin(1)
    slack = bench.tolerances.stamp * bench.caps.trace_interval
    causal = bench.require_share(late >= bench.onset - slack, "of trials without a spike before the stimulus")
    return f"{1e6 * low:.3g}..{1e6 * high:.3g} us of {1e6 * end:.3g} us; {causal}"


def recordings_are_not_overwritten(bench: Bench) -> str:
    """A run changes neither its arguments nor earlier recordings."""
    bench.configure(bench.groups())
    weights = {"input->neurons": bench.diagonal(bench.caps.weight_max)}
    spikes = bench.driven([1, 0])
    arguments = [weights["input->neurons"], spikes.sample, spikes.unit, spikes.time]
    copies = [tensor.clone() for tensor in arguments]
    first = bench.run(weights, spikes)
    codes = {name: trace.clone() for name, trace in first.traces.items()}
    times = first.spikes["neurons"].time.clone()
    require(all(torch.equal(a, b) for a, b in zip(arguments, copies, strict=True)), "run changed its arguments")
    bench.run(weights, bench.driven([0, 1]))
    is_unchanged = all(torch.equal(codes[name], first.traces[name]) for name in codes)
    is_unchanged = is_unchanged and torch.equal(times, first.spikes["neurons"].time)
    require(is_unchanged, "a run changed the recording of the one before it; return new tensors")
    return "arguments and recordings kept"


def health_and_cost_are_reported(bench: Bench) -> str:
    """Cost and health are there: time >= the recorded time, energy None or >= 0, counts >= 0, a known origin."""
    recording = _recorded(bench)
    cost, health = recording.cost, recording.health
    shortest = bench.width * bench.tolerances.trials * bench.samples * bench.caps.trace_interval
    require(
        math.isfinite(cost.chip_time) and cost.chip_time >= shortest * (1 - 1e-6),
        f"cost.chip_time={cost.chip_time:.4g} s, but {shortest:.4g} s were recorded",
    )
    require(
        cost.energy is None or (math.isfinite(cost.energy) and cost.energy >= 0),
        f"cost.energy={cost.energy} J, expected None or >= 0",
    )
    origins = get_args(Origin)
    require(cost.origin in origins, f"cost.origin={cost.origin!r}, expected one of {origins}")
    require(isinstance(health, Health), f"health is a {type(health).__name__}, not Health")
    for name in ("dropped_spikes", "retries"):
        value = getattr(health, name)
        require(isinstance(value, int) and value >= 0, f"health.{name}={value!r}, expected a whole number >= 0")
    notes = isinstance(health.notes, tuple) and all(isinstance(note, str) for note in health.notes)
    require(notes, f"health.notes={health.notes!r}, expected a tuple of texts")
    energy = "unknown energy" if cost.energy is None else f"{cost.energy:.3g} J"
    return f"{cost.chip_time:.3g} s, {energy} ({cost.origin}), {health.dropped_spikes} dropped spikes"


def lost_trials_are_flagged(bench: Bench) -> str:
    """`lost` is None or bool `[B]`, and not every trial of every attempt is lost."""
    bench.configure(bench.groups())
    weights = {"input->neurons": bench.diagonal(bench.caps.weight_max)}
    spikes = bench.driven([0])
    batch = spikes.samples
    lost = 0
    for _ in range(ATTEMPTS):
        recording = _unless_failed(lambda: bench.backend.run(weights, Stimulus(spikes, bench.clock)))
        bench.clock += batch
        if recording is None or recording.lost is None:
            continue
        flags = recording.lost
        form = f"{flags.dtype} {tuple(flags.shape)}" if isinstance(flags, torch.Tensor) else type(flags).__name__
        require(form == f"torch.bool ({batch},)", f"lost is {form}, expected torch.bool ({batch},)")
        lost += int(flags.sum())
    if lost == ATTEMPTS * batch:
        raise ConformanceError(f"all {batch} trials were lost, {ATTEMPTS} times in a row")
    return f"{lost} of {ATTEMPTS * batch} trials lost"


def _unless_failed(work: Callable[[], Recording]) -> Recording | None:
    """Return a recording; None if the device failed, which a host answers by a repetition."""
    try:
        return work()
    except DeviceError:
        return None
