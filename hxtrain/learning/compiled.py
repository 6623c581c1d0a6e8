"""A layer's forward and backward pass on the CPU: what the kernels compute, with tensors in and out.

Work is shared between all cores: samples forward, neurons backward. So no two threads write to the same place, and the
result does not depend on their number.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.backends.spikes import GRID_TOLERANCE

from .model import Model
from .surrogate import SURROGATES, Surrogate

KINDS: dict[Surrogate, int] = {surrogate: kind for kind, surrogate in enumerate(SURROGATES.values())}
"""Surrogates that the kernels know, by their numbers there."""
LEAST = 100_000
"""Smallest share of a thread (values `[T, B, N]`); less is not worth the hand-over."""
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


class Grads(NamedTuple):
    """Gradients of the loss with respect to a layer's spikes `[T, B, N]`, membranes `[T, B, N]` and numbers of spikes
    `[B, N]`; None where it does not depend on them."""

    spikes: Tensor | None = None
    traces: Tensor | None = None
    counts: Tensor | None = None


NO_EVENTS = Grouped(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), 0)


def group_events(spikes: Spikes, dt: float, steps: int) -> Grouped:
    """Group events; those after the window are left out.

    Raises:
        ValueError: an event is out of range.
    """
    _check_events(spikes)
    offsets = torch.empty(spikes.samples * steps + 1, dtype=torch.int64)
    units = torch.empty_like(spikes.unit)
    events = map(_array, (spikes.sample, spikes.unit, spikes.time))
    _kernels().group_events(*events, dt, GRID_TOLERANCE, steps, _array(offsets), _array(units))
    return Grouped(offsets, units, spikes.units)


def bin_spikes(spikes: Spikes, dt: float, steps: int) -> tuple[Tensor, Grouped]:
    """Return spikes on a grid, float32 `[T, B, N]` of zeros and ones, and grouped.

    Raises:
        ValueError: an event is out of range.
    """
    _check_events(spikes)
    grid = torch.zeros(steps, spikes.samples, spikes.units)
    offsets = torch.empty(spikes.samples * steps + 1, dtype=torch.int64)
    units = torch.empty_like(spikes.unit)
    events = map(_array, (spikes.sample, spikes.unit, spikes.time))
    outputs = map(_array, (grid, offsets, units))
    found = _kernels().bin_spikes(*events, dt, GRID_TOLERANCE, *outputs)
    return grid, Grouped(offsets, units[:found], spikes.units)


def _check_events(spikes: Spikes) -> None:
    events = [_array(part) for part in (spikes.sample, spikes.unit, spikes.time)]
    bad = _kernels().first_bad(*events, spikes.samples, spikes.units)
    if bad >= 0:
        raise spikes.refusal(bad)


def count_events(events: Grouped, steps: int, samples: int) -> Tensor:
    """Return how many events each source has in each sample, float32 `[B, N]`."""
    counts = torch.empty(samples, events.sources)
    _kernels().count_events(_array(events.offsets), _array(events.units), steps, _array(counts))
    return counts


def membranes(codes: Tensor, unit: float) -> Tensor:
    """Return membranes float32 `[T, B, N]`, leak 0, of raw codes uint8 `[B, T, N]`, of which `unit` make 1."""
    traces = torch.empty(codes.shape[1], codes.shape[0], codes.shape[2])
    arguments, kernel = (_array(codes), np.float32(1 / unit), _array(traces)), _kernels().membranes
    _share(lambda begin, end: kernel(begin, end, *arguments), len(codes), codes.numel() // 4)
    return traces


def respond(
    weight: Tensor,
    inputs: Grouped | Tensor,
    shape: tuple[int, int, int],
    model: Model,
    spiking: bool,
    recurrent: Tensor | None,
) -> tuple[Tensor | None, Tensor, Grouped | None]:
    """Return spikes (None for a readout), membranes `[T, B, N]` of a layer of the twin, and the spikes grouped.

    Args:
        weight: `[N, J]`.
        inputs: grouped events, or spikes `[T, B, J]`.
        shape: T, B, N.
        model: of the layer.
        spiking: whether it fires. recurrent: weights `[N, N]`, if any.

    Raises:
        ValueError: events have another number of sources than the weights.
    """
    steps, samples, neurons = shape
    like = weight.detach()
    traces = like.new_empty(shape)
    spikes = like.new_empty(shape if spiking else (0, 0, 0))
    counts = torch.empty((samples, steps) if spiking else (0, 0), dtype=torch.int64)
    rooms = torch.empty((samples, steps * neurons) if spiking else (0, 0), dtype=torch.int32)
    arguments = _sources(like, inputs, recurrent)
    alpha, beta = _number(like, model.alpha), _number(like, model.beta)
    outputs = [_array(x) for x in (traces, spikes, counts, rooms)]
    kernel = _kernels().respond
    _share(lambda begin, end: kernel(begin, end, *arguments, alpha, beta, *outputs), samples, traces.numel())
    if not spiking:
        return None, traces, None
    grouped = Grouped(torch.empty(samples * steps + 1, dtype=torch.int64), counts.new_empty(int(counts.sum())), neurons)
    _kernels().join_rooms(*(_array(x) for x in (counts, rooms, grouped.offsets, grouped.units)))
    return spikes, traces, grouped


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
        ValueError: events have another number of sources than the weights, or there are not N neurons.
    """
    if fired.sources != weight.shape[0]:
        raise ValueError(f"spikes are of {fired.sources} neurons, the weights of {weight.shape[0]}; they must match")
    like = weight.detach()
    traces = like.new_empty(shape)
    arguments = [*_sources(like, inputs, recurrent), _array(fired.offsets), _array(fired.units)]
    alpha, beta = _number(like, model.alpha), _number(like, model.beta)
    kernel, output = _kernels().follow, _array(traces)
    _share(lambda begin, end: kernel(begin, end, *arguments, alpha, beta, output), shape[1], traces.numel())
    return traces


