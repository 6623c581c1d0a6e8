"""A layer's forward and backward pass on the CPU: what the kernels compute, with tensors in and out.

Work is shared between all cores, which take different neurons (samples, where neurons need each other). So no two
threads write to the same place, and the result does not depend on their number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.backends.spikes import GRID_TOLERANCE

from .model import Model
from .shapes import require, require_events
from .surrogate import SURROGATES, Surrogate

KINDS: dict[Surrogate, int] = {surrogate: kind for kind, surrogate in enumerate(SURROGATES.values())}
"""Surrogates that the kernels know, by their numbers there."""
LEAST = 150_000
"""Smallest share of a thread (values `[T, B, N]` of a backward pass, some 0.15 ms); less is not worth the hand-over."""
FEW_NEURONS = 32
"""Up to so many neurons of the layer behind, products with its weights are part of the loop, and nothing is stored."""


def supports(tensor: Tensor, model: Model) -> bool:
    """Return whether the kernels take a tensor and know a model's surrogate."""
    known = tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)
    return known and model.surrogate in KINDS


class Grouped(NamedTuple):
    """Events grouped by sample and step.

    Attributes:
        offsets: int64 `[B T + 1]`: events of sample b in step t begin at `offsets[b * T + t]`.
        units: sources, int64 `[E]`.
        sources: number of sources.
    """

    offsets: Tensor
    units: Tensor
    sources: int


class Codes(NamedTuple):
    """Membranes as a device recorded them; each trial's first sample is its leak.

    Attributes:
        codes: uint8 `[B, T, N]`.
        unit: codes from leak to threshold.
    """

    codes: Tensor
    unit: float

    def __repr__(self) -> str:
        """Describe the codes in a line."""
        return f"Codes({list(self.codes.shape)} [B, T, N], {self.unit:.4g} from leak to threshold)"

    @property
    def shape(self) -> tuple[int, int, int]:
        """T, B, N."""
        samples, steps, neurons = self.codes.shape
        return steps, samples, neurons

    def trace(self) -> Tensor:
        """Return the membranes `[T, B, N]`."""
        return membranes(self.codes, self.unit)


class Unrecorded(NamedTuple):
    """Membranes of a layer of the twin that were not recorded: what they follow from.

    Attributes:
        weight: `[N, J]`, not that of the network, which may change. recurrent: likewise `[N, N]`, if any.
        inputs, fired: events, and the layer's spikes. shape: T, B, N. model: of the layer.
    """

    weight: Tensor
    recurrent: Tensor | None
    inputs: Grouped
    fired: Grouped
    shape: tuple[int, int, int]
    model: Model

    def __repr__(self) -> str:
        """Describe the membranes in a line."""
        return f"Unrecorded({list(self.shape)} [T, B, N])"

    def trace(self) -> Tensor:
        """Return the membranes `[T, B, N]`."""
        return follow(self.weight, self.inputs, self.fired, self.shape, self.model, self.recurrent)


class Grads(NamedTuple):
    """Gradients of the loss with respect to a layer's spikes `[T, B, N]`, membranes `[T, B, N]` and numbers of spikes
    `[B, N]`; None where it does not depend on them."""

    spikes: Tensor | None = None
    traces: Tensor | None = None
    counts: Tensor | None = None


NO_EVENTS = Grouped(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), 0)
NO_SPIKES = NO_EVENTS[:2]
NO_TRACES = torch.empty(0, 0, 0)
NO_CODES = Codes(torch.empty(0, 0, 0, dtype=torch.uint8), 1.0)


def group_events(spikes: Spikes, dt: float, steps: int) -> Grouped:
    """Group events; those after the window are left out.

    Raises:
        ValueError: an event is out of range, lengths differ, or there is no time grid.
    """
    return _group(_kernels().group_events, spikes, dt, steps)


def bin_spikes(spikes: Spikes, dt: float, steps: int) -> Grouped:
    """Group spikes; those of a neuron in one step count once.

    Raises:
        ValueError: an event is out of range, lengths differ, or there is no time grid.
    """
    return _group(_kernels().bin_spikes, spikes, dt, steps)


