"""A layer's loops over time on a GPU, in Triton (decision 0011).

Each loop is one kernel, and the state of a neuron stays in registers. The kernels support float32, and layers without
recurrent synapses and saturation. `readable.py` says the same in torch.
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
from .surrogates import NUMBERS

BLOCK = 256
"""Number of neurons of a program; the neurons of all samples are numbered consecutively."""
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
        if HELD:
            rest = tl.where(spike > 0.0, hold, rest)
            carried = tl.where((rest > 0.0) | (spike > 0.0), 0.0, beta * membrane)
            membrane = carried + (1.0 - tl.minimum(rest, 1.0)) * current
            rest = tl.maximum(rest - 1.0, 0.0)
        else:
            membrane = beta * membrane + current - spike
        offset += size


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
            direct += y * tl.load(grad_spikes + offset, mask=mask, other=0.0)
        if BY_TRACE:
            direct += tl.load(grad_traces + offset, mask=mask, other=0.0)
        grad_membrane = beta * grad_membrane + direct
        grad_charge = alpha * grad_charge + grad_membrane
        offset -= size


def respond(drive: Tensor, model: Model, spiking: bool) -> tuple[Tensor | None, Tensor]:
    """Return spikes (None for a readout) and membranes `[T, B, N]` of a layer of the twin with the drive `W x`."""
    if drive.dim() != 3:
        raise ValueError(f"drive: expected [T, B, N], got {tuple(drive.shape)}")
    drive = drive.contiguous()
    trace = torch.empty_like(drive)
    spikes = torch.empty_like(drive) if spiking else trace
    hold = 0.0 if model.hold is None else model.hold
    is_held = spiking and model.hold is not None
    _launch(
        _respond, drive, trace, spikes, *_shape(drive), model.alpha, model.beta, hold, SPIKING=spiking, HELD=is_held
    )
    return (spikes if spiking else None), trace


def charges(
    model: Model, spikes: Tensor | None, trace: Tensor, grad_spikes: Tensor | None, grad_trace: Tensor | None
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
    _launch(
        _charge, trace, *arguments, charge, *_shape(trace), last_step, model.slope, model.alpha, model.beta,
        SURROGATE=NUMBERS[model.surrogate], AT_THRESHOLD=model.at_threshold and spikes is not None,
        BY_SPIKE=grad_spikes is not None, BY_TRACE=grad_trace is not None,
    )  # fmt: skip
    return charge


def _shape(x: Tensor) -> tuple[int, int]:
    """Return the number of steps, and the number of values of a step."""
    return len(x), x[0].numel()


def _launch(kernel: Any, first: Tensor, *arguments: Any, **settings: Any) -> None:
    """Start as many programs as cover a step; `first` is the first argument of the kernel."""
    with torch.cuda.device_of(first):  # Triton uses the current GPU
        _start(kernel, first, *arguments, **settings)


def _start(kernel: Any, first: Tensor, *arguments: Any, **settings: Any) -> None:
    kernel[(triton.cdiv(first[0].numel(), BLOCK),)](first, *arguments, BLOCK=BLOCK, **settings)