def _sources(weight: Tensor, inputs: Grouped | Tensor, recurrent: Tensor | None) -> list[Any]:
    """Return what drives a layer, as the kernels take it: offsets, units, weights, drive, recurrent weights."""
    none = weight.new_empty(0, 0)
    if isinstance(inputs, Grouped):
        if inputs.sources != weight.shape[1]:
            raise ValueError(f"events have {inputs.sources} sources, the weights {weight.shape[1]}; they must match")
        events, columns, drive = inputs, _padded(weight.t()), weight.new_empty(0, 0, 0)
    else:
        events, columns, drive = NO_EVENTS, none, inputs @ weight.t()
    own = none if recurrent is None else _padded(recurrent.detach().t())
    return [_array(x) for x in (events.offsets, events.units, columns, drive, own)]


def gradient(
    model: Model,
    spikes: Tensor | None,
    traces: Tensor,
    grads: Grads,
    behind: tuple[Tensor, Tensor] | None,
    events: Grouped | None,
    charges: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of each step's charge `[T, B, N]` (None unless wanted) and of the weights `[N, J]`.

    Args:
        model: of the layer; its surrogate is one of `KINDS`.
        spikes, traces: as measured `[T, B, N]`.
        grads: of the loss.
        behind: gradient of the charges `[T, B, M]` of the layer behind, and its weights `[M, N]`, if any: another
            gradient of the spikes.
        events: inputs; None: no gradient of weights.
        charges: whether the charges' gradient is wanted.
    """
    neurons = traces.shape[2]
    grad_charges = torch.empty_like(traces) if charges else traces.new_empty(0, 0, 0)
    grad_weight = traces.new_empty(0 if events is None else events.sources, neurons)
    offsets, units, _ = NO_EVENTS if events is None else events
    arguments = [_array(offsets), _array(units), *_backward_arguments(model, spikes, traces, grads, behind)]
    outputs, kernel = (_array(grad_charges), _array(grad_weight)), _backward().gradient
    _share(lambda first, last: kernel(first, last, *arguments, *outputs), neurons, traces.numel())
    return (grad_charges if charges else None), (None if events is None else grad_weight.t())


def saturating_gradient(
    model: Model,
    weight: Tensor,
    spikes: Tensor | None,
    traces: Tensor,
    grads: Grads,
    behind: tuple[Tensor, Tensor] | None,
    events: Grouped,
    charges: bool,
) -> tuple[Tensor | None, Tensor]:
    """Return what `saturation.gradient` does: gradients of charges (None unless wanted) and of the weights `[N, J]`.

    Args:
        weight: of the layer `[N, J]`.
        events: inputs.
        model, spikes, traces, grads, behind, charges: as of `gradient`; the model has a saturation.
    """
    assert model.saturation is not None
    limit, per_circuit, first_input = model.saturation
    steps, samples, neurons = traces.shape
    inputs = 2 * model.saturation.circuits(weight.shape[1])
    grad_charges = traces.new_empty((steps, samples, inputs * neurons) if charges else (0, 0, 0))
    grad_weight = traces.new_empty(weight.shape[1], neurons)
    synapses = weight.detach().t().contiguous()
    arguments = [
        *(_array(x) for x in (events.offsets, events.units, synapses)),
        _number(traces, limit), per_circuit, first_input, inputs,
        *_backward_arguments(model, spikes, traces, grads, behind),
    ]  # fmt: skip
    outputs, kernel = (_array(grad_charges), _array(grad_weight)), _backward().saturating_gradient
    _share(lambda first, last: kernel(first, last, *arguments, *outputs), neurons, traces.numel())
    return (grad_charges if charges else None), grad_weight.t()


def _backward_arguments(
    model: Model, spikes: Tensor | None, traces: Tensor, grads: Grads, behind: tuple[Tensor, Tensor] | None
) -> list[Any]:
    """Return what both backward kernels need of a layer, of `gradient`'s arguments."""
    grad_spikes = grads.spikes
    if behind is not None and behind[1].shape[0] > FEW_NEURONS:
        through = behind[0] @ behind[1]
        grad_spikes, behind = through if grad_spikes is None else grad_spikes + through, None
    flat, deep = traces.new_empty(0, 0), traces.new_empty(0, 0, 0)
    given = (
        traces if spikes is None else spikes,
        traces,
        deep if grad_spikes is None else grad_spikes,
        flat if grads.counts is None else grads.counts,
        deep if grads.traces is None else grads.traces,
        *((deep, flat) if behind is None else behind),
    )
    kind, at_threshold = KINDS.get(model.surrogate, 0), model.at_threshold and spikes is not None
    numbers = kind, _number(traces, model.slope), at_threshold, *(_number(traces, x) for x in (model.alpha, model.beta))
    return [*(_array(x.contiguous()) for x in given), *numbers]


def _padded(rows: Tensor) -> Tensor:
    """Return rows with as many zeros behind them that they are whole vectors."""
    padded = rows.new_zeros(rows.shape[0], (rows.shape[1] + 31) // 32 * 32)
    padded[:, : rows.shape[1]] = rows
    return padded


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


def _share(work: Callable[[int, int], object], count: int, values: int) -> None:
    """Share `count` items with so many values between the cores, the calling thread included."""
    parts = max(1, min(_cores(), count, values // LEAST))
    edges = [count * i // parts for i in range(parts + 1)]
    others = [_pool().submit(work, edges[i], edges[i + 1]) for i in range(1, parts)]
    work(edges[0], edges[1])
    for other in others:
        other.result()
