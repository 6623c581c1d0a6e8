"""A layer's forward and backward pass on the CPU: what `kernels.py` computes, with tensors in and out.

Work is shared between all cores: samples forward, neurons backward. So no two threads write to the same place, and the
result does not depend on their number.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .model import Model
from .surrogate import SURROGATES, Surrogate

if TYPE_CHECKING:
    from .psp import GridEvents

KINDS: dict[Surrogate, int] = {surrogate: kind for kind, surrogate in enumerate(SURROGATES.values())}
"""Surrogates that the kernels know, by their numbers there."""
NO_EVENTS = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
LEAST_NEURONS, LEAST_SAMPLES = 32, 8
"""Smallest share of a thread; less is not worth the hand-over."""


def supports(tensor: Tensor, model: Model) -> bool:
    """Return whether the kernels take a tensor and know a model's surrogate."""
    known = tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)
    return known and model.surrogate in KINDS


def group_events(
    sample: Tensor, unit: Tensor, time: Tensor, dt: float, tolerance: float, steps: int, samples: int
) -> tuple[Tensor, Tensor]:
    """Return offsets int64 `[B T + 1]` and units int64 `[E]` of events grouped by sample and step."""
    offsets = torch.empty(samples * steps + 1, dtype=torch.int64)
    units = torch.empty_like(unit)
    _kernels().group_events(*map(_array, (sample, unit, time)), dt, tolerance, steps, _array(offsets), _array(units))
    return offsets, units


def respond(
    weight: Tensor,
    inputs: GridEvents | Tensor,
    shape: tuple[int, int, int],
    model: Model,
    spiking: bool,
    recurrent: Tensor | None,
) -> tuple[Tensor | None, Tensor]:
    """Return spikes (None for a readout) and membranes `[T, B, N]` of a layer of the twin.

    Args:
        weight: `[N, J]`.
        inputs: events, or spikes `[T, B, J]`.
        shape: T, B, N.
        model: of the layer.
        spiking: whether it fires. recurrent: weights `[N, N]`, if any.
    """
    like, none = weight.detach(), weight.new_empty(0, 0)
    traces = like.new_empty(shape)
    spikes = like.new_empty(shape if spiking else (0, 0, 0))
    if isinstance(inputs, Tensor):
        offsets, units = NO_EVENTS
        columns, drive = none, inputs @ like.t()
    else:
        offsets, units = inputs.grouped
        columns, drive = like.t().contiguous(), like.new_empty(0, 0, 0)
    arguments = [
        _array(x)
        for x in (
            offsets,
            units,
            columns,
            drive,
            none if recurrent is None else recurrent.detach().t().contiguous(),
        )
    ]
    alpha, beta = _number(like, model.alpha), _number(like, model.beta)
    outputs = _array(traces), _array(spikes)
    _share(
        lambda begin, end: _kernels().respond(begin, end, *arguments, alpha, beta, *outputs), shape[1], LEAST_SAMPLES
    )
    return (spikes if spiking else None), traces


def gradient(
    model: Model,
    spikes: Tensor | None,
    traces: Tensor,
    grad_spikes: Tensor | None,
    grad_traces: Tensor | None,
    events: GridEvents | None,
    charges: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of each step's charge `[T, B, N]` (None unless wanted) and of the weights `[N, J]`.

    Args:
        model: of the layer; its surrogate is one of `KINDS`.
        spikes, traces: as measured `[T, B, N]`.
        grad_spikes, grad_traces: gradients of the loss; not both None.
        events: inputs; None: no gradient of weights.
        charges: whether the charges' gradient is wanted.
    """
    neurons = traces.shape[2]
    grad_charges = torch.empty_like(traces) if charges else traces.new_empty(0, 0, 0)
    grad_weight = traces.new_zeros(events.units, neurons) if events is not None else traces.new_empty(0, 0)
    offsets, units = NO_EVENTS if events is None else events.grouped
    none = traces.new_empty(0, 0, 0)
    arguments = [
        _array(x.contiguous())
        for x in (
            offsets,
            units,
            traces if spikes is None else spikes,
            traces,
            none if grad_spikes is None else grad_spikes,
            none if grad_traces is None else grad_traces,
        )
    ]
    kind, at_threshold = KINDS.get(model.surrogate, 0), model.at_threshold and spikes is not None
    numbers = kind, _number(traces, model.slope), at_threshold, *(_number(traces, x) for x in (model.alpha, model.beta))
    outputs = _array(grad_charges), _array(grad_weight)
    _share(lambda first, last: _kernels().gradient(first, last, *arguments, *numbers, *outputs), neurons, LEAST_NEURONS)
    return (grad_charges if charges else None), (grad_weight.t() if events is not None else None)


@cache
def _kernels() -> Any:
    """Return the compiled loops; not imported before they are needed, for numba takes its time."""
    from . import kernels

    return kernels


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


def _share(work: Callable[[int, int], object], count: int, least: int) -> None:
    """Share `count` items between the cores, the calling thread included."""
    parts = max(1, min(_cores(), count // least))
    edges = [count * i // parts for i in range(parts + 1)]
    others = [_pool().submit(work, edges[i], edges[i + 1]) for i in range(1, parts)]
    work(edges[0], edges[1])
    for other in others:
        other.result()
