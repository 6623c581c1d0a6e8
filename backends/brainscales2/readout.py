"""Conversion of hxtorch's readout to the contract: codes, events, and lost trials."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..recording import DeviceError
from ..spikes import Spikes

log = logging.getLogger(__name__)

CLOCK = 125e6
"""FPGA clock cycles per second: the unit of hxtorch's time stamps of spikes and samples."""
OFFSET = 128
"""Offset of hxtorch's CADC values: they are codes minus this."""
LARGEST_GAP = 1.9
"""Longest time without a sample (trace intervals) in a trial that counts as whole; an estimate, to be measured on a
chip. A single missing sample is a gap of 2."""
EVIDENCE = 256
"""Number of pairs of neighbouring samples that must all be equal in a frozen trace."""


class Samples:
    """Times of a population's samples, if hxtorch reports them.

    Args:
        handle: Handle of CADC samples of hxtorch.

    Attributes:
        timed: Whether times are known.

    Raises:
        DeviceError: A neuron has no sample at all in a trial; hxtorch must not bring such data onto its grid.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._common = _common_times(handle)
        self.timed = self._common is not None
        if self._common is not None and len(self._common) == 0:
            raise DeviceError("of at least one neuron no trace sample arrived in at least one trial")

    def incomplete(self, batch: int, window: float, interval: float) -> Tensor:
        """Return which trials have a gap of more than `LARGEST_GAP` intervals, bool `[B]`; without times: none.

        Args:
            batch: Number of trials.
            window: Time of the last requested sample (s).
            interval: Time between samples (s).

        Raises:
            DeviceError: A neuron has no sample at all in a trial.
        """
        common = self._common
        if common is None:
            return torch.zeros(batch, dtype=torch.bool)
        limit = LARGEST_GAP * interval
        if not bool(_gaps(common, window, limit).any()):
            return torch.zeros(batch, dtype=torch.bool)
        return self._look_closely(batch, window, limit)

    def _look_closely(self, batch: int, window: float, limit: float) -> Tensor:
        """Judge every trial by its own samples, if the samples common to all neurons and trials are too few."""
        rows = np.asarray(self._handle.get_data(), dtype=np.int64).reshape(-1, 4)
        size = int(self._handle.population_size)
        series = torch.from_numpy(rows[:, 2] * size + rows[:, 3])
        counts = torch.bincount(series, minlength=batch * size)
        order = torch.from_numpy(np.lexsort((rows[:, 1], series.numpy())))
        times = torch.from_numpy(rows[:, 1])[order]
        padded = times.new_full((int(counts.max()), batch * size), 0)
        first = counts.cumsum(0) - counts
        within = torch.arange(len(times)) - first[series[order]]
        padded[within, series[order]] = times
        last = padded.gather(0, (counts - 1)[None])
        is_padding = torch.arange(len(padded))[:, None] >= counts
        padded = torch.where(is_padding, last, padded)
        return _gaps(padded.view(-1, batch, size), window, limit)


def _common_times(handle: Any) -> Tensor | None:
    """Return clocks of the samples that every neuron has in every trial `[S, B, N]`; None if hxtorch lacks them."""
    try:
        return torch.as_tensor(handle.to_raw()[1])
    except (AttributeError, NotImplementedError):
        return None


def _gaps(clocks: Tensor, window: float, limit: float) -> Tensor:
    """Return which trials have a gap beyond `limit` between 0 and `window` (s), bool `[B]`, from clocks `[S, B, N]`."""
    times = clocks.double() / CLOCK
    begin = times.new_zeros((1, *times.shape[1:]))
    end = times.new_full((1, *times.shape[1:]), window)
    inside = torch.cat([begin, times.clamp(0.0, window), end])
    return (inside.diff(dim=0) > limit).any(0).any(1)


def post_processed(data: Any, fires: bool) -> tuple[Any, Any]:
    """Return dense spikes (None if neurons do not fire) and CADC values from the result of hxtorch's post-processing.

    Since 584f994 of December 2025 the result is an object with `spikes` and `voltage.cadc`; in releases from September
    2025 on it is a tuple, (spikes, cadc, madc) or, for neurons that do not fire, (cadc, madc).

    Raises:
        DeviceError: The result has another form.
    """
    if not isinstance(data, tuple):
        return (data.spikes if fires else None), data.voltage.cadc
    if len(data) != (3 if fires else 2):
        raise DeviceError(f"hxtorch's post-processing gave {len(data)} values, expected {3 if fires else 2}")
    return (data[0], data[1]) if fires else (None, data[0])


def to_codes(values: Tensor, samples: int, substeps: int) -> Tensor:
    """Return codes uint8 `[B, T, N]` from values on hxtorch's grid `[T * substeps + 1 or more, B, N]`.

    Raises:
        DeviceError: The grid is too short, or holds values outside the range of a CADC.
    """
    if len(values) < (samples - 1) * substeps + 1:
        raise DeviceError(f"{len(values)} values of a trace arrived, {(samples - 1) * substeps + 1} were expected")
    chosen = values.detach()[: (samples - 1) * substeps + 1 : substeps] + OFFSET
    if not bool(torch.isfinite(chosen).all()) or float(chosen.min()) < 0 or float(chosen.max()) > 255:
        raise DeviceError(
            f"trace codes span {float(chosen.min()):.4g}..{float(chosen.max()):.4g}, a CADC gives 0..255: "
            "something scales the traces"
        )
    return chosen.round().to(torch.uint8).transpose(0, 1).contiguous()


def frozen(codes: Iterable[Tensor]) -> Tensor:
    """Return which trials end in samples that do not change on any neuron, bool `[B]`, from codes `[B, T, N]` each.

    The test uses the last samples of a trial, enough for `EVIDENCE` pairs; shorter trials never count as frozen.
    """
    whole = torch.cat(list(codes), dim=2)
    batch, samples, neurons = whole.shape
    pairs = max(4, -(-EVIDENCE // neurons))
    if pairs >= samples:
        return torch.zeros(batch, dtype=torch.bool)
    last = whole[:, samples - pairs - 1 :]
    return (last[:, 1:] == last[:, :-1]).all(2).all(1)


def to_spikes(events: Any, batch: int, size: int, duration: float) -> Spikes:
    """Return events from hxtorch's list of (clock, trial, neuron), without those outside the recorded window."""
    rows = torch.from_numpy(np.asarray(events, dtype=np.int64).reshape(-1, 3))
    time = rows[:, 0].double() / CLOCK
    inside = (time >= 0) & (time < duration)
    if not bool(inside.all()):
        log.debug("%d spikes outside the recorded window", int((~inside).sum()))
    rows = rows[inside]
    return Spikes.from_events(rows[:, 1], rows[:, 2], time[inside], batch, size)


def dropped_spikes(health: Any) -> int | None:
    """Return the number of events that the crossbar dropped in a run; None if the counters cannot be read.

    The counters are differences over the run for each chip, or for each execution instance in old releases of grenade.
    """
    try:
        chips = [
            chip
            for instance in health.execution_instances.values()
            for chip in (instance.chips.values() if hasattr(instance, "chips") else [instance])
        ]
        counts = [_count(chip.crossbar_input_drop_counter) for chip in chips]
    except (AttributeError, TypeError, ValueError):
        return None
    return sum(counts) if counts else None


def _count(counter: Any) -> int:
    """Return a counter's value, or the sum of a group of counters."""
    if isinstance(counter, Mapping):
        return sum(_count(item) for item in counter.values())
    inner = getattr(counter, "value", None)
    if inner is not None:
        return _count(inner() if callable(inner) else inner)
    try:
        return sum(_count(item) for item in counter)
    except TypeError:
        return int(counter)
