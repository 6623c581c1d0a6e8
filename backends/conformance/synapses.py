"""Checks that every integer weight arrives in its place `[post, pre]`, with its sign and size."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..capabilities import INTEGERS
from ..circuit import INPUT, Projection
from ..recording import Stimulus
from ..spikes import Spikes
from .bench import Bench, NotApplicableError, difference, require, within
from .refusals import refuses


def _measured(bench: Bench, weights: Tensor) -> Tensor:
    """Return the weight that corresponds to each synapse's response `[post, pre]`, measured one input at a time."""
    size, inputs = weights.shape
    bench.require_response(max(1, bench.caps.weight_max // 3), bench.tolerances.weight)
    bench.configure(bench.layer(inputs, size))
    recording = bench.run({"input->neurons": weights}, bench.trials(inputs, [[i] for i in range(inputs)]))
    return bench.strengths(bench.swings(recording, inputs))


def _random(bench: Bench, size: int) -> Tensor:
    """Return integer weights `[size, size]` of either sign: a fifth of them is 0, all others are large."""
    generator = torch.Generator().manual_seed(1)
    limit = bench.caps.weight_max
    size_of = torch.randint(max(1, limit // 3), limit + 1, (size, size), generator=generator)
    sign = torch.randint(0, 2, (size, size), generator=generator) * 2 - 1
    zero = torch.rand(size, size, generator=generator) < 0.2
    if not bool(zero.any()):  # few neurons
        zero[0, -1] = True
    return (size_of * sign * ~zero).to(bench.caps.weight_type)


def weights_arrive_in_their_place(bench: Bench) -> str:
    """Weights are `[post, pre]`: neither transposed nor permuted; single inputs show which synapse is where."""
    weights = _random(bench, bench.width)
    measured = _measured(bench, weights)
    expected = weights.double()
    rows = _alike(measured, expected)
    best = rows.argmax(1)
    diagonal = torch.arange(bench.width)
    if not bool((best == diagonal).double().mean() >= bench.tolerances.share):
        transposed = _alike(measured, expected.T)
        hint = (
            "the transposed matrix fits better"
            if transposed.diag().mean() > rows.diag().mean()
            else f"rows {best.tolist()}"
        )
        require(False, f"the responses of neurons 0..{bench.width - 1} do not fit their own rows of weights: {hint}")
    return bench.require_share(best == diagonal, "of neurons respond like their own row of weights")


def _alike(measured: Tensor, expected: Tensor) -> Tensor:
    """Return the cosine between each measured row and each expected row `[N, N]`."""
    return torch.nn.functional.normalize(measured, dim=1) @ torch.nn.functional.normalize(expected, dim=1).T


def weights_keep_their_sign(bench: Bench) -> str:
    """A positive weight raises the membrane, a negative one lowers it."""
    weights = _random(bench, bench.width)
    measured = _measured(bench, weights)
    used = weights != 0
    return bench.require_share(
        measured[used].sign() == weights[used].sign(), "of synapses have the sign of their weight"
    )


def weights_keep_their_size(bench: Bench) -> str:
    """The response to a single event is that of the ideal synapse of this integer weight."""
    weights = _random(bench, bench.width)
    measured = _measured(bench, weights)
    expected = weights.double()
    used = weights != 0
    ratio = (measured / expected)[used]
    median = f"median {float(ratio.median()):.3f} of the ideal"
    good = within((ratio - 1).abs(), bench.tolerances.weight)
    return bench.require_share(good, f"of responses have the size of their weight ({median})")


def large_weights_are_whole(bench: Bench) -> str:
    """Weights at the ends of shorter integers, such as 127 and 128, have their own size, not that of a wrapped one."""
    limit = bench.caps.weight_max
    if limit <= torch.iinfo(torch.int8).max:
        raise NotApplicableError(f"integer weights up to {limit} fit 8 bits")
    ends = {end for bits in range(7, 15) for end in (2**bits - 1, 2**bits) if limit // 4 <= end < limit}
    sizes = torch.tensor([*sorted(ends), limit][-bench.caps.inputs_per_circuit // 2 :])
    expected = torch.cat([sizes, -sizes])
    measured = _measured(bench, expected.expand(bench.width, -1).to(bench.caps.weight_type))
    good = within((measured / expected - 1).abs(), bench.tolerances.weight)
    return bench.require_share(
        good, f"of responses to weights of {', '.join(map(str, sizes.tolist()))} have their size"
    )


def zero_weights_are_silent(bench: Bench) -> str:
    """A synapse of weight 0 has no effect, though its neighbours do."""
    weights = _random(bench, bench.width)
    measured = _measured(bench, weights)[weights == 0].abs() / bench.caps.weight_max
    text = bench.require_share(within(measured, bench.tolerances.crosstalk), "of synapses of weight 0 are silent")
    return f"{text}; largest {100 * float(measured.max()):.2f} % of the largest weight"


def single_steps_of_weight_count(bench: Bench) -> str:
    """Weights 1, 2 and 3 give one, two and three times the response: nothing is rounded away."""
    limit = min(3, bench.caps.weight_max)
    circuits = min(bench.caps.max_merged, bench.caps.neuron_circuits // bench.width)
    inputs = max(1, min(math.ceil(12 / bench.unit), bench.caps.inputs_per_circuit * circuits // limit))
    bound = bench.tolerances.weight + 2 * bench.tolerances.crosstalk
    bench.require_response(inputs, bound / 2)  # a step is the difference of two responses
    sizes = torch.arange(1, limit + 1)
    weights = sizes.repeat_interleave(inputs).expand(bench.width, -1).to(bench.caps.weight_type)
    bench.configure(bench.layer(limit * inputs, bench.width))
    spikes = bench.trials(limit * inputs, [list(range(k * inputs, (k + 1) * inputs)) for k in range(limit)])
    measured = bench.strengths(bench.swings(bench.run({"input->neurons": weights}, spikes), limit)) / inputs
    step = measured.diff(dim=1, prepend=torch.zeros(bench.width, 1))
    mean = measured[:, -1:] / limit
    text = f"weights 1..{limit} act like {', '.join(f'{x:.2f}' for x in measured.median(dim=0).values.tolist())}"
    bench.require_share(
        within((mean - 1).abs(), bench.tolerances.weight), f"of neurons have steps of weight 1 ({text})"
    )
    bench.require_share(within((step / mean - 1).abs(), bound), f"of steps of weight are equal ({text})")
    return text


def events_add_up(bench: Bench) -> str:
    """Two inputs at once act like the sum of each, and two events of one input like two inputs."""
    weight = max(1, bench.caps.weight_max // 3)
    bench.require_response(weight, bench.tolerances.weight + bench.tolerances.crosstalk)
    weights = torch.full((bench.width, 2), weight, dtype=bench.caps.weight_type)
    bench.configure(bench.layer(2, bench.width))
    spikes = bench.trials(2, [[0], [0, 1], [0]])
    third = spikes.sample % 3 == 2
    sample, unit, time = (torch.cat([x, x[third]]) for x in (spikes.sample, spikes.unit, spikes.time))
    spikes = Spikes.from_events(sample, unit, time, spikes.samples, 2)
    measured = bench.strengths(bench.swings(bench.run({"input->neurons": weights}, spikes), 3))
    ratio = measured[:, 1:] / measured[:, :1]
    bound = bench.tolerances.weight + bench.tolerances.crosstalk
    text = bench.require_share(within((ratio / 2 - 1).abs(), bound), "of responses to two events are twice that to one")
    return f"{text}; median {float(ratio.median()):.3f}"


def integer_types_are_alike(bench: Bench) -> str:
    """Weights may come in any signed integer type; a deterministic device records the same."""
    weights = _random(bench, bench.width)
    spikes = bench.trials(bench.width, [[i] for i in range(bench.width)])
    bench.configure(bench.layer(bench.width, bench.width))
    types = [kind for kind in INTEGERS if torch.iinfo(kind).max >= bench.caps.weight_max]
    recordings = [bench.run({"input->neurons": weights.to(kind)}, spikes, clock=0) for kind in types]
    if bench.caps.deterministic:
        for kind, recording in zip(types[1:], recordings[1:], strict=True):
            changed = difference(recordings[0], recording)
            require(changed is None, f"{changed} differ between weights of {types[0]} and {kind}")
    return ", ".join(str(kind).removeprefix("torch.") for kind in types)


def merged_circuits_add_inputs(bench: Bench) -> str:
    """Neurons of two merged circuits have inputs on both, each with its own weight."""
    if bench.caps.max_merged < 2 or bench.caps.neuron_circuits < 2:
        raise NotApplicableError("the device cannot merge circuits")
    per_circuit = bench.caps.inputs_per_circuit
    inputs = per_circuit + 2
    size = min(4, bench.caps.neuron_circuits // 2)
    bench.require_room(inputs, -(-inputs // per_circuit), 2 * size)
    bench.require_response(max(1, bench.caps.weight_max // 2), bench.tolerances.weight + bench.tolerances.crosstalk)
    chosen = [0, per_circuit - 1, per_circuit, per_circuit + 1]
    generator = torch.Generator().manual_seed(2)
    weights = torch.zeros(size, inputs, dtype=bench.caps.weight_type)
    expected = torch.randint(
        max(1, bench.caps.weight_max // 2), bench.caps.weight_max + 1, (size, 4), generator=generator
    )
    expected = expected * torch.tensor([1, -1, 1, -1])
    weights[:, chosen] = expected.to(bench.caps.weight_type)
    bench.configure(bench.layer(inputs, size, merged=2))
    recording = bench.run({"input->neurons": weights}, bench.trials(inputs, [[i] for i in chosen]))
    ratio = bench.strengths(bench.swings(recording, 4)) / expected
    text = bench.require_share(
        within((ratio - 1).abs(), bench.tolerances.weight + bench.tolerances.crosstalk),
        "of responses have the size of their weight",
    )
    return f"inputs {', '.join(map(str, chosen))}: {text}"


def inputs_may_begin_later(bench: Bench) -> str:
    """Inputs of a population that stand at `first_input` and behind act like any other."""
    bench.require_response(max(1, bench.caps.weight_max // 3), bench.tolerances.weight)
    circuit = bench.layer(3, bench.width)
    rows = circuit.populations[0].merged * bench.caps.inputs_per_circuit
    if rows < 4:
        raise NotApplicableError(f"neurons have {rows} inputs, none of 3 could begin later")
    projection = Projection("input->neurons", INPUT, "neurons", 3, first_input=min(5, rows - 3))
    circuit = replace(circuit, projections=(projection,))
    bench.configure(circuit)
    weights = _random(bench, 3).repeat(bench.width, 1)[: bench.width]
    measured = bench.strengths(
        bench.swings(bench.run({"input->neurons": weights}, bench.trials(3, [[0], [1], [2]])), 3)
    )
    used = weights != 0
    return bench.require_share(
        within(((measured / weights)[used] - 1).abs(), bench.tolerances.weight),
        "of responses have the size of their weight",
    )


def sources_share_inputs(bench: Bench) -> str:
    """Sources that share a signed input act each with its own weight; two of them onto one neuron are refused."""
    if bench.caps.sources_per_input < 2:
        raise NotApplicableError("sources of the device do not share signed inputs (`sources_per_input`)")
    bench.require_response(max(1, bench.caps.weight_max // 3), bench.tolerances.weight)
    circuit = bench.layer(2, bench.width)
    bench.configure(replace(circuit, projections=(replace(circuit.projections[0], signed_inputs=(0, 0)),)))
    weights = torch.zeros(bench.width, 2, dtype=bench.caps.weight_type)
    strong = max(1, bench.caps.weight_max // 2)
    weights[0::2, 0] = strong
    weights[1::2, 1] = -strong
    recording = bench.run({"input->neurons": weights}, bench.trials(2, [[0], [1]]))
    measured = bench.strengths(bench.swings(recording, 2))
    used = weights != 0
    crosstalk = measured[~used].abs() / bench.caps.weight_max
    bench.require_share(within(crosstalk, bench.tolerances.crosstalk), "of neurons are deaf to the other source")
    text = bench.require_share(
        within(((measured / weights)[used] - 1).abs(), bench.tolerances.weight),
        "of responses have the size of their weight",
    )
    competing = {"input->neurons": torch.full_like(weights, strong)}
    refuses(
        lambda: bench.backend.run(competing, Stimulus(bench.quiet(2))),
        "weights of both sources onto a neuron",
        ("input",),
    )
    return text
