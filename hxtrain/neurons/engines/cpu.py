"""A layer's forward and backward pass on the CPU: the kernels with tensors as arguments and results.

All cores share the work. Each takes different neurons, or different samples if the neurons depend on each other. So no
two threads write to the same place, and the result does not depend on their number.
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
from hxtrain.neurons.events import Grads, GroupedEvents
from hxtrain.neurons.model import Model
from hxtrain.neurons.shapes import require, require_events
from hxtrain.neurons.surrogate import Surrogate, arctan, boxcar, gaussian, sigmoid, superspike, triangle

KINDS: dict[Surrogate, int] = {superspike: 0, triangle: 1, sigmoid: 2, gaussian: 3, arctan: 4, boxcar: 5}
"""Number of each surrogate in the kernels."""
MIN_SHARE = 150_000
"""Smallest share of a thread in values `[T, B, N]` of a backward pass (about 0.15 ms); a hand-over costs half of it."""
FEW_NEURONS = 32
"""Largest downstream layer whose products with its weights are part of the loop and are not stored, in neurons."""


def supports(tensor: Tensor, model: Model) -> bool:
    """Return whether the kernels support a tensor and the surrogate of a model."""
    is_supported = tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)
    return is_supported and model.surrogate in KINDS


class Codes(NamedTuple):
    """Membranes as a device recorded them; the first trace sample of each trial is its leak.

    Attributes:
        codes: Codes of the membranes, uint8 `[B, T, N]`.
        unit: Number of codes from leak to threshold.
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


class UnrecordedMembranes(NamedTuple):
    """UnrecordedMembranes membranes of a layer of the twin, as the values from which they can be computed.

    Attributes:
        weight: Copy of the layer's weights `[N, J]`; the weights of the network may change.
        recurrent: Copy of the recurrent weights `[N, N]`; None without recurrence.
        inputs: Input events.
        fired: Spikes of the layer.
        shape: T, B, N.
        model: Model of the layer.
    """

    weight: Tensor
    recurrent: Tensor | None
    inputs: GroupedEvents
    fired: GroupedEvents
    shape: tuple[int, int, int]
    model: Model

    def __repr__(self) -> str:
        """Describe the membranes in a line."""
        return f"UnrecordedMembranes({list(self.shape)} [T, B, N])"

    def trace(self) -> Tensor:
        """Return the membranes `[T, B, N]`."""
        return follow(self.weight, self.inputs, self.fired, self.shape, self.model, self.recurrent)


NO_EVENTS = GroupedEvents(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), 0)
NO_SPIKES = NO_EVENTS[:2]
NO_TRACES = torch.empty(0, 0, 0)
NO_CODES = Codes(torch.empty(0, 0, 0, dtype=torch.uint8), 1.0)


def group_events(spikes: Spikes, dt: float, steps: int) -> GroupedEvents:
    """Group events by sample and step; events after the window are left out.

    Raises:
        ValueError: an event is out of range, lengths differ, or there is no time grid.
    """
    return _group(_kernels().group_events, spikes, dt, steps)


def bin_spikes(spikes: Spikes, dt: float, steps: int) -> GroupedEvents:
    """Group spikes by sample and step; several spikes of a neuron in one step count once.

    Raises:
        ValueError: an event is out of range, lengths differ, or there is no time grid.
    """
    return _group(_kernels().bin_spikes, spikes, dt, steps)


def _group(kernel: Callable[..., int], spikes: Spikes, dt: float, steps: int) -> GroupedEvents:
    if not (dt > 0 and steps >= 1):
        raise ValueError(f"a time grid needs dt > 0 and at least one step, got dt={dt} s, steps={steps}")
    for name, part in (("sample", spikes.sample), ("unit", spikes.unit), ("time", spikes.time)):
        require(f"spikes.{name}", part, (len(spikes),), torch.float32 if name == "time" else torch.int64)
    offsets = np.empty(spikes.samples * steps + 1, np.int64)
    units = np.empty(len(spikes), np.int64)
    events = map(_array, (spikes.sample, spikes.unit, spikes.time))
    invalid_event = kernel(*events, spikes.samples, spikes.units, dt, GRID_TOLERANCE, offsets, units)
    if invalid_event >= 0:
        raise spikes.refusal(invalid_event)
    return GroupedEvents(torch.from_numpy(offsets), torch.from_numpy(units[: offsets[-1]]), spikes.units)


