"""The engine for CPUs: loops compiled with numba, with tensors as arguments and results (decision 0008).

All cores share the work. Each takes different neurons, or different samples if the neurons depend on each other.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.neurons import conversion
from hxtrain.neurons.events import Grads, GroupedEvents
from hxtrain.neurons.jit import Float, Number
from hxtrain.neurons.measured import Codes, MembraneSource, SpikeGrid
from hxtrain.neurons.model import Model
from hxtrain.neurons.shapes import check_backward, check_drive, require
from hxtrain.neurons.threads import edges_of, run_loop, run_shares, small_edges

from . import cpu_backward, cpu_forward, cpu_recurrent, cpu_saturating
from .cpu_backward import MeasuredPass, OutputGradients, RecordedMembranes, Results
from .cpu_forward import Drive, Groups, Part, SpikeBuffer
from .cpu_held import Hold
from .cpu_recurrent import RecurrentResults, RecurrentSynapses
from .cpu_saturating import SaturatingSynapses
from .engine import Demand, Engine, LayerGradients, ModelLayer, UnrecordedMembranes, weight_gradient
from .surrogates import NUMBERS

FEW_NEURONS = 32
"""Largest downstream layer whose products with its weights are part of the loop and are not stored, in neurons."""
SOFT_RESET = -1.0
"""Hold, for the loops, of a model that subtracts the threshold."""
NO_EVENTS = Groups(np.empty(0, np.int64), np.empty(0, np.int64))
NO_CODES = np.empty(0, np.uint8)


class CpuEngine(Engine):
    """Compiled loops; spikes are events from end to end, and membranes of a device stay codes."""

    def bin_spikes(self, spikes: Spikes, dt: float, steps: int, dtype: torch.dtype) -> SpikeGrid:
        """Return measured spikes on the time grid; see `Engine.bin_spikes`."""
        shape = (steps, spikes.samples, spikes.units)
        return SpikeGrid(None, conversion.bin_spikes(spikes, dt, steps), shape, dtype)

    def membranes(self, codes: Tensor, unit: float, dtype: torch.dtype, deferred: bool) -> Tensor | Codes:
        """Return the membranes of codes; see `Engine.membranes`."""
        if deferred and dtype == torch.float32:
            return Codes(codes, unit)
        return conversion.membranes(codes, unit).to(dtype)

    def respond(
        self, layer: ModelLayer, spiking: bool, recorded: bool
    ) -> tuple[SpikeGrid | None, Tensor | MembraneSource]:
        """Run a layer of the twin; see `Engine.respond`."""
        model, weight, recurrent, _ = layer
        shape = layer.shape
        is_stored = recorded or not spiking
        events, trace = respond(weight, _inputs(layer), shape, model, spiking, recurrent, is_stored)
        if events is None:
            return None, trace
        spikes = SpikeGrid(None, events, shape, weight.dtype)
        return spikes, trace if is_stored else UnrecordedMembranes(self, layer.copy(), spikes)

    def follow(self, layer: ModelLayer, spikes: SpikeGrid) -> Tensor:
        """Return the membranes of a layer with prescribed spikes; see `Engine.follow`."""
        return follow(layer.weight, _inputs(layer), spikes.grouped, spikes.shape, layer.model, layer.recurrent)

    def gradient(
        self,
        layer: ModelLayer,
        spikes: SpikeGrid | None,
        membrane: Tensor | Codes,
        grads: Grads,
        downstream: tuple[Tensor, Tensor] | None,
        demand: Demand,
    ) -> LayerGradients:
        """Return the gradients of a measured layer; see `Engine.gradient`."""
        model = layer.model
        inputs = layer.inputs
        if layer.recurrent is not None:
            assert spikes is not None
            events = None if isinstance(inputs, Tensor) else inputs.grouped
            result = recurrent_gradient(layer, spikes.grouped, membrane, grads, downstream, events, demand)
            if demand.weight and isinstance(inputs, Tensor):
                return result._replace(weight=weight_gradient(result.charge, inputs))
            return result
        fired = None if spikes is None or not (model.at_threshold or model.holds_gradient) else spikes.grouped
        if model.saturation is not None:
            assert not isinstance(inputs, Tensor)
            charge, weight = saturating_gradient(
                model, layer.weight, fired, membrane, grads, downstream, inputs.grouped, demand.charge
            )
            return LayerGradients(charge, weight, None)
        if isinstance(inputs, Tensor):
            charge, _ = gradient(model, fired, membrane, grads, downstream, None, demand.charge or demand.weight)
            return LayerGradients(charge, weight_gradient(charge, inputs) if demand.weight else None, None)
        grouped = inputs.grouped if demand.weight else None
        return LayerGradients(*gradient(model, fired, membrane, grads, downstream, grouped, demand.charge), None)


def _inputs(layer: ModelLayer) -> GroupedEvents | Tensor:
    """Return the inputs of a layer as events, or as values if they are given so."""
    return layer.inputs if isinstance(layer.inputs, Tensor) else layer.inputs.grouped


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
    check_drive(weight, inputs, shape, recurrent)
    traces = weight.new_empty(shape if recorded else (0, 0, 0)).numpy()
    # A thread takes neurons, as in the backward pass, which then finds their data in the thread's cache. Recurrent
    # neurons depend on each other, so that a thread takes samples.
    is_recurrent = recurrent is not None
    edges = edges_of(samples if is_recurrent else neurons, prod(shape) // 2)
    parts = len(edges) - 1
    max_size = max(b - a for a, b in pairwise(edges))
    capacity = steps * max_size * (neurons if is_recurrent else samples) if spiking else 0
    buffers = np.empty((parts, capacity), np.int32)
    counts = np.zeros((parts, samples, steps if spiking else 0), np.int64)
    drive = _drive(weight, inputs, shape, model, recurrent)

    def work(part: int, begin: int, end: int) -> None:
        span = Part(begin, end, 0, neurons) if is_recurrent else Part(0, samples, begin, end)
        cpu_forward.respond(span, drive, spiking, traces, SpikeBuffer(counts[part], buffers[part]))

    run_shares(work, edges)
    membranes = torch.from_numpy(traces)
    if not spiking:
        return None, membranes
    offsets = np.empty(samples * steps + 1, np.int64)
    units = np.empty(counts.sum(), np.int64)
    cpu_forward.join_buffers(counts, buffers, offsets, units)
    return GroupedEvents(torch.from_numpy(offsets), torch.from_numpy(units), neurons), membranes


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
    check_drive(weight, inputs, shape, recurrent, fired)
    traces = weight.new_empty(shape).numpy()
    drive = _drive(weight, inputs, shape, model, recurrent)
    spikes = _groups(fired)
    run_loop(cpu_forward.follow, edges_of(shape[1], prod(shape)), drive, spikes, traces)
    return torch.from_numpy(traces)


def _drive(
    weight: Tensor, inputs: GroupedEvents | Tensor, shape: tuple[int, int, int], model: Model, recurrent: Tensor | None
) -> Drive:
    """Return the drive of a layer for the loops; the arguments are as in `respond`."""
    empty = _empty(weight.dtype)
    feedback = empty.matrix if recurrent is None else _array(recurrent.contiguous())
    alpha = empty.number(model.alpha)
    beta = empty.number(model.beta)
    hold = empty.number(SOFT_RESET if model.hold is None else model.hold)
    if isinstance(inputs, GroupedEvents):
        synapses = _array(weight.contiguous())
        return Drive(shape, _groups(inputs), synapses, empty.grid, feedback, alpha, beta, hold)
    charge = _array((inputs @ weight.t()).contiguous())
    return Drive(shape, NO_EVENTS, empty.matrix, charge, feedback, alpha, beta, hold)


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
        model: Model of the layer; its surrogate has a number.
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
    shape = membrane.shape
    like = _like(membrane)
    check_backward(shape, like.dtype, _codes(membrane), fired, grads, downstream, events)
    empty = _empty(like.dtype)
    grad_charges = like.new_empty(shape) if charges else None
    grad_weight = None if events is None else like.new_empty(shape[2], events.sources)
    layer = _measured_pass(model, fired, membrane, grads, downstream)
    inputs = NO_EVENTS if events is None else _groups(events)
    results = Results(
        empty.grid if grad_charges is None else grad_charges.numpy(),
        empty.matrix if grad_weight is None else grad_weight.numpy(),
    )
    run_loop(cpu_backward.gradient, edges_of(shape[2], prod(shape)), layer, inputs, results)
    return grad_charges, grad_weight


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
        model: Model of the layer, with a saturation; its surrogate has a number.
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
    shape = membrane.shape
    like = _like(membrane)
    check_backward(shape, like.dtype, _codes(membrane), fired, grads, downstream, events, weight)
    empty = _empty(like.dtype)
    limit, per_circuit, first_input, _ = model.saturation
    n_inputs = 2 * model.saturation.circuits(weight.shape[1])
    grad_charges = like.new_empty(shape[0], shape[1], n_inputs * shape[2]) if charges else None
    grad_weight = like.new_empty(weight.shape)
    layer = _measured_pass(model, fired, membrane, grads, downstream)
    inputs = _groups(events)
    synapses = SaturatingSynapses(_array(weight.contiguous()), empty.number(limit), per_circuit, first_input, n_inputs)
    results = Results(empty.grid if grad_charges is None else grad_charges.numpy(), grad_weight.numpy())
    run_loop(cpu_saturating.saturating_gradient, edges_of(shape[2], prod(shape)), layer, inputs, synapses, results)
    return grad_charges, grad_weight


def recurrent_gradient(
    layer: ModelLayer,
    fired: GroupedEvents,
    membrane: Tensor | Codes,
    grads: Grads,
    downstream: tuple[Tensor, Tensor] | None,
    events: GroupedEvents | None,
    demand: Demand,
) -> LayerGradients:
    """Return the gradients of a recurrent layer; that of the charges is always there.

    Args:
        layer: Layer with recurrent weights; the surrogate of its model has a number.
        fired: Measured spikes.
        membrane: As in `gradient`.
        grads: As in `gradient`.
        downstream: As in `gradient`.
        events: Input events; None for inputs that are values, without saturation: the gradient of their weights is left
            to the caller.
        demand: Gradients of weights that are needed.

    Raises:
        ValueError: the shapes or types of the arguments do not match.
    """
    model, weight, recurrent, _ = layer
    assert recurrent is not None
    steps, samples, neurons = membrane.shape
    like = _like(membrane)
    check_backward(membrane.shape, like.dtype, _codes(membrane), fired, grads, downstream, events, weight)
    require("recurrent weights", recurrent, (neurons, neurons), like.dtype)
    synapses = _recurrent_synapses(model, weight, recurrent, like.dtype)
    charges = like.new_empty(steps, samples, synapses.inputs * neurons)
    measured = _measured_pass(model, fired, membrane, grads, downstream)
    inputs = NO_EVENTS if events is None else _groups(events)
    spikes = _groups(fired)
    edges = small_edges(samples, charges.numel(), int(cpu_recurrent.QUAD))
    run_loop(cpu_recurrent.charges_of_samples, edges, measured, inputs, spikes, synapses, charges.numpy())
    grad_weight = like.new_empty(weight.shape) if demand.weight and events is not None else None
    grad_recurrent = like.new_empty(recurrent.shape) if demand.recurrent else None
    empty = _empty(like.dtype)
    results = RecurrentResults(
        empty.matrix if grad_weight is None else grad_weight.numpy(),
        empty.matrix if grad_recurrent is None else grad_recurrent.numpy(),
    )
    if grad_weight is not None or grad_recurrent is not None:
        edges = edges_of(neurons, charges.numel())
        run_loop(cpu_recurrent.weights_of_neurons, edges, charges.numpy(), inputs, spikes, synapses, results)
    return LayerGradients(charges, grad_weight, grad_recurrent)


def _recurrent_synapses(model: Model, weight: Tensor, recurrent: Tensor, dtype: torch.dtype) -> RecurrentSynapses:
    """Return the synapses of a recurrent layer for the loops."""
    empty = _empty(dtype)
    feedback = _array(recurrent.contiguous())
    if model.saturation is None:
        return RecurrentSynapses(empty.matrix, feedback, empty.matrix, empty.number(1), 0, 0, 0, 1)
    limit, per_circuit, first_input, _ = model.saturation
    shared = model.saturation.shared()
    current = feedback if shared.limit == limit else _array((recurrent * (limit / shared.limit)).contiguous())
    inputs = 2 * model.saturation.circuits(weight.shape[1], len(recurrent))
    return RecurrentSynapses(
        _array(weight.contiguous()), feedback, current, empty.number(limit), per_circuit, first_input,
        shared.first_input, inputs,
    )  # fmt: skip


def _measured_pass(
    model: Model,
    fired: GroupedEvents | None,
    membrane: Tensor | Codes,
    grads: Grads,
    downstream: tuple[Tensor, Tensor] | None,
) -> MeasuredPass:
    """Return a measured layer for the loops; the arguments are as in `gradient`."""
    empty = _empty(_like(membrane).dtype)
    grad_spikes = grads.spikes
    if downstream is not None and downstream[1].shape[0] > FEW_NEURONS:
        grad_downstream = downstream[0] @ downstream[1]
        grad_spikes = grad_downstream if grad_spikes is None else grad_spikes + grad_downstream
        downstream = None
    gradients = OutputGradients(
        empty.grid if grad_spikes is None else _array(grad_spikes.contiguous()),
        empty.matrix if grads.counts is None else _array(grads.counts.contiguous()),
        empty.grid if grads.traces is None else _array(grads.traces.contiguous()),
        empty.grid if downstream is None else _array(downstream[0].contiguous()),
        empty.matrix if downstream is None else _array(downstream[1].contiguous()),
    )
    steps, samples, neurons = membrane.shape
    return MeasuredPass(
        (steps, samples, neurons),
        NO_EVENTS if fired is None or not model.at_threshold else _groups(fired),
        _recorded(membrane),
        gradients,
        NUMBERS[model.surrogate],
        empty.number(model.slope),
        empty.number(model.alpha),
        empty.number(model.beta),
        _hold(model, fired, empty.number),
    )


def _hold(model: Model, fired: GroupedEvents | None, number: type[Number]) -> Hold:
    """Return the hold of a layer's membranes for the loops; a readout, without spikes, holds nothing."""
    if not model.holds_gradient or fired is None:
        return Hold(number(-1), 0, NO_EVENTS)
    assert model.hold is not None
    time = number(model.hold)
    return Hold(time, max(ceil(time), 1), _groups(fired))