def _group(kernel: Callable[..., int], spikes: Spikes, dt: float, steps: int) -> Grouped:
    if not (dt > 0 and steps >= 1):
        raise ValueError(f"a time grid needs dt > 0 and at least one step, got dt={dt} s, steps={steps}")
    for name, part in (("sample", spikes.sample), ("unit", spikes.unit), ("time", spikes.time)):
        require(f"spikes.{name}", part, (len(spikes),), torch.float32 if name == "time" else torch.int64)
    offsets, units = np.empty(spikes.samples * steps + 1, np.int64), np.empty(len(spikes), np.int64)
    events = map(_array, (spikes.sample, spikes.unit, spikes.time))
    bad = kernel(*events, spikes.samples, spikes.units, dt, GRID_TOLERANCE, offsets, units)
    if bad >= 0:
        raise spikes.refusal(bad)
    return Grouped(torch.from_numpy(offsets), torch.from_numpy(units[: offsets[-1]]), spikes.units)


def to_grid(events: Grouped, shape: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
    """Return a grid `[T, B, N]` with 1 where there is an event.

    Raises:
        ValueError: the events are of another shape.
    """
    require_events("events", events, shape[0] * shape[1], shape[2])
    grid = torch.zeros(shape, dtype=dtype)
    _kernels().to_grid(_array(events.offsets), _array(events.units), _array(grid))
    return grid


def group_grid(grid: Tensor) -> Grouped:
    """Group the ones of a grid of zeros and ones `[T, B, N]`.

    Raises:
        ValueError: it has other values.
    """
    steps, samples, sources = grid.shape
    sample, step, unit = grid.permute(1, 0, 2).nonzero(as_tuple=True)
    values = grid[step, sample, unit]
    if not bool((values == 1).all()):
        other = values[values != 1][0].item()
        raise ValueError(f"a grid of spikes has the value {other:g}, but only zeros and ones are spikes; use those")
    counts = torch.bincount(sample * steps + step, minlength=samples * steps)
    return Grouped(torch.cat([counts.new_zeros(1), counts.cumsum(0)]), unit, sources)


def count_events(events: Grouped, steps: int, samples: int) -> Tensor:
    """Return how many events each source has in each sample, float32 `[B, N]`.

    Raises:
        ValueError: the events are of another shape.
    """
    require_events("events", events, steps * samples, events.sources)
    counts = torch.empty(samples, events.sources, dtype=torch.float32)
    _kernels().count_events(_array(events.offsets), _array(events.units), steps, _array(counts))
    return counts


def membranes(codes: Tensor, unit: float) -> Tensor:
    """Return membranes float32 `[T, B, N]`, leak 0, of raw codes uint8 `[B, T, N]`, of which `unit` make 1.

    Raises:
        ValueError: there is no sample, or codes have another type.
    """
    if codes.dim() != 3 or codes.shape[1] == 0 or codes.dtype != torch.uint8:
        raise ValueError(f"codes: expected torch.uint8 [B, T, N] with T > 0, got {codes.dtype} {tuple(codes.shape)}")
    traces = torch.empty(codes.shape[1], codes.shape[0], codes.shape[2], dtype=torch.float32)
    arguments, kernel = (_array(codes), np.float32(1 / unit), _array(traces)), _kernels().membranes
    _share(lambda part, begin, end: kernel(begin, end, *arguments), _edges(len(codes), codes.numel() // 4))
    return traces


def respond(
    weight: Tensor,
    inputs: Grouped | Tensor,
    shape: tuple[int, int, int],
    model: Model,
    spiking: bool,
    recurrent: Tensor | None,
    recorded: bool = True,
) -> tuple[Grouped | None, Tensor]:
    """Return spikes (None for a readout) and membranes `[T, B, N]` of a layer of the twin.

    Args:
        weight: `[N, J]`.
        inputs: grouped events, or spikes `[T, B, J]`.
        shape: T, B, N.
        model: of the layer.
        spiking: whether it fires. recurrent: weights `[N, N]`, if any.
        recorded: whether membranes are wanted; else they are empty.

    Raises:
        ValueError: a shape or type does not match the others.
    """
    steps, samples, neurons = shape
    _check_drive(weight, inputs, shape, recurrent)
    traces = weight.new_empty(shape if recorded else (0, 0, 0))
    # a thread takes neurons, as backward, so that what it reads then is in its cache; recurrent ones need each other
    together = recurrent is not None
    edges = _edges(samples if together else neurons, prod(shape) // 2)
    parts, widest = len(edges) - 1, max(b - a for a, b in pairwise(edges))
    room = steps * widest * (neurons if together else samples) if spiking else 0
    rooms, counts = np.empty((parts, room), np.int32), np.zeros((parts, samples, steps if spiking else 0), np.int64)
    arguments = _sources(weight, inputs, recurrent)
    numbers = _number(weight, model.alpha), _number(weight, model.beta), _array(traces), spiking
    kernel = _kernels().respond

    def work(part: int, begin: int, end: int) -> None:
        spans = (begin, end, 0, neurons) if together else (0, samples, begin, end)
        kernel(*spans, shape, *arguments, *numbers, counts[part], rooms[part])

    _share(work, edges)
    if not spiking:
        return None, traces
    offsets, units = np.empty(samples * steps + 1, np.int64), np.empty(counts.sum(), np.int64)
    _kernels().join_buffers(counts, rooms, offsets, units)
    return Grouped(torch.from_numpy(offsets), torch.from_numpy(units), neurons), traces


def follow(
    weight: Tensor,
    inputs: Grouped | Tensor,
    fired: Grouped,
    shape: tuple[int, int, int],
    model: Model,
    recurrent: Tensor | None,
) -> Tensor:
    """Return membranes `[T, B, N]` of a layer of the twin whose spikes are given: they reset it, and feed back.

    Args:
        weight: `[N, J]`.
        inputs: grouped events, or spikes `[T, B, J]`.
        fired: the layer's spikes, at most one per neuron and step.
        shape: T, B, N.
        model: of the layer.
        recurrent: weights `[N, N]`, if any.

    Raises:
        ValueError: a shape or type does not match the others.
    """
    _check_drive(weight, inputs, shape, recurrent)
    if fired.sources != shape[2]:
        raise ValueError(f"spikes are of {fired.sources} neurons, the weights of {shape[2]}; they must match")
    require_events("spikes", fired, shape[0] * shape[1], shape[2])
    traces = weight.new_empty(shape)
    arguments = [*_sources(weight, inputs, recurrent), _array(fired.offsets), _array(fired.units)]
    arguments += [_number(weight, model.alpha), _number(weight, model.beta), _array(traces)]
    kernel = _kernels().follow
    _share(lambda part, begin, end: kernel(begin, end, *arguments), _edges(shape[1], prod(shape)))
    return traces


def _check_drive(
    weight: Tensor, inputs: Grouped | Tensor, shape: tuple[int, int, int], recurrent: Tensor | None
) -> None:
    """Refuse what drives a layer of the twin unless all of it is of one layer; arguments as those of `respond`."""
    steps, samples, neurons = shape
    _check_grid(shape)
    sources = weight.shape[-1]
    require("weights", weight, (neurons, sources), weight.dtype)
    require("recurrent weights", recurrent, (neurons, neurons), weight.dtype)
    if isinstance(inputs, Grouped):
        require_events("events", inputs, steps * samples, sources)
    else:
        require("inputs", inputs, (steps, samples, sources), weight.dtype)


def _check_grid(shape: tuple[int, int, int]) -> None:
    if shape[0] < 1:
        raise ValueError(f"a layer needs at least one step, got T, B, N = {tuple(shape)}")


def _sources(weight: Tensor, inputs: Grouped | Tensor, recurrent: Tensor | None) -> list[Any]:
    """Return what drives a layer, as the kernels take it: offsets, units, weights, drive, recurrent weights."""
    none = weight.new_empty(0, 0)
    if isinstance(inputs, Grouped):
        events, synapses, drive = inputs, weight, weight.new_empty(0, 0, 0)
    else:
        events, synapses, drive = NO_EVENTS, none, inputs @ weight.t()
    own = none if recurrent is None else recurrent
    return [_array(x.contiguous()) for x in (events.offsets, events.units, synapses, drive, own)]


def gradient(
    model: Model,
    fired: Grouped | None,
    membrane: Tensor | Codes,
    grads: Grads,
    behind: tuple[Tensor, Tensor] | None,
    events: Grouped | None,
    charges: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of each step's charge `[T, B, N]` (None unless wanted) and of the weights `[N, J]`.

    Args:
        model: of the layer; its surrogate is one of `KINDS`.
        fired: spikes as measured.
        membrane: likewise `[T, B, N]`, or as codes (of float32).
        grads: of the loss.
        behind: gradient of the charges `[T, B, M]` of the layer behind, and its weights `[M, N]`, if any: another
            gradient of the spikes.
        events: inputs; None: no gradient of weights.
        charges: whether the charges' gradient is wanted.

    Raises:
        ValueError: a shape or type does not match the others.
    """
    _check_backward(fired, membrane, grads, behind, events)
    like, shape = _like(membrane), membrane.shape
    grad_charges = like.new_empty(shape if charges else (0, 0, 0))
    grad_weight = like.new_empty((0, 0) if events is None else (shape[2], events.sources))
    offsets, units, _ = NO_EVENTS if events is None else events
    arguments = [_array(offsets), _array(units), *_backward_arguments(model, fired, membrane, grads, behind)]
    outputs, kernel = (_array(grad_charges), _array(grad_weight)), _backward().gradient
    _share(lambda part, first, last: kernel(first, last, *arguments, *outputs), _edges(shape[2], prod(shape)))
    return (grad_charges if charges else None), (None if events is None else grad_weight)


def saturating_gradient(
    model: Model,
    weight: Tensor,
    fired: Grouped | None,
    membrane: Tensor | Codes,
    grads: Grads,
    behind: tuple[Tensor, Tensor] | None,
    events: Grouped,
    charges: bool,
) -> tuple[Tensor | None, Tensor]:
    """Return what `saturation.gradient` does: gradients of charges (None unless wanted) and of the weights `[N, J]`.

    Args:
        weight: of the layer `[N, J]`.
        events: inputs.
        model, fired, membrane, grads, behind, charges: as of `gradient`; the model has a saturation.

    Raises:
        ValueError: a shape or type does not match the others.
    """
    assert model.saturation is not None
    _check_backward(fired, membrane, grads, behind, events)
    require("weights", weight, (membrane.shape[2], events.sources), _like(membrane).dtype)
    limit, per_circuit, first_input = model.saturation
    like, shape = _like(membrane), membrane.shape
    inputs = 2 * model.saturation.circuits(weight.shape[1])
    grad_charges = like.new_empty((shape[0], shape[1], inputs * shape[2]) if charges else (0, 0, 0))
    grad_weight = like.new_empty(weight.shape)
    arguments = [
        *(_array(x) for x in (events.offsets, events.units, weight.contiguous())),
        _number(like, limit), per_circuit, first_input, inputs,
        *_backward_arguments(model, fired, membrane, grads, behind),
    ]  # fmt: skip
    outputs, kernel = (_array(grad_charges), _array(grad_weight)), _backward().saturating_gradient
    _share(lambda part, first, last: kernel(first, last, *arguments, *outputs), _edges(shape[2], prod(shape)))
    return (grad_charges if charges else None), grad_weight


def _check_backward(
    fired: Grouped | None,
    membrane: Tensor | Codes,
    grads: Grads,
    behind: tuple[Tensor, Tensor] | None,
    events: Grouped | None,
) -> None:
    """Refuse what a backward pass needs unless all of it is of one layer; arguments as those of `gradient`."""
    if len(membrane.shape) != 3:
        raise ValueError(f"membrane: expected [T, B, N], got {tuple(membrane.shape)}")
    steps, samples, neurons = shape = (membrane.shape[0], membrane.shape[1], membrane.shape[2])
    _check_grid(shape)
    dtype = _like(membrane).dtype
    if isinstance(membrane, Codes):
        require("codes", membrane.codes, (samples, steps, neurons), torch.uint8)
    require_events("spikes", fired, steps * samples, neurons)
    if events is not None:
        require_events("events", events, steps * samples, events.sources)
    require("gradient of spikes", grads.spikes, shape, dtype)
    require("gradient of membranes", grads.traces, shape, dtype)
    require("gradient of numbers of spikes", grads.counts, (samples, neurons), dtype)
    if behind is not None:
        charge, weight = behind
        require("weights of the layer behind", weight, (weight.shape[0], neurons), dtype)
        require("charges of the layer behind", charge, (steps, samples, weight.shape[0]), dtype)


def _like(membrane: Tensor | Codes) -> Tensor:
    """Return a tensor of the precision in which a layer's gradient is computed."""
    return membrane if isinstance(membrane, Tensor) else NO_TRACES


def _backward_arguments(
    model: Model,
    fired: Grouped | None,
    membrane: Tensor | Codes,
    grads: Grads,
    behind: tuple[Tensor, Tensor] | None,
) -> list[Any]:
    """Return what both backward kernels need of a layer, of `gradient`'s arguments."""
    grad_spikes, like = grads.spikes, _like(membrane)
    if behind is not None and behind[1].shape[0] > FEW_NEURONS:
        through = behind[0] @ behind[1]
        grad_spikes, behind = through if grad_spikes is None else grad_spikes + through, None
    flat, deep = like.new_empty(0, 0), like.new_empty(0, 0, 0)
    offsets, units = NO_SPIKES if fired is None or not model.at_threshold else fired[:2]
    codes, unit = membrane if isinstance(membrane, Codes) else NO_CODES
    flat_codes, strides = _flat(codes)
    given = (
        deep if grad_spikes is None else grad_spikes,
        flat if grads.counts is None else grads.counts,
        deep if grads.traces is None else grads.traces,
        *((deep, flat) if behind is None else behind),
    )
    numbers = (_number(like, x) for x in (model.slope, model.alpha, model.beta))
    return [
        tuple(membrane.shape), *(_array(x) for x in (offsets, units, like.contiguous(), flat_codes)), strides,
        np.float32(1 / unit), *(_array(x.contiguous()) for x in given), KINDS.get(model.surrogate, 0), *numbers,
    ]  # fmt: skip


def _flat(codes: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Return codes `[B, T, N]` as they lie in memory, one behind the other, and how far apart trials and samples are.

    So one compiled loop serves whole recordings and parts of them.
    """
    if codes.numel() > 0 and codes.stride(2) != 1:
        codes = codes.contiguous()
    span = 1 + sum((size - 1) * stride for size, stride in zip(codes.shape, codes.stride(), strict=True))
    return codes.as_strided((span if codes.numel() else 0,), (1,)), (codes.stride(0), codes.stride(1))


@cache
def _kernels() -> Any:
    """Return the compiled loops; not imported before they are needed, for numba takes its time."""
    from . import kernels

    return kernels


@cache
def _backward() -> Any:
    from . import backward_kernels

    return backward_kernels


def _array(tensor: Tensor) -> Any:
    return tensor.detach().numpy()


def _number(like: Tensor, value: float) -> Any:
    return np.float32(value) if like.dtype == torch.float32 else np.float64(value)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_cores(), thread_name_prefix="hxtrain-host")


@cache
def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _edges(count: int, values: int) -> list[int]:
    """Return where the share of each core begins of so many items, with so many values, and the end."""
    parts = max(1, min(_cores(), count, values // LEAST))
    return [count * i // parts for i in range(parts + 1)]


def _share(work: Callable[[int, int, int], object], edges: Sequence[int]) -> None:
    """Do each share (its number, begin and end) on a core of its own, the first on the calling thread.

    That thread also does what no other one has begun until then: a core may be busy elsewhere.
    """
    spans = list(enumerate(pairwise(edges)))
    others = [_pool().submit(work, part, *span) for part, span in spans[1:]]
    work(0, *spans[0][1])
    for other, (part, span) in reversed([*zip(others, spans[1:], strict=True)]):
        if other.cancel():
            work(part, *span)
    for other in others:
        if not other.cancelled():
            other.result()