def to_grid(events: GroupedEvents, shape: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
    """Return a grid `[T, B, N]` with 1 for each event, and 0 elsewhere.

    Raises:
        ValueError: the events have another shape.
    """
    require_events("events", events, shape[0] * shape[1], shape[2])
    grid = torch.zeros(shape, dtype=dtype)
    _kernels().to_grid(_array(events.offsets), _array(events.units), _array(grid))
    return grid


def group_grid(grid: Tensor) -> GroupedEvents:
    """Group the ones of a grid of zeros and ones `[T, B, N]` by sample and step.

    Raises:
        ValueError: the grid has other values.
    """
    steps, samples, sources = grid.shape
    sample, step, unit = grid.permute(1, 0, 2).nonzero(as_tuple=True)
    values = grid[step, sample, unit]
    if not bool((values == 1).all()):
        invalid = values[values != 1][0].item()
        raise ValueError(f"a grid of spikes has the value {invalid:g}, but only zeros and ones are spikes; use those")
    counts = torch.bincount(sample * steps + step, minlength=samples * steps)
    return GroupedEvents(torch.cat([counts.new_zeros(1), counts.cumsum(0)]), unit, sources)


def count_events(events: GroupedEvents, steps: int, samples: int) -> Tensor:
    """Return the number of events of each source in each sample, float32 `[B, N]`.

    Raises:
        ValueError: the events have another shape.
    """
    require_events("events", events, steps * samples, events.sources)
    counts = torch.empty(samples, events.sources, dtype=torch.float32)
    _kernels().count_events(_array(events.offsets), _array(events.units), steps, _array(counts))
    return counts


def membranes(codes: Tensor, unit: float) -> Tensor:
    """Return membranes float32 `[T, B, N]` of raw codes uint8 `[B, T, N]`; the leak is 0, and `unit` codes are 1.

    Raises:
        ValueError: there is no trace sample, or the codes have another type.
    """
    if codes.dim() != 3 or codes.shape[1] == 0 or codes.dtype != torch.uint8:
        raise ValueError(f"codes: expected torch.uint8 [B, T, N] with T > 0, got {codes.dtype} {tuple(codes.shape)}")
    traces = torch.empty(codes.shape[1], codes.shape[0], codes.shape[2], dtype=torch.float32)
    arguments = (_array(codes), np.float32(1 / unit), _array(traces))
    kernel = _kernels().membranes
    _share(lambda part, begin, end: kernel(begin, end, *arguments), _edges(len(codes), codes.numel() // 4))
    return traces


def respond(
    weight: Tensor,
    inputs: GroupedEvents | Tensor,
    shape: tuple[int, int, int],
    model: Model,
    spiking: bool,
    recurrent: Tensor | None,
    recorded: bool = True,
) -> tuple[GroupedEvents | None, Tensor]:
    """Return spikes (None for a readout) and membranes `[T, B, N]` of a layer of the twin.

    Args:
        weight: Weights of the inputs `[N, J]`.
        inputs: Grouped events, or spikes `[T, B, J]`.
        shape: T, B, N.
        model: Model of the layer.
        spiking: Whether the neurons spike; False for a readout.
        recurrent: Recurrent weights `[N, N]`; None without recurrence.
        recorded: Whether membranes are recorded; if not, they are empty.

    Raises:
        ValueError: the shapes or types of the arguments do not match.
    """
    steps, samples, neurons = shape
    _check_drive(weight, inputs, shape, recurrent)
    traces = weight.new_empty(shape if recorded else (0, 0, 0))
    # A thread takes neurons, as in the backward pass, which then finds their data in the thread's cache. Recurrent
    # neurons depend on each other, so that a thread takes samples.
    is_recurrent = recurrent is not None
    edges = _edges(samples if is_recurrent else neurons, prod(shape) // 2)
    parts = len(edges) - 1
    max_size = max(b - a for a, b in pairwise(edges))
    capacity = steps * max_size * (neurons if is_recurrent else samples) if spiking else 0
    buffers = np.empty((parts, capacity), np.int32)
    counts = np.zeros((parts, samples, steps if spiking else 0), np.int64)
    arguments = _sources(weight, inputs, recurrent)
    numbers = _number(weight, model.alpha), _number(weight, model.beta), _array(traces), spiking
    kernel = _kernels().respond

    def work(part: int, begin: int, end: int) -> None:
        spans = (begin, end, 0, neurons) if is_recurrent else (0, samples, begin, end)
        kernel(*spans, shape, *arguments, *numbers, counts[part], buffers[part])

    _share(work, edges)
    if not spiking:
        return None, traces
    offsets = np.empty(samples * steps + 1, np.int64)
    units = np.empty(counts.sum(), np.int64)
    _kernels().join_buffers(counts, buffers, offsets, units)
    return GroupedEvents(torch.from_numpy(offsets), torch.from_numpy(units), neurons), traces


def follow(
    weight: Tensor,
    inputs: GroupedEvents | Tensor,
    fired: GroupedEvents,
    shape: tuple[int, int, int],
    model: Model,
    recurrent: Tensor | None,
) -> Tensor:
    """Return membranes `[T, B, N]` of a layer of the twin with prescribed spikes.

    The prescribed spikes reset the membranes, and drive the recurrent synapses.

    Args:
        weight: Weights of the inputs `[N, J]`.
        inputs: Grouped events, or spikes `[T, B, J]`.
        fired: Spikes of the layer, at most one per neuron and step.
        shape: T, B, N.
        model: Model of the layer.
        recurrent: Recurrent weights `[N, N]`; None without recurrence.

    Raises:
        ValueError: the shapes or types of the arguments do not match.
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
    weight: Tensor, inputs: GroupedEvents | Tensor, shape: tuple[int, int, int], recurrent: Tensor | None
) -> None:
    """Refuse a drive whose shapes do not belong to one layer of the twin; the arguments are as in `respond`."""
    steps, samples, neurons = shape
    _check_grid(shape)
    sources = weight.shape[-1]
    require("weights", weight, (neurons, sources), weight.dtype)
    require("recurrent weights", recurrent, (neurons, neurons), weight.dtype)
    if isinstance(inputs, GroupedEvents):
        require_events("events", inputs, steps * samples, sources)
    else:
        require("inputs", inputs, (steps, samples, sources), weight.dtype)


def _check_grid(shape: tuple[int, int, int]) -> None:
    if shape[0] < 1:
        raise ValueError(f"a layer needs at least one step, got T, B, N = {tuple(shape)}")


def _sources(weight: Tensor, inputs: GroupedEvents | Tensor, recurrent: Tensor | None) -> list[Any]:
    """Return the drive of a layer as arguments of the kernels: offsets, units, weights, drive, recurrent weights."""
    no_weights = weight.new_empty(0, 0)
    if isinstance(inputs, GroupedEvents):
        events = inputs
        synapses = weight
        drive = weight.new_empty(0, 0, 0)
    else:
        events = NO_EVENTS
        synapses = no_weights
        drive = inputs @ weight.t()
    feedback = no_weights if recurrent is None else recurrent
    return [_array(x.contiguous()) for x in (events.offsets, events.units, synapses, drive, feedback)]


def gradient(
    model: Model,
    fired: GroupedEvents | None,
    membrane: Tensor | Codes,
    grads: Grads,
    downstream: tuple[Tensor, Tensor] | None,
    events: GroupedEvents | None,
    charges: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of each step's charge `[T, B, N]` and of the weights `[N, J]`; None if not requested.

    Args:
        model: Model of the layer; its surrogate is one of `KINDS`.
        fired: Measured spikes; None for a readout.
        membrane: Measured membranes `[T, B, N]`, or their codes (float32 only).
        grads: Gradients of the loss.
        downstream: Gradient of the charges `[T, B, M]` and weights `[M, N]` of the downstream layer, through which the
            loss depends on the spikes, too; None without such a layer.
        events: Input events; None if the gradient of the weights is not requested.
        charges: Whether the gradient of the charges is requested.

    Raises:
        ValueError: the shapes or types of the arguments do not match.
    """
    _check_backward(fired, membrane, grads, downstream, events)
    like = _like(membrane)
    shape = membrane.shape
    grad_charges = like.new_empty(shape if charges else (0, 0, 0))
    grad_weight = like.new_empty((0, 0) if events is None else (shape[2], events.sources))
    offsets, units, _ = NO_EVENTS if events is None else events
    arguments = [_array(offsets), _array(units), *_backward_arguments(model, fired, membrane, grads, downstream)]
    outputs = (_array(grad_charges), _array(grad_weight))
    kernel = _backward().gradient
    _share(lambda part, first, last: kernel(first, last, *arguments, *outputs), _edges(shape[2], prod(shape)))
    return (grad_charges if charges else None), (None if events is None else grad_weight)


def saturating_gradient(
    model: Model,
    weight: Tensor,
    fired: GroupedEvents | None,
    membrane: Tensor | Codes,
    grads: Grads,
    downstream: tuple[Tensor, Tensor] | None,
    events: GroupedEvents,
    charges: bool,
) -> tuple[Tensor | None, Tensor]:
    """Return the gradients of charges (None if not requested) and of the weights `[N, J]`, as `saturation.gradient`.

    Args:
        model: Model of the layer, with a saturation; its surrogate is one of `KINDS`.
        weight: Weights of the layer `[N, J]`.
        fired: As in `gradient`.
        membrane: As in `gradient`.
        grads: As in `gradient`.
        downstream: As in `gradient`.
        events: Input events.
        charges: As in `gradient`.

    Raises:
        ValueError: the shapes or types of the arguments do not match.
    """
    assert model.saturation is not None
    _check_backward(fired, membrane, grads, downstream, events)
    require("weights", weight, (membrane.shape[2], events.sources), _like(membrane).dtype)
    limit, per_circuit, first_input = model.saturation
    like = _like(membrane)
    shape = membrane.shape
    inputs = 2 * model.saturation.circuits(weight.shape[1])
    grad_charges = like.new_empty((shape[0], shape[1], inputs * shape[2]) if charges else (0, 0, 0))
    grad_weight = like.new_empty(weight.shape)
    arguments = [
        *(_array(x) for x in (events.offsets, events.units, weight.contiguous())),
        _number(like, limit), per_circuit, first_input, inputs,
        *_backward_arguments(model, fired, membrane, grads, downstream),
    ]  # fmt: skip
    outputs = (_array(grad_charges), _array(grad_weight))
    kernel = _backward().saturating_gradient
    _share(lambda part, first, last: kernel(first, last, *arguments, *outputs), _edges(shape[2], prod(shape)))
    return (grad_charges if charges else None), grad_weight


def _check_backward(
    fired: GroupedEvents | None,
    membrane: Tensor | Codes,
    grads: Grads,
    downstream: tuple[Tensor, Tensor] | None,
    events: GroupedEvents | None,
) -> None:
    """Refuse data of a backward pass whose shapes do not belong to one layer; the arguments are as in `gradient`."""
    if len(membrane.shape) != 3:
        raise ValueError(f"membrane: expected [T, B, N], got {tuple(membrane.shape)}")
    steps, samples, neurons = membrane.shape
    shape = (steps, samples, neurons)
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
    if downstream is not None:
        charge, weight = downstream
        require("weights of the downstream layer", weight, (weight.shape[0], neurons), dtype)
        require("charges of the downstream layer", charge, (steps, samples, weight.shape[0]), dtype)


def _like(membrane: Tensor | Codes) -> Tensor:
    """Return a tensor with the precision in which a layer's gradient is computed."""
    return membrane if isinstance(membrane, Tensor) else NO_TRACES


def _backward_arguments(
    model: Model,
    fired: GroupedEvents | None,
    membrane: Tensor | Codes,
    grads: Grads,
    downstream: tuple[Tensor, Tensor] | None,
) -> list[Any]:
    """Return the arguments that both backward kernels share; the arguments are as in `gradient`."""
    grad_spikes = grads.spikes
    like = _like(membrane)
    if downstream is not None and downstream[1].shape[0] > FEW_NEURONS:
        grad_downstream = downstream[0] @ downstream[1]
        grad_spikes = grad_downstream if grad_spikes is None else grad_spikes + grad_downstream
        downstream = None
    empty_matrix = like.new_empty(0, 0)
    empty_grid = like.new_empty(0, 0, 0)
    offsets, units = NO_SPIKES if fired is None or not model.at_threshold else fired[:2]
    codes, unit = membrane if isinstance(membrane, Codes) else NO_CODES
    flat_codes, strides = _flat(codes)
    gradients = (
        empty_grid if grad_spikes is None else grad_spikes,
        empty_matrix if grads.counts is None else grads.counts,
        empty_grid if grads.traces is None else grads.traces,
        *((empty_grid, empty_matrix) if downstream is None else downstream),
    )
    numbers = (_number(like, x) for x in (model.slope, model.alpha, model.beta))
    return [
        tuple(membrane.shape), *(_array(x) for x in (offsets, units, like.contiguous(), flat_codes)), strides,
        np.float32(1 / unit), *(_array(x.contiguous()) for x in gradients), KINDS.get(model.surrogate, 0), *numbers,
    ]  # fmt: skip


def _flat(codes: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Return codes `[B, T, N]` flat, in the order of memory, and the strides of trials and of trace samples.

    With the strides, one compiled loop serves whole recordings and parts of them.
    """
    if codes.numel() > 0 and codes.stride(2) != 1:
        codes = codes.contiguous()
    span = 1 + sum((size - 1) * stride for size, stride in zip(codes.shape, codes.stride(), strict=True))
    return codes.as_strided((span if codes.numel() else 0,), (1,)), (codes.stride(0), codes.stride(1))


@cache
def _kernels() -> Any:
    """Return the compiled loops; they are imported with the first call, since the import of numba is slow."""
    from . import forward_kernels as kernels

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
    """Return the start of each core's share, and the end, of `count` items with `values` values in total."""
    parts = max(1, min(_cores(), count, values // MIN_SHARE))
    return [count * i // parts for i in range(parts + 1)]


def _share(work: Callable[[int, int, int], object], edges: Sequence[int]) -> None:
    """Call `work` with number, start and end of each share, each on a core of its own.

    The calling thread works on the first share. It then takes the shares that no other thread has started, since other
    cores may be busy.
    """
    spans = list(enumerate(pairwise(edges)))
    futures = [_pool().submit(work, part, *span) for part, span in spans[1:]]
    work(0, *spans[0][1])
    for future, (part, span) in reversed([*zip(futures, spans[1:], strict=True)]):
        if future.cancel():
            work(part, *span)
    for future in futures:
        if not future.cancelled():
            future.result()
