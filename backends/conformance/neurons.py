"""Membranes and spikes: shape and timing of responses, threshold, reset, refractory period, on-chip events."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..circuit import Projection
from ..recording import Recording
from ..spikes import Spikes
from .bench import ONSET, Bench, NotApplicableError, require, rounds, within


def _strong(bench: Bench) -> dict[str, Tensor]:
    """Return weights of `Bench.groups` by which each neuron's inputs drive it far beyond its threshold."""
    return {"input->neurons": bench.diagonal(bench.caps.weight_max)}


def rest_is_the_leak(bench: Bench) -> str:
    """Without events no neuron spikes, and codes stay at the leak that was asked for."""
    bench.configure(bench.groups())
    recording = bench.run(_strong(bench), bench.quiet(bench.width * bench.group, 4 * bench.tolerances.trials))
    return _quiet(bench, recording, "events")


def weights_of_zero_are_quiet(bench: Bench) -> str:
    """Events on synapses of weight 0 do nothing."""
    bench.configure(bench.groups())
    recording = bench.run({"input->neurons": bench.diagonal(0)}, bench.driven(list(range(bench.width))))
    return _quiet(bench, recording, "weights")


def _quiet(bench: Bench, recording: Recording, cause: str) -> str:
    spiked = torch.zeros(bench.width, dtype=torch.bool)
    spiked[recording.spikes["neurons"].unit] = True
    text = bench.require_share(~spiked, f"of neurons are silent without {cause}")
    if not bench.caps.traces:
        return text
    codes = bench.codes(recording)
    bounds = bench.tolerances
    rest = codes.mean((0, 1))
    noise = (codes - rest).square().mean((0, 1)).sqrt()
    bench.require_share(
        within((rest - bench.caps.leak).abs(), bounds.rest), f"of neurons rest within {bounds.rest} of the leak"
    )
    bench.require_share(within(noise, bounds.noise), f"of neurons rest with a noise of at most {bounds.noise}")
    return f"{text}; rest {float(rest.median()):.1f}, noise {float(noise.median()):.2f}"


def potentials_have_time_and_shape(bench: Bench) -> str:
    """Samples are `trace_interval` apart from the trial's start: a potential peaks tau behind its event."""
    weights = torch.full((bench.width, 1), bench.caps.weight_max, dtype=bench.caps.weight_type)
    bench.require_response(bench.caps.weight_max, bench.tolerances.shape)
    bench.configure(bench.layer(1, bench.width))
    swings = bench.swings(bench.run({"input->neurons": weights}, bench.trials(1, [[0]])), 1)[0]
    shift, scale = _fit(bench, swings)
    bounds = bench.tolerances
    text = (
        f"samples are {float(shift.median()):+.2f} intervals late, time scale {float(scale.median()):.2f} of the ideal"
    )
    good = within(shift.abs(), bounds.sample) & within((scale - 1).abs(), bounds.shape)
    bench.require_share(good, f"of neurons have an ideal potential in their samples ({text})")
    baseline = swings[: ONSET + 1].abs().amax(0) / swings.abs().amax(0).clamp(min=1e-9)
    bench.require_share(within(baseline, 0.15 + bounds.crosstalk), "of membranes rest until the event")
    return text


