"""A layer's loops over time on a GPU, in Triton (decision 0011): one kernel each, a neuron's state stays in registers.

For float32, and layers without recurrent synapses and saturation. `twin.py`, `psp.py` and `injection.py` say the
same in torch.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hxtrain.neurons.model import Model
from hxtrain.neurons.shapes import require

from .cpu import KINDS

BLOCK = 256
"""Neurons of a program, those of all samples in a row."""
TRIANGLE, SIGMOID, GAUSSIAN, ARCTAN, BOXCAR = (tl.constexpr(kind) for kind in range(1, 6))  # as in `KINDS`


@triton.jit
def _respond(drive, trace, spikes, steps, size, alpha, beta, SPIKING: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    current, membrane = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    fired = tl.zeros([BLOCK], tl.float32)
    here = at.to(tl.int64)
    for _ in range(steps):
        tl.store(trace + here, membrane, mask=inside)
        if SPIKING:
            fired = tl.where(membrane > 1.0, 1.0, 0.0)
            tl.store(spikes + here, fired, mask=inside)
        current = alpha * current + tl.load(drive + here, mask=inside, other=0.0)
        membrane = beta * membrane + current - fired
        here += size


@triton.jit
def _charge(
    trace, spikes, by_spike, by_trace, charge, steps, size, last, slope, alpha, beta,
    KIND: tl.constexpr, AT_THRESHOLD: tl.constexpr, BY_SPIKE: tl.constexpr, BY_TRACE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    membrane, now = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    here = at.to(tl.int64) + last
    for _ in range(steps):
        tl.store(charge + here, now, mask=inside)
        direct = tl.zeros([BLOCK], tl.float32)
        if BY_SPIKE:
            distance = tl.load(trace + here, mask=inside, other=0.0) - 1.0
            if AT_THRESHOLD:
                distance = distance * (1.0 - tl.load(spikes + here, mask=inside, other=0.0))
            y = slope * tl.abs(distance)
            if KIND == TRIANGLE:
                y = tl.maximum(1.0 - y, 0.0)
            elif KIND == SIGMOID:
                s = 1.0 / (1.0 + tl.exp(-y))
                y = 4.0 * s * (1.0 - s)
            elif KIND == GAUSSIAN:
                y = tl.exp(-0.5 * y * y)
            elif KIND == ARCTAN:
                y = 1.0 / (1.0 + y * y)
            elif KIND == BOXCAR:
                y = tl.where(y < 1.0, 1.0, 0.0)
            else:
                y = 1.0 / ((1.0 + y) * (1.0 + y))
            direct += y * tl.load(by_spike + here, mask=inside, other=0.0)
        if BY_TRACE:
            direct += tl.load(by_trace + here, mask=inside, other=0.0)
        membrane = beta * membrane + direct
        now = alpha * now + membrane
        here -= size


def respond(drive: Tensor, model: Model, spiking: bool) -> tuple[Tensor | None, Tensor]:
    """Return spikes (None for a readout) and membranes `[T, B, N]` of a layer of the twin, of its inputs' `W x`."""
    if drive.dim() != 3:
        raise ValueError(f"drive: expected [T, B, N], got {tuple(drive.shape)}")
    drive = drive.contiguous()
    trace = torch.empty_like(drive)
    spikes = torch.empty_like(drive) if spiking else trace
    _launch(_respond, drive, trace, spikes, *_shape(drive), model.alpha, model.beta, SPIKING=spiking)
    return (spikes if spiking else None), trace


def charges(
    model: Model, spikes: Tensor | None, trace: Tensor, grad_spikes: Tensor | None, grad_trace: Tensor | None
) -> Tensor:
    """Return the gradient of each step's charge `[T, B, N]`; arguments as of `injection.gradient`.

    Raises:
        ValueError: something has not the shape and type of the membranes.
    """
    shape = tuple(trace.shape)
    for name, given in (("spikes", spikes), ("gradient of spikes", grad_spikes), ("gradient of membranes", grad_trace)):
        require(name, given, shape, trace.dtype)
    trace = trace.contiguous()
    others = [trace if x is None else x.contiguous() for x in (spikes, grad_spikes, grad_trace)]
    charge, last = torch.empty_like(trace), trace.numel() - trace[0].numel()
    _launch(
        _charge, trace, *others, charge, *_shape(trace), last, model.slope, model.alpha, model.beta,
        KIND=KINDS.get(model.surrogate, 0), AT_THRESHOLD=model.at_threshold and spikes is not None,
        BY_SPIKE=grad_spikes is not None, BY_TRACE=grad_trace is not None,
    )  # fmt: skip
    return charge


def _shape(x: Tensor) -> tuple[int, int]:
    """Return steps, and values of a step."""
    return len(x), x[0].numel()


def _launch(kernel: Any, first: Tensor, *arguments: Any, **settings: Any) -> None:
    """Start as many programs as cover a step."""
    with torch.cuda.device_of(first):  # Triton takes the current one
        _start(kernel, first, *arguments, **settings)


def _start(kernel: Any, first: Tensor, *arguments: Any, **settings: Any) -> None:
    kernel[(triton.cdiv(first[0].numel(), BLOCK),)](first, *arguments, BLOCK=BLOCK, **settings)
