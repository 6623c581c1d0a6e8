"""Checks of the shapes of arguments of compiled loops, which do not check bounds and would read foreign memory."""

from __future__ import annotations

import torch
from torch import Tensor

from .events import Grads, GroupedEvents


def require(name: str, tensor: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Refuse a tensor with another shape or type; None is accepted.

    Raises:
        ValueError: the shape or type differs; the message has the expected one.
    """
    if tensor is not None and (tensor.shape != shape or tensor.dtype != dtype):
        raise ValueError(f"{name}: expected {dtype} {shape}, got {tensor.dtype} {tuple(tensor.shape)}")


def require_events(name: str, events: GroupedEvents | None, groups: int, sources: int) -> None:
    """Refuse events with another number of groups or sources; None is accepted.

    Raises:
        ValueError: the events differ; the message has the expected shape.
    """
    if events is None:
        return
    if events.sources != sources:
        raise ValueError(f"{name} have {events.sources} sources, the weights {sources}; they must match")
    offsets = events.offsets
    units = events.units
    if offsets.shape != (groups + 1,) or units.dim() != 1 or not offsets.dtype == units.dtype == torch.int64:
        require(f"{name}: offsets", offsets, (groups + 1,), torch.int64)
        require(f"{name}: units", units, (units.numel(),), torch.int64)
    last = int(offsets.numpy()[-1])  # several microseconds faster than torch's indexing
    if last > units.shape[0]:
        raise ValueError(f"{name}: offsets reach {last}, but there are {units.shape[0]} events")


Requirement = tuple[str, Tensor | None, tuple[int, ...]]
"""Name, tensor and shape of an argument."""


def require_all(dtype: torch.dtype, *requirements: Requirement) -> None:
    """Refuse tensors with another shape, or a type other than `dtype`; see `require`."""
    for name, tensor, shape in requirements:
        if tensor is not None and (tensor.shape != shape or tensor.dtype != dtype):
            require(name, tensor, shape, dtype)


def check_drive(
    weight: Tensor,
    inputs: GroupedEvents | Tensor,
    shape: tuple[int, int, int],
    recurrent: Tensor | None,
    spikes: GroupedEvents | None = None,
) -> None:
    """Refuse arguments of a forward pass whose shapes do not belong to one layer.

    Args:
        weight: Weights of the inputs `[N, J]`.
        inputs: Grouped events, or spikes `[T, B, J]`.
        shape: T, B, N.
        recurrent: Recurrent weights `[N, N]`; None without recurrence.
        spikes: Prescribed spikes of the layer, if any.
    """
    steps, samples, neurons = shape
    _check_steps(shape)
    sources = weight.shape[-1]
    require_all(
        weight.dtype, ("weights", weight, (neurons, sources)), ("recurrent weights", recurrent, (neurons, neurons))
    )
    if isinstance(inputs, GroupedEvents):
        require_events("events", inputs, steps * samples, sources)
    else:
        require("inputs", inputs, (steps, samples, sources), weight.dtype)
    if spikes is not None and spikes.sources != neurons:
        raise ValueError(f"spikes are of {spikes.sources} neurons, the weights of {neurons}; they must match")
    require_events("spikes", spikes, steps * samples, neurons)


def check_backward(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    codes: Tensor | None,
    spikes: GroupedEvents | None,
    grads: Grads,
    downstream: tuple[Tensor, Tensor] | None,
    events: GroupedEvents | None,
    weight: Tensor | None = None,
) -> None:
    """Refuse arguments of a backward pass whose shapes do not belong to one layer.

    Args:
        shape: T, B, N of the membranes.
        dtype: Type of the gradients.
        codes: Codes of the membranes `[B, T, N]`, if any.
        spikes: Measured spikes, if any.
        grads: Gradients of the layer's outputs.
        downstream: Gradient of the charges and weights of the downstream layer, if any.
        events: Input events, if any.
        weight: Weights of the layer `[N, J]` for these events, if they matter.
    """
    if len(shape) != 3:
        raise ValueError(f"membrane: expected [T, B, N], got {tuple(shape)}")
    steps, samples, neurons = shape
    _check_steps((steps, samples, neurons))
    require("codes", codes, (samples, steps, neurons), torch.uint8)
    require_events("spikes", spikes, steps * samples, neurons)
    if events is not None:
        require_events("events", events, steps * samples, events.sources)
        require("weights", weight, (neurons, events.sources), dtype)
    charge, downstream_weight = (None, None) if downstream is None else downstream
    targets = 0 if downstream_weight is None else downstream_weight.shape[0]
    require_all(
        dtype,
        ("gradient of spikes", grads.spikes, shape),
        ("gradient of membranes", grads.traces, shape),
        ("gradient of numbers of spikes", grads.counts, (samples, neurons)),
        ("weights of the downstream layer", downstream_weight, (targets, neurons)),
        ("charges of the downstream layer", charge, (steps, samples, targets)),
    )


def _check_steps(shape: tuple[int, int, int]) -> None:
    if shape[0] < 1:
        raise ValueError(f"a layer needs at least one step, got T, B, N = {tuple(shape)}")