def _recorded(membrane: Tensor | Codes) -> RecordedMembranes:
    """Return membranes for the loops; codes lie flat, in the order of memory.

    With the strides of codes, one compiled loop serves whole recordings and parts of them.
    """
    if isinstance(membrane, Tensor):
        return RecordedMembranes(_array(membrane.contiguous()), NO_CODES, (0, 0), np.float32(1))
    codes = membrane.codes
    if codes.numel() > 0 and codes.stride(2) != 1:
        codes = codes.contiguous()
    span = 1 + sum((size - 1) * stride for size, stride in zip(codes.shape, codes.stride(), strict=True))
    flat = codes.as_strided((span if codes.numel() else 0,), (1,))
    strides = (codes.stride(0), codes.stride(1))
    return RecordedMembranes(_empty(torch.float32).grid, _array(flat), strides, np.float32(1 / membrane.unit))


def _like(membrane: Tensor | Codes) -> Tensor:
    """Return a tensor with the precision in which a layer's gradient is computed."""
    return membrane if isinstance(membrane, Tensor) else _NO_TRACES


def _codes(membrane: Tensor | Codes) -> Tensor | None:
    return None if isinstance(membrane, Tensor) else membrane.codes


def _groups(events: GroupedEvents) -> Groups:
    return Groups(events.offsets.contiguous().numpy(), events.units.contiguous().numpy())


def _array(tensor: Tensor) -> Any:
    return tensor.detach().numpy()


_NO_TRACES = torch.empty(0, 0, 0)


class _Empty(NamedTuple):
    """Arguments of the loops for what is absent, and the type of their numbers."""

    matrix: Float
    grid: Float
    number: type[Number]


@cache
def _empty(dtype: torch.dtype) -> _Empty:
    """Return absent arguments of a precision."""
    number = np.float32 if dtype == torch.float32 else np.float64
    return _Empty(np.empty((0, 0), number), np.empty((0, 0, 0), number), number)
