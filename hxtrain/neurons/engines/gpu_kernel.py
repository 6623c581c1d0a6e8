"""A layer's loops over time on a GPU, in Triton (decision 0011).

Each loop is one kernel, and the state of a neuron stays in registers. The kernels support float32, and layers without
saturation. `readable.py` says the same in torch.

A program computes a block of neurons of all samples. With recurrent synapses, neurons depend on each other: a program
then computes all neurons of a block of samples. In each step it multiplies the spikes, or backwards the charges,
with the recurrent weights, tile by tile. The values of a step go through the memory of the card, where every thread of
the program finds them behind a barrier.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hxtrain.neurons.model import Model
from hxtrain.neurons.shapes import require_all

from . import surrogates
from .choice import LARGEST_ON_GPU
from .surrogates import NUMBERS

BLOCK = 256
"""Number of neurons of a program; the neurons of all samples are numbered consecutively."""
SAMPLES = 16
"""Samples of a program of a recurrent layer, the smallest block of `tl.dot`."""
TILE = 16
"""Rows of recurrent weights that are multiplied at once."""
TRIANGLE = tl.constexpr(surrogates.TRIANGLE)
SIGMOID = tl.constexpr(surrogates.SIGMOID)
GAUSSIAN = tl.constexpr(surrogates.GAUSSIAN)
ARCTAN = tl.constexpr(surrogates.ARCTAN)
BOXCAR = tl.constexpr(surrogates.BOXCAR)


@triton.jit
def _respond(
    drive, trace, spikes, steps, size, alpha, beta, hold, SPIKING: tl.constexpr, HELD: tl.constexpr, BLOCK: tl.constexpr
):
    neuron = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = neuron < size
    current = tl.zeros([BLOCK], tl.float32)
    membrane = tl.zeros([BLOCK], tl.float32)
    spike = tl.zeros([BLOCK], tl.float32)
    rest = tl.zeros([BLOCK], tl.float32)
    offset = neuron.to(tl.int64)
    for _ in range(steps):
        tl.store(trace + offset, membrane, mask=mask)
        if SPIKING:
            spike = tl.where(membrane > 1.0, 1.0, 0.0)
            tl.store(spikes + offset, spike, mask=mask)
        current = alpha * current + tl.load(drive + offset, mask=mask, other=0.0)
        membrane, rest = _advance(membrane, current, spike, rest, beta, hold, HELD)
        offset += size


@triton.jit
def _advance(membrane, current, spike, rest, beta, hold, HELD: tl.constexpr):
    """Return the membrane of the next step, and the rest of the time for which it is held."""
    if HELD:
        rest = tl.where(spike > 0.0, hold, rest)
        carried = tl.where((rest > 0.0) | (spike > 0.0), 0.0, beta * membrane)
        membrane = carried + (1.0 - tl.minimum(rest, 1.0)) * current
        rest = tl.maximum(rest - 1.0, 0.0)
    else:
        membrane = beta * membrane + current - spike
    return membrane, rest


@triton.jit
def _slope(distance, slope, SURROGATE: tl.constexpr):
    """Return the surrogate derivative at a distance from the threshold."""
    y = slope * tl.abs(distance)
    if SURROGATE == TRIANGLE:
        y = tl.maximum(1.0 - y, 0.0)
    elif SURROGATE == SIGMOID:
        s = 1.0 / (1.0 + tl.exp(-y))
        y = 4.0 * s * (1.0 - s)
    elif SURROGATE == GAUSSIAN:
        y = tl.exp(-0.5 * y * y)
    elif SURROGATE == ARCTAN:
        y = 1.0 / (1.0 + y * y)
    elif SURROGATE == BOXCAR:
        y = tl.where(y < 1.0, 1.0, 0.0)
    else:
        y = 1.0 / ((1.0 + y) * (1.0 + y))
    return y


@triton.jit
def _charge(
    trace, spikes, grad_spikes, grad_traces, charge, steps, size, last_step, slope, alpha, beta,
    SURROGATE: tl.constexpr, AT_THRESHOLD: tl.constexpr, BY_SPIKE: tl.constexpr, BY_TRACE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    neuron = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = neuron < size
    grad_membrane = tl.zeros([BLOCK], tl.float32)
    grad_charge = tl.zeros([BLOCK], tl.float32)
    offset = neuron.to(tl.int64) + last_step
    for _ in range(steps):
        tl.store(charge + offset, grad_charge, mask=mask)
        direct = tl.zeros([BLOCK], tl.float32)
        if BY_SPIKE:
            distance = tl.load(trace + offset, mask=mask, other=0.0) - 1.0
            if AT_THRESHOLD:
                distance = distance * (1.0 - tl.load(spikes + offset, mask=mask, other=0.0))
            slopes = _slope(distance, slope, SURROGATE)
            direct += slopes * tl.load(grad_spikes + offset, mask=mask, other=0.0)
        if BY_TRACE:
            direct += tl.load(grad_traces + offset, mask=mask, other=0.0)
        grad_membrane = beta * grad_membrane + direct
        grad_charge = alpha * grad_charge + grad_membrane
        offset -= size


@triton.jit
def _product(
    x, row, samples, in_batch, matrix, neurons, SAMPLES: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr
):
    """Return the product of the values of a step, `x [B, N]` from `row` on, and a matrix `[N, N]`."""
    column = tl.arange(0, WIDTH)
    total = tl.zeros([SAMPLES, WIDTH], tl.float32)
    for first in range(0, neurons, TILE):
        source = first + tl.arange(0, TILE)
        in_layer = source < neurons
        values = tl.load(
            x + row + samples[:, None] * neurons + source[None, :],
            mask=in_batch[:, None] & in_layer[None, :],
            other=0.0,
        )
        weights = tl.load(
            matrix + source[:, None] * neurons + column[None, :],
            mask=in_layer[:, None] & (column < neurons)[None, :],
            other=0.0,
        )
        total = tl.dot(values, weights, total, input_precision="ieee")
    return total


@triton.jit
def _respond_recurrent(
    drive, trace, spikes, transposed, steps, batch, neurons, alpha, beta, hold,
    HELD: tl.constexpr, SAMPLES: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    samples = tl.program_id(0) * SAMPLES + tl.arange(0, SAMPLES)
    neuron = tl.arange(0, WIDTH)
    in_batch = samples < batch
    mask = in_batch[:, None] & (neuron < neurons)[None, :]
    place = samples[:, None] * neurons + neuron[None, :]
    current = tl.zeros([SAMPLES, WIDTH], tl.float32)
    membrane = tl.zeros([SAMPLES, WIDTH], tl.float32)
    rest = tl.zeros([SAMPLES, WIDTH], tl.float32)
    row = tl.full((), 0, tl.int64)
    for _ in range(steps):
        tl.store(trace + row + place, membrane, mask=mask)
        spike = tl.where(membrane > 1.0, 1.0, 0.0)
        tl.store(spikes + row + place, spike, mask=mask)
        tl.debug_barrier()
        feedback = _product(spikes, row, samples, in_batch, transposed, neurons, SAMPLES, WIDTH, TILE)
        current = alpha * current + tl.load(drive + row + place, mask=mask, other=0.0) + feedback
        membrane, rest = _advance(membrane, current, spike, rest, beta, hold, HELD)
        row += batch * neurons


@triton.jit
def _charge_recurrent(
    trace, spikes, grad_spikes, grad_traces, charge, recurrent, steps, batch, neurons, last_step, slope, alpha, beta,
    SURROGATE: tl.constexpr, AT_THRESHOLD: tl.constexpr, BY_SPIKE: tl.constexpr, BY_TRACE: tl.constexpr,
    SAMPLES: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    samples = tl.program_id(0) * SAMPLES + tl.arange(0, SAMPLES)
    neuron = tl.arange(0, WIDTH)
    in_batch = samples < batch
    mask = in_batch[:, None] & (neuron < neurons)[None, :]
    place = samples[:, None] * neurons + neuron[None, :]
    grad_membrane = tl.zeros([SAMPLES, WIDTH], tl.float32)
    grad_charge = tl.zeros([SAMPLES, WIDTH], tl.float32)
    row = tl.full((), 0, tl.int64) + last_step
    for _ in range(steps):
        tl.store(charge + row + place, grad_charge, mask=mask)
        tl.debug_barrier()
        by_spike = _product(charge, row, samples, in_batch, recurrent, neurons, SAMPLES, WIDTH, TILE)
        if BY_SPIKE:
            by_spike += tl.load(grad_spikes + row + place, mask=mask, other=0.0)
        distance = tl.load(trace + row + place, mask=mask, other=0.0) - 1.0
        if AT_THRESHOLD:
            distance = distance * (1.0 - tl.load(spikes + row + place, mask=mask, other=0.0))
        direct = _slope(distance, slope, SURROGATE) * by_spike
        if BY_TRACE:
            direct += tl.load(grad_traces + row + place, mask=mask, other=0.0)
        grad_membrane = beta * grad_membrane + direct
        grad_charge = alpha * grad_charge + grad_membrane
        row -= batch * neurons


def respond(
    drive: Tensor, model: Model, spiking: bool, recurrent: Tensor | None = None
) -> tuple[Tensor | None, Tensor]:
    """Return spikes (None for a readout) and membranes `[T, B, N]` of a layer of the twin with the drive `W x`.

    Raises:
        ValueError: the shapes or types of the arguments do not match.
    """
    if drive.dim() != 3:
        raise ValueError(f"drive: expected [T, B, N], got {tuple(drive.shape)}")
    if recurrent is not None:
        _check_recurrent(recurrent, drive)
    drive = drive.contiguous()
    trace = torch.empty_like(drive)
    spikes = torch.empty_like(drive) if spiking else trace
    hold = 0.0 if model.hold is None else model.hold
    is_held = spiking and model.hold is not None
    if recurrent is not None and spiking:
        transposed = recurrent.t().contiguous()
        _launch_samples(
            _respond_recurrent, drive, trace, spikes, transposed, *drive.shape, model.alpha, model.beta, hold,
            HELD=is_held,
        )  # fmt: skip
        return spikes, trace
    _launch(
        _respond, drive, trace, spikes, *_shape(drive), model.alpha, model.beta, hold, SPIKING=spiking, HELD=is_held
    )
    return (spikes if spiking else None), trace


def charges(
    model: Model,
    spikes: Tensor | None,
    trace: Tensor,
    grad_spikes: Tensor | None,
    grad_trace: Tensor | None,
    recurrent: Tensor | None = None,
) -> Tensor:
    """Return the gradient of each step's charge `[T, B, N]`; the arguments are as in `readable.charges`.

    Raises:
        ValueError: the shape or type of a tensor differs from that of the membranes.
    """
    shape = tuple(trace.shape)
    require_all(
        trace.dtype,
        ("spikes", spikes, shape),
        ("gradient of spikes", grad_spikes, shape),
        ("gradient of membranes", grad_trace, shape),
    )
    trace = trace.contiguous()
    arguments = [trace if x is None else x.contiguous() for x in (spikes, grad_spikes, grad_trace)]
    charge = torch.empty_like(trace)
    last_step = trace.numel() - trace[0].numel()
    decays = model.slope, model.alpha, model.beta
    settings = {
        "SURROGATE": NUMBERS[model.surrogate],
        "AT_THRESHOLD": model.at_threshold and spikes is not None,
        "BY_SPIKE": grad_spikes is not None,
        "BY_TRACE": grad_trace is not None,
    }
    if recurrent is None:
        _launch(_charge, trace, *arguments, charge, *_shape(trace), last_step, *decays, **settings)
        return charge
    _check_recurrent(recurrent, trace)
    weights = recurrent.contiguous()
    _launch_samples(_charge_recurrent, trace, *arguments, charge, weights, *shape, last_step, *decays, **settings)
    return charge


def _check_recurrent(recurrent: Tensor, layer: Tensor) -> None:
    """Refuse recurrent weights that do not fit a layer's values `[T, B, N]`, or a program.

    Raises:
        ValueError: the weights have another shape or type, or the layer is too large.
    """
    neurons = layer.shape[2]
    require_all(layer.dtype, ("recurrent weights", recurrent, (neurons, neurons)))
    if neurons > LARGEST_ON_GPU:
        raise ValueError(
            f"a recurrent layer of {neurons} neurons is larger than {LARGEST_ON_GPU}, the largest that the kernels of "
            "the GPU take; the readable engine takes it"
        )


def _shape(x: Tensor) -> tuple[int, int]:
    """Return the number of steps, and the number of values of a step."""
    return len(x), x[0].numel()


def _launch(kernel: Any, first: Tensor, *arguments: Any, **settings: Any) -> None:
    """Start as many programs as cover a step; `first` is the first argument of the kernel."""
    with torch.cuda.device_of(first):  # Triton uses the current GPU
        _start(kernel, first, *arguments, **settings)


def _start(kernel: Any, first: Tensor, *arguments: Any, **settings: Any) -> None:
    kernel[(triton.cdiv(first[0].numel(), BLOCK),)](first, *arguments, BLOCK=BLOCK, **settings)


def _launch_samples(kernel: Any, first: Tensor, *arguments: Any, **settings: Any) -> None:
    """Start as many programs as cover the samples; `first` is the first argument of the kernel, `[T, B, N]`."""
    _, batch, neurons = first.shape
    width = max(TILE, triton.next_power_of_2(neurons))
    sizes = {"SAMPLES": SAMPLES, "WIDTH": width, "TILE": TILE}
    with torch.cuda.device_of(first):
        # One stage: prefetched values of a step might be older than the barrier.
        kernel[(triton.cdiv(batch, SAMPLES),)](first, *arguments, **settings, **sizes, num_warps=8, num_stages=1)
