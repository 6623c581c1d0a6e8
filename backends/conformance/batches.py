"""Trials and batches: order, independence, splitting, determinism, and trials that follow closely."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from ..abilities import supports
from ..circuit import Circuit
from ..pieces import join
from ..recording import DeviceError, Recording, Stimulus
from ..spikes import Spikes
from .bench import Bench, NotApplicableError, difference, require, rounds, within
from .refusals import refuses


def _task(bench: Bench) -> tuple[Circuit, dict[str, torch.Tensor], Spikes]:
    """Return a spiking layer, and trials that each drive another neuron."""
    trials = bench.driven([(n + 1) % bench.width for n in range(bench.width)])
    return bench.groups(), {"input->neurons": bench.diagonal(bench.caps.weight_max)}, trials


def _pieces(bench: Bench, weights: dict[str, torch.Tensor], spikes: Spikes, size: int, clock: int) -> Recording:
    recordings = []
    for piece in spikes.split(size):
        recordings.append(bench.run(weights, piece, clock))
        clock += piece.samples
    return join(recordings)


def trials_keep_their_order(bench: Bench) -> str:
    """Trial b of a recording is trial b of the stimulus, whole or in pieces."""
    if not bench.caps.traces:
        raise NotApplicableError("the device records no traces")
    width = bench.width
    bench.require_response(min(1, 2 / (width - 1)) * bench.caps.weight_max, 0.2)
    bench.configure(bench.layer(width, 2))
    ramp = torch.linspace(-bench.caps.weight_max, bench.caps.weight_max, width).round().to(bench.caps.weight_type)
    weights = {"input->neurons": ramp.expand(2, -1).contiguous()}
    spikes = bench.trials(width, [[i] for i in range(width)])
    for size in (spikes.samples, 3):
        swings = bench.swings(_pieces(bench, weights, spikes, size, bench.clock), width)
        strength = bench.strengths(swings).mean(0)
        span = float(strength.max() - strength.min())
        require(
            span > bench.caps.weight_max / 2, f"weights from {ramp[0]} to {ramp[-1]} make no difference ({span:.1f})"
        )
        order = strength.argsort().tolist()
        near = all(abs(place - trial) <= (0 if bench.tolerances.share == 1 else 1) for place, trial in enumerate(order))
        require(near, f"trials with ascending responses come in the order {order} (batches of {size})")
    return f"{spikes.samples} trials, whole and in pieces of 3"


def split_batches_are_alike(bench: Bench) -> str:
    """A batch in pieces gives what it gives whole: bit-equal where deterministic, else within the noise."""
    circuit, weights, spikes = _task(bench)
    if not bench.caps.deterministic:
        circuit = bench.layer(circuit.inputs, bench.width)
        weights = {"input->neurons": bench.diagonal(min(4, bench.caps.weight_max))}
    bench.configure(circuit)
    clock = bench.clock
    whole = bench.run(weights, spikes, clock)
    parts = _pieces(bench, weights, spikes, 3, clock)
    if bench.caps.deterministic:
        changed = difference(whole, parts)
        require(changed is None, f"{changed} differ when the batch is split into pieces of 3")
        return "bit-equal in pieces of 3"
    mean = [rounds(bench.codes(recording), bench.width).mean(0) for recording in (whole, parts)]
    deviation = float((mean[0] - mean[1]).abs().max())
    bound = max(1.0, 6 * bench.tolerances.noise * math.sqrt(2 / bench.tolerances.trials))
    require(
        deviation <= bound,
        f"means over trials differ by up to {deviation:.2f} in pieces of 3, noise explains {bound:.2f}",
    )
    return f"means over trials differ by up to {deviation:.2f} in pieces of 3"


def runs_given_together_are_alike(bench: Bench) -> str:
    """A device that takes several runs at once gives of each what it gives of it alone, in their order."""
    backend = bench.backend
    if not supports(backend, "batching"):
        raise NotApplicableError("the device takes one run at a time")
    circuit, weights, spikes = _task(bench)
    bench.configure(circuit)
    clock = bench.clock
    stimuli = list[Stimulus]()
    for piece in spikes.split(3):
        stimuli.append(Stimulus(piece, clock))
        clock += piece.samples
    outcomes = backend.run_all(weights, stimuli)
    bench.clock = clock
    require(len(outcomes) == len(stimuli), f"{len(stimuli)} runs were given, {len(outcomes)} came back")
    for number, (stimulus, recording) in enumerate(zip(stimuli, outcomes, strict=True), 1):
        if isinstance(recording, DeviceError):
            continue  # the host repeats it
        alone = bench.run(weights, stimulus.spikes, stimulus.clock)
        sizes = [{name: len(codes) for name, codes in r.traces.items()} for r in (recording, alone)]
        require(sizes[0] == sizes[1], f"run {number} has trials {sizes[0]}, alone {sizes[1]}")
        changed = difference(recording, alone) if bench.caps.deterministic else None
        require(changed is None, f"{changed} of run {number} differ from those of the run alone")
    return f"{len(stimuli)} runs together{', bit-equal' if bench.caps.deterministic else ''}"


def equal_clocks_give_equal_recordings(bench: Bench) -> str:
    """Where `deterministic` says so, a run at the same place on the clock is the same, whatever ran in between."""
    if not bench.caps.deterministic:
        raise NotApplicableError("the device does not claim to be deterministic")
    circuit, weights, spikes = _task(bench)
    bench.configure(circuit)
    first = bench.run(weights, spikes, clock=5)
    bench.run(weights, spikes.split(3)[0], clock=1000)
    changed = difference(first, bench.run(weights, spikes, clock=5))
    require(
        changed is None, f"{changed} differ between two runs at clock 5; set deterministic=False, or seed the noise"
    )
    return "bit-equal"


def noise_follows_the_clock(bench: Bench) -> str:
    """Where trials of one run are noisy, another place on the clock gives other noise."""
    if not bench.caps.traces:
        raise NotApplicableError("the device records no traces")
    bench.configure(bench.layer(2, bench.width))
    weights = {"input->neurons": torch.zeros(bench.width, 2, dtype=bench.caps.weight_type)}
    runs = [bench.codes(bench.run(weights, bench.quiet(2, 4), clock=clock)) for clock in (0, 4, 1000)]
    noisy = any(bool((codes != codes[:1]).any()) for codes in runs)
    if not noisy:
        return "no noise"
    for repeat, clock in ((runs[1], 4), (runs[2], 1000)):
        require(not torch.equal(runs[0], repeat), f"the noise of trials 0..3 repeats at clock {clock}")
    return f"noise of {float((runs[0] - runs[0].mean((0, 1))).std()):.2f} trace units"


def trials_are_independent(bench: Bench) -> str:
    """A trial does not depend on what the one before it did, unless trials follow closely."""
    inputs = bench.group
    bench.configure(bench.layer(inputs, bench.width))
    weights = {"input->neurons": torch.full((bench.width, inputs), bench.caps.weight_max, dtype=bench.caps.weight_type)}
    late = (bench.samples - 3) * bench.caps.trace_interval
    spikes = bench.timed([dict.fromkeys(range(inputs), late), {}], inputs)
    codes = rounds(bench.codes(bench.run(weights, spikes)), 2).mean(0)[1]
    rest = bench.codes(bench.run(weights, bench.quiet(inputs, 2 * bench.tolerances.trials))).mean((0, 1))
    bound = max(1.0, 6 * bench.tolerances.noise / math.sqrt(bench.tolerances.trials))
    deviation = (codes - rest).abs().amax(0)
    return bench.require_share(within(deviation, bound), "of neurons are at rest after a trial that ended in a volley")


def close_trials_are_honoured(bench: Bench) -> str:
    """`trial_time` is kept, in the cost too, or refused; a forced reset erases what a trial left behind."""
    if not bench.caps.forced_reset:
        raise NotApplicableError("the device cannot reset membranes between trials")
    circuit = bench.layer(bench.group, bench.width)
    gap = 4 * bench.caps.trace_interval
    close = replace(circuit, trial_time=circuit.duration + gap, forced_reset=True)
    end = (bench.samples - 1) * bench.caps.trace_interval
    spikes = bench.timed([dict.fromkeys(range(bench.group), end), {}], bench.group)
    weights = {
        "input->neurons": torch.full((bench.width, bench.group), bench.caps.weight_max, dtype=bench.caps.weight_type)
    }
    bench.configure(close)
    recording = bench.run(weights, spikes)
    period = recording.cost.chip_time / spikes.samples
    requested = circuit.duration + gap
    require(
        period >= requested * (1 - 1e-6),
        f"trials cost {period:.4g} s each, but trial_time={requested:.4g} s was asked for",
    )
    if recording.cost.origin == "estimated":
        require(
            period <= 1.5 * requested,
            f"trials cost {period:.4g} s each, but trial_time={requested:.4g} s was asked for",
        )
    codes = rounds(bench.codes(recording), 2).mean(0)
    swing = (codes[1] - codes[1, -1]).abs().amax(0)
    largest = bench.caps.threshold - bench.caps.leak
    bound = 0.1 * largest + 6 * bench.tolerances.noise / math.sqrt(bench.tolerances.trials)
    return bench.require_share(within(swing, bound), "of neurons are at rest behind a forced reset")


def too_short_trials_are_refused(bench: Bench) -> str:
    """`configure` refuses trials that are shorter than what is recorded of them."""
    circuit = bench.layer(2, 2)
    short = replace(circuit, trial_time=circuit.duration / 2)
    refuses(lambda: bench.backend.configure(short), "a trial_time shorter than the recording", ("trial_time",))
    return f"{1e6 * circuit.duration / 2:.3g} us for {1e6 * circuit.duration:.3g} us"


def events_at_the_edges_are_taken(bench: Bench) -> str:
    """Events at the trial's start act; events at and behind its end change nothing in it."""
    bench.require_response(bench.caps.weight_max, 0.1)
    bench.configure(bench.layer(2, bench.width))
    weights = {"input->neurons": torch.full((bench.width, 2), bench.caps.weight_max, dtype=bench.caps.weight_type)}
    end = bench.samples * bench.caps.trace_interval
    spikes = bench.timed([{}, {0: 0.0}, {0: end}, {0: 1.2 * end}], 2)
    codes = rounds(bench.codes(bench.run(weights, spikes)), 4).mean(0)
    swing = (codes - codes[:1]).abs().amax(1)
    bound = max(1.0, 6 * bench.tolerances.noise * math.sqrt(2 / bench.tolerances.trials))
    acts = 0.3 * bench.unit * bench.caps.weight_max
    bench.require_share(swing[1] >= acts, "of neurons respond to an event at the trial's start")
    return bench.require_share(
        within(swing[2:], bound), "of neurons do not respond to events at or behind the trial's end"
    )
