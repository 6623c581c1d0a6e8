"""Forms of spikes and membranes, converted into each other on the CPU: events, grids, counts; codes and membranes.

Engines and measured layers share these; on other devices torch's own operations do the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.backends.spikes import GRID_TOLERANCE

from .events import GroupedEvents
from .shapes import require, require_events
from .threads import edges_of, run_loop


def group_events(spikes: Spikes, dt: float, steps: int) -> GroupedEvents:
    """Group events by sample and step; events after the window are left out.

    Raises:
        ValueError: an event is out of range, lengths differ, or there is no time grid.
    """
    from .conversion_kernel import group_events as kernel

    return _group(kernel, spikes, dt, steps)


def bin_spikes(spikes: Spikes, dt: float, steps: int) -> GroupedEvents:
    """Group spikes by sample and step; several spikes of a neuron in one step count once.

    Raises:
        ValueError: an event is out of range, lengths differ, or there is no time grid.
    """
    from .conversion_kernel import bin_spikes as kernel

    return _group(kernel, spikes, dt, steps)


def on_grid(spikes: Spikes, dt: float) -> Spikes:
    """Return spikes at the starts of their time steps, as a network in software sees them.

    Times in a graph stay in it: a start moves as its spike does.
    """
    time = (spikes.bins(dt).double() * dt).float()
    if spikes.time.requires_grad:
        time = spikes.time - spikes.time.detach() + time
    return Spikes.trusted(spikes.sample, spikes.unit, time, spikes.samples, spikes.units)


def _group(kernel: Callable[..., int], spikes: Spikes, dt: float, steps: int) -> GroupedEvents:
    if not (dt > 0 and steps >= 1):
        raise ValueError(f"a time grid needs dt > 0 and at least one step, got dt={dt} s, steps={steps}")
    sample = spikes.sample
    _check_spikes(sample, spikes.unit, spikes.time)
    offsets = np.empty(spikes.samples * steps + 1, np.int64)
    units = np.empty(len(sample), np.int64)
    parts = (sample.numpy(), spikes.unit.numpy(), spikes.time.numpy())
    invalid_event = kernel(*parts, spikes.samples, spikes.units, dt, GRID_TOLERANCE, offsets, units)
    if invalid_event >= 0:
        raise spikes.refusal(invalid_event)
    return GroupedEvents(torch.from_numpy(offsets), torch.from_numpy(units[: offsets[-1]]), spikes.units)


def _check_spikes(sample: Tensor, unit: Tensor, time: Tensor) -> None:
    """Refuse events whose parts have different lengths or other types than int64, int64 and float32."""
    shape = sample.shape
    types = (sample.dtype, unit.dtype, time.dtype)
    if not shape == unit.shape == time.shape or types != (torch.int64, torch.int64, torch.float32):
        for name, part in (("sample", sample), ("unit", unit)):
            require(f"spikes.{name}", part, (len(sample),), torch.int64)
        require("spikes.time", time, (len(sample),), torch.float32)


def to_spikes(events: GroupedEvents, shape: tuple[int, int, int], dt: float) -> Spikes:
    """Return grouped events as events at the starts of their steps, the reverse of `group_events`.

    Args:
        events: Events grouped by sample and step.
        shape: T, B, N.
        dt: Width of a step (s).

    Raises:
        ValueError: the events have another shape, or there is no time grid.
    """
    if not dt > 0:
        raise ValueError(f"dt={dt} s must be positive")
    steps, samples, units = shape
    require_events("events", events, steps * samples, units)
    row = torch.repeat_interleave(events.offsets.diff())
    sample = torch.div(row, steps, rounding_mode="floor")
    time = ((row - sample * steps).double() * dt).float()
    return Spikes.trusted(sample, events.units, time, samples, units)


def to_grid(events: GroupedEvents, shape: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
    """Return a grid `[T, B, N]` with 1 for each event, and 0 elsewhere.

    Raises:
        ValueError: the events have another shape.
    """
    from .conversion_kernel import to_grid as kernel

    require_events("events", events, shape[0] * shape[1], shape[2])
    grid = torch.zeros(shape, dtype=dtype)
    kernel(events.offsets.numpy(), events.units.numpy(), grid.numpy())
    return grid


def count_grid(events: GroupedEvents, shape: tuple[int, int, int], first: int) -> Tensor:
    """Return the numbers of events of the steps from `first` on, float32 `[W, B, J]`."""
    from .conversion_kernel import count_grid as kernel

    grid = torch.zeros(shape)
    kernel(events.offsets.numpy(), events.units.numpy(), first, grid.numpy())
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
    from .conversion_kernel import count_events as kernel

    require_events("events", events, steps * samples, events.sources)
    counts = torch.empty(samples, events.sources, dtype=torch.float32)
    kernel(events.offsets.numpy(), events.units.numpy(), steps, counts.numpy())
    return counts


def membranes(codes: Tensor, unit: float) -> Tensor:
    """Return membranes float32 `[T, B, N]` of raw codes uint8 `[B, T, N]`; the leak is 0, and `unit` codes are 1.

    Subtracting the first sample of every trial removes the offsets of neuron and ADC channel (Cramer et al. 2022).

    Raises:
        ValueError: there is no trace sample, or the codes have another type.
    """
    from .conversion_kernel import membranes as kernel

    if codes.dim() != 3 or codes.shape[1] == 0 or codes.dtype != torch.uint8:
        raise ValueError(f"codes: expected torch.uint8 [B, T, N] with T > 0, got {codes.dtype} {tuple(codes.shape)}")
    traces = torch.empty(codes.shape[1], codes.shape[0], codes.shape[2], dtype=torch.float32)
    arguments: tuple[Any, ...] = (codes.numpy(), np.float32(1 / unit), traces.numpy())
    run_loop(kernel, edges_of(len(codes), codes.numel() // 4), *arguments)
    return traces