def _fit(bench: Bench, swings: Tensor) -> tuple[Tensor, Tensor]:
    """Return delay (trace intervals) and relative time scale of potentials `[T, N]`, by search for the best fit."""
    shifts = torch.arange(-3, 3.01, 0.1, dtype=torch.float64)
    scales = torch.logspace(-0.4, 0.4, 41, base=10.0, dtype=torch.float64)
    time = bench.times - bench.onset - shifts[:, None, None] * bench.caps.trace_interval
    ideal = bench.psp(time / scales[:, None]).flatten(0, 1)
    ideal = ideal / ideal.norm(dim=1, keepdim=True).clamp(min=1e-9)
    best = (ideal @ swings).argmax(0)
    return shifts[best // len(scales)], scales[best % len(scales)]


def strong_inputs_make_spikes(bench: Bench) -> str:
    """Simultaneous inputs far beyond the threshold make their neuron spike, in its own trial, and no other."""
    bench.configure(bench.groups())
    order = [(3 * n + 1) % bench.width for n in range(bench.width)]
    order = order if len(set(order)) == bench.width else [*range(1, bench.width), 0]
    first = bench.first_spikes(bench.run(_strong(bench), bench.driven(order)))
    spiked = rounds(torch.isfinite(first), bench.width).double().mean(0) > 0.5
    driven = torch.zeros(bench.width, bench.width, dtype=torch.bool)
    driven[torch.arange(bench.width), torch.tensor(order)] = True
    text = bench.require_share(spiked[driven], "of driven neurons spike in their trial")
    return f"{text}; {bench.require_share(~spiked[~driven], 'of the others do not')}"


def weak_inputs_make_no_spikes(bench: Bench) -> str:
    """Inputs that reach a third of the way to the threshold, or lower the membrane, make no spikes."""
    bench.configure(bench.groups())
    weak = max(1, int(bench.caps.weight_max / 9))
    weak_inputs = min(bench.group, int(bench.group * bench.caps.weight_max / 9 / weak))
    if weak_inputs < 1:
        raise NotApplicableError("a single event of weight 1 reaches further than a third of the way to the threshold")
    for weight, inputs in ((weak, weak_inputs), (-bench.caps.weight_max, bench.group)):
        driven = bench.driven(list(range(bench.width)), inputs=inputs)
        recording = bench.run({"input->neurons": bench.diagonal(weight)}, driven)
        spiked = torch.zeros(bench.width, dtype=torch.bool)
        spiked[recording.spikes["neurons"].unit] = True
        bench.require_share(~spiked, f"of neurons are silent at {inputs} simultaneous events of weight {weight}")
    return f"weights {weak} and {-bench.caps.weight_max}"


def later_inputs_spike_later(bench: Bench) -> str:
    """A stimulus that comes later by any time gives spikes later by the same time."""
    bench.configure(bench.groups())
    interval = bench.caps.trace_interval
    delays = [0.0, 0.3 * interval, 0.5 * interval, interval, 2.7 * interval]
    groups = dict.fromkeys(range(bench.width * bench.group), 0.0)
    spikes = bench.timed([dict.fromkeys(groups, bench.onset + delay) for delay in delays], len(groups))
    first = rounds(bench.first_spikes(bench.run(_strong(bench), spikes)), len(delays))
    mean = first.nanmedian(0).values
    late = (mean - mean[:1]) - torch.tensor(delays, dtype=torch.float64)[:, None]
    bound = bench.tolerances.stamp * interval
    good = within(late[1:].nan_to_num(nan=torch.inf).abs(), bound)
    text = bench.require_share(
        good, f"of neurons spike later by the delay of their inputs, within {1e6 * bound:.3g} us"
    )
    return f"{text}; median {1e9 * float(late[1:].nanmedian()):+.0f} ns off"


def stamps_fit_the_traces(bench: Bench) -> str:
    """Spike times and trace samples have one clock: the membrane is at reset in the samples behind a spike."""
    near = _around_spikes(bench)
    bound = bench.tolerances.reset
    good = within((near - bench.caps.reset).abs(), bound)
    text = bench.require_share(good, f"of samples in the refractory period are within {bound} of the reset")
    return f"{text}; median {float(near.median()):.1f}"


def _around_spikes(bench: Bench) -> Tensor:
    """Return codes whose sample lies in the inner part of a refractory period, `[number of them]`."""
    interval = bench.caps.trace_interval
    circuit = bench.groups()
    held = max(bench.caps.refractory, 2.5 * interval)
    slow = replace(circuit.populations[0], refractory=held)
    bench.configure(replace(circuit, populations=(slow,)))
    recording = bench.run(_strong(bench), bench.driven(list(range(bench.width))))
    codes = bench.codes(recording)
    spikes = recording.spikes["neurons"]
    require(len(spikes) > 0, "no neuron spiked, though each was driven far beyond its threshold")
    margin = bench.tolerances.stamp * interval
    since = bench.times[None, :] - spikes.time.double()[:, None]
    inside = (since > min(margin, 0.4 * held)) & (since < max(held - margin, 0.6 * held))
    event, sample = inside.nonzero(as_tuple=True)
    require(len(event) > 0, f"no trace sample lies in a refractory period of {held:.3g} s")
    return codes[spikes.sample[event], sample, spikes.unit[event]]


def neurons_are_refractory(bench: Bench) -> str:
    """Spikes of one neuron are apart by the refractory period that was asked for, at least."""
    circuit = bench.groups()
    interval = bench.caps.trace_interval
    requested = max(bench.caps.refractory, 2.5 * interval)
    bench.configure(replace(circuit, populations=(replace(circuit.populations[0], refractory=requested),)))
    weights = _strong(bench)
    order = list(range(bench.width))
    parts = [bench.driven(order, bench.onset + k * interval) for k in range(3)]
    sample, unit, time = (torch.cat([getattr(part, name) for part in parts]) for name in ("sample", "unit", "time"))
    volleys = Spikes.from_events(sample, unit, time, parts[0].samples, circuit.inputs)
    spikes = bench.run(weights, volleys).spikes["neurons"]
    ordered = spikes.ordered()
    place = ordered.sample * spikes.units + ordered.unit
    order_of = torch.argsort(place, stable=True)
    place = place[order_of]
    time = ordered.time[order_of].double()
    gaps = time.diff()[place.diff() == 0]
    require(len(gaps) > 0, "no neuron spiked twice in a trial, though three volleys drove it far beyond its threshold")
    bound = requested * (1 - bench.tolerances.refractory) - bench.caps.timestamp_resolution
    text = bench.require_share(within(-gaps, -bound), f"of inter-spike intervals reach {1e6 * bound:.3g} us")
    return f"{text}; shortest {1e6 * float(gaps.min()):.3g} us for {1e6 * requested:.3g} us"


def on_chip_events_arrive(bench: Bench) -> str:
    """Spikes of one population reach the next: in their place, with the sign of their weight, after the spike."""
    bench.configure(bench.two_layers())
    width = bench.width
    limit = bench.caps.weight_max
    onto = torch.zeros(width - 1, width, dtype=bench.caps.weight_type)
    for neuron in range(width - 1):
        onto[neuron, neuron] = limit
        onto[neuron, neuron + 1] = -limit
    weights = {**_strong(bench), "neurons->readout": onto}
    strengths = bench.strengths(bench.swings(bench.run(weights, bench.driven(list(range(width)))), width, "readout"))
    used = onto != 0
    size = strengths[used].abs() / limit
    good = (strengths[used].sign() == onto[used].sign()) & (size > 0.3)
    text = bench.require_share(good, "of synapses between populations act with their sign")
    leak = strengths[~used].abs() / limit
    if leak.numel():
        text += f"; {bench.require_share(within(leak, 0.1 + bench.tolerances.crosstalk), 'of the others are silent')}"
    return text


def recurrent_events_arrive(bench: Bench) -> str:
    """A population's spikes reach itself, weights `[post, pre]`."""
    if not bench.caps.recurrence:
        raise NotApplicableError("the device has no recurrence")
    width = bench.width
    circuit = bench.groups()
    if circuit.inputs + width > bench.caps.inputs_per_circuit:
        raise NotApplicableError(
            f"a neuron has too few inputs for {circuit.inputs} external and {width} recurrent ones"
        )
    recurrent = Projection("neurons->neurons", "neurons", "neurons", width, circuit.inputs)
    bench.configure(replace(circuit, projections=(*circuit.projections, recurrent)))
    limit = bench.caps.weight_max
    onto = torch.zeros(width, width, dtype=bench.caps.weight_type)
    for neuron in range(width):
        onto[(neuron + 1) % width, neuron] = -limit
    recording = bench.run({**_strong(bench), "neurons->neurons": onto}, bench.driven(list(range(width))))
    strengths = bench.strengths(bench.swings(recording, width)) / limit
    off = ~torch.eye(width, dtype=torch.bool)
    text = bench.require_share(strengths[onto != 0] < -0.3, "of recurrent synapses act with their sign")
    unused = (onto == 0) & off
    if bool(unused.any()):
        bench.require_share(
            within(strengths[unused].abs(), 0.1 + bench.tolerances.crosstalk), "of the others are silent"
        )
    return text


def readouts_do_not_spike(bench: Bench) -> str:
    """A population without threshold integrates far beyond the usual one, and has no spikes."""
    bench.configure(bench.layer(bench.width * bench.group, bench.width))
    recording = bench.run(_strong(bench), bench.driven(list(range(bench.width))))
    require("neurons" not in recording.spikes, "the recording holds spikes of a population without threshold")
    if not bench.caps.traces:
        return "no spikes"
    peak = rounds(bench.codes(recording), bench.width).mean(0).amax(1).diag()
    text = bench.require_share(peak > bench.caps.threshold, "of membranes exceed the usual threshold")
    return f"{text}; median {float(peak.median()):.0f}"
