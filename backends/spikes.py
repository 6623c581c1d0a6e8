"""Spikes as events, and their conversion to and from a time grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from . import intake

GRID_TOLERANCE = 1e-3
"""A time within this fraction of a bin before the bin's start still counts as its start (rounding)."""
LAST_BIN = 2.0**52
"""Later bins count as this one, since their numbers do not fit an integer."""
Data = Any
"""What `intake.as_tensor` takes: tensors, numpy arrays, lists."""


@dataclass(frozen=True, repr=False)
class Spikes:
    """Spike events of a batch: sparse, grouped by sample, times as exact as the device gives them.

    The constructor takes tensors, numpy arrays or lists, in any order, checks them and brings them into the form below.
    It keeps all events: equal events count as often as they occur. Every device ignores events after the network's
    window.

    Attributes:
        sample: Index of the trial, ascending, int64 `[E]`.
        unit: Index of the input or neuron, int64 `[E]`.
        time: Time since the trial's start (s), >= 0, float32 `[E]`; in any order within a sample.
        samples: Number of trials `B`.
        units: Number of inputs or neurons `N`.

    Raises:
        TypeError: An argument does not consist of real numbers.
        ValueError: An index is fractional or out of range, a time is negative or not finite, or lengths differ.
    """

    sample: Tensor
    unit: Tensor
    time: Tensor
    samples: int
    units: int

    def __post_init__(self) -> None:
        self._take(1.0)

    def _take(self, time_unit: float) -> None:
        """Check the arguments and bring them into the form of the attributes."""
        samples, units = intake.size(self.samples, "spikes.samples"), intake.size(self.units, "spikes.units")
        time = intake.seconds(self.time, "spikes.time", time_unit)
        sample = intake.index(self.sample, "spikes.sample", samples).to(time.device)
        unit = intake.index(self.unit, "spikes.unit", units).to(time.device)
        lengths = {len(sample), len(unit), len(time)}
        if len(lengths) != 1:
            raise ValueError(f"sample, unit and time need one length, got {sorted(lengths)}")
        if bool((sample[1:] < sample[:-1]).any()):
            order = torch.argsort(sample, stable=True)
            sample = sample[order]
            unit = unit[order]
            time = time[order]
        vars(self).update(sample=sample, unit=unit, time=time, samples=samples, units=units)

    @classmethod
    def trusted(cls, sample: Tensor, unit: Tensor, time: Tensor, samples: int, units: int) -> Spikes:
        """Build from events that have the form of the attributes already, such as a device's, without any check."""
        spikes = object.__new__(cls)
        vars(spikes).update(sample=sample, unit=unit, time=time, samples=samples, units=units)
        return spikes

    @classmethod
    def from_events(
        cls, sample: Data, unit: Data, time: Data, samples: int, units: int, time_unit: float = 1.0
    ) -> Spikes:
        """Build from events in any order.

        Args:
            sample: Index of the trial `[E]`.
            unit: Index of the input `[E]`.
            time: Time since the trial's start, in units of `time_unit` `[E]`.
            samples: Number of trials `B`.
            units: Number of inputs `N`.
            time_unit: Unit of the times (s), such as 1e-6 for microseconds.

        Raises:
            TypeError, ValueError: See `Spikes`.
        """
        spikes = cls.trusted(sample, unit, time, samples, units)
        spikes._take(time_unit)
        return spikes

    @classmethod
    def from_recordings(
        cls, recordings: Sequence[Data], sizes: Mapping[str, int], time_unit: float = 1e-6, time: str = "t"
    ) -> Spikes:
        """Build from one structured array, or mapping of arrays, per sample, as event cameras and their libraries give.

        Args:
            recordings: One recording per sample, with a field for the times and the fields of `sizes`, `[E]` each.
            sizes: Fields that name an input, and the number of values of each; the last field changes fastest: with
                `{"p": 2, "y": 34, "x": 34}` an event belongs to input `(p * 34 + y) * 34 + x` of 2312.
            time_unit: Unit of the times in the time of the device (s): 1e-9 for recorded microseconds that shall pass
                a thousand times faster.
            time: Name of the field with the times, which count from the start of each recording.

        Raises:
            TypeError, ValueError: A field is missing; or see `Spikes`.
        """
        if not isinstance(recordings, Sequence) or isinstance(recordings, str):
            raise TypeError(
                f"recordings: expected one structured array or mapping per sample, got {type(recordings).__name__}; of "
                "one sample: [recording]"
            )
        if not isinstance(sizes, Mapping):
            raise TypeError(f"sizes={sizes!r}: expected the size of each field, such as {{'x': 34}}")
        limits = {name: intake.size(limit, f"sizes[{name!r}]") for name, limit in sizes.items()}
        parts = [
            intake.recorded(recording, limits, time, time_unit, f"recordings[{number}]")
            for number, recording in enumerate(recordings)
        ]
        lengths = torch.tensor([len(events) for events, _ in parts], dtype=torch.int64)
        sample = torch.arange(len(parts)).repeat_interleave(lengths)
        unit, times = (torch.cat(pieces) for pieces in zip(*parts, strict=True)) if parts else (sample, sample)
        return cls(sample, unit, times, len(parts), math.prod(limits.values()))

    @classmethod
    def from_times(cls, times: Data, time_unit: float = 1.0) -> Spikes:
        """Build from one time per input `[B, N]` in units of `time_unit` (s); a time that is not finite means no spike.

        Raises:
            TypeError: These are no real numbers.
            ValueError: A time is negative, or the shape another one.
        """
        times = intake.as_tensor(times, "spikes.time")
        if times.ndim != 2:
            raise ValueError(
                f"spikes.time has shape {list(times.shape)}, expected [B, N]: one time per sample and input"
            )
        times = intake.in_seconds(times, "spikes.time", time_unit)
        sample, unit = torch.isfinite(times).nonzero(as_tuple=True)
        time = times[sample, unit]
        if time.numel() and float(time.min()) < 0:
            raise ValueError(f"spikes.time must be finite and >= 0 s, smallest is {float(time.min())}")
        return cls.trusted(sample, unit, time, times.shape[0], times.shape[1])

    @classmethod
    def from_grid(cls, grid: Data, dt: float) -> Spikes:
        """Build from spike counts on a grid `[T, B, N]`: a count of c in bin k gives c events at `k * dt`.

        Raises:
            TypeError: These are no real numbers.
            ValueError: A count is fractional, negative or too large, or the shape another one.
        """
        intake.positive(dt, "dt", "s")
        grid = intake.counts(grid, "a grid of spikes")
        sample, step, unit = grid.permute(1, 0, 2).nonzero(as_tuple=True)
        count = grid[step, sample, unit]
        sample, step, unit = (x.repeat_interleave(count) for x in (sample, step, unit))
        return cls.trusted(sample, unit, (step.double() * dt).float(), grid.shape[1], grid.shape[2])

    def __len__(self) -> int:
        """Return the number of events `E`."""
        return self.time.numel()

    def __repr__(self) -> str:
        """Describe the batch in a line."""
        span = ""
        if len(self) and self.time.device.type == "cpu":  # elsewhere the host would wait for it
            span = f", {float(self.time.min()):.3g}..{float(self.time.max()):.3g} s"
        return f"Spikes({len(self)} events, {self.samples} samples, {self.units} units{span})"

    def __getitem__(self, chosen: Data | slice) -> Spikes:
        """Return the events of the chosen samples, renumbered from 0 in the order of a slice, indices or a mask `[B]`.

        Raises:
            TypeError: The argument is a single number or no index at all; use `[[number]]` for one sample.
            IndexError: A sample does not exist.
        """
        if isinstance(chosen, slice):
            rows = torch.arange(self.samples)[chosen] if (chosen.step or 1) > 0 else None
        else:
            rows = intake.rows(chosen, self.samples)
        if rows is None:
            raise TypeError(
                f"spikes[{chosen!r}]: choose samples by a slice, indices or a mask [B], such as spikes[[0]]"
            )
        rows = rows.to(self.time.device).contiguous()
        samples = self.sample.contiguous()
        first = torch.searchsorted(samples, rows)
        last = torch.searchsorted(samples, rows, right=True)
        sample, events = gather(first, last)
        return Spikes.trusted(sample, self.unit[events], self.time[events], len(rows), self.units)

    def check(self) -> None:
        """Check all events; only `Spikes` and `from_events` do so by themselves.

        Raises:
            ValueError: An event is out of range.
        """
        if not len(self):
            return
        spans = torch.stack([*torch.aminmax(self.sample), *torch.aminmax(self.unit)]).tolist()
        first, last, lowest, highest = spans
        if 0 <= first <= last < self.samples and 0 <= lowest <= highest < self.units and float(self.time.min()) >= 0:
            return
        good = (self.sample >= 0) & (self.sample < self.samples) & (self.unit >= 0) & (self.unit < self.units)
        good &= self.time >= 0
        raise self.refusal(int((~good).nonzero()[0, 0]))

    def refusal(self, event: int) -> ValueError:
        """Return the error for an event that is out of range."""
        sample, unit, time = (part[event].item() for part in (self.sample, self.unit, self.time))
        return ValueError(
            f"event {event} of {len(self)} has sample {sample}, unit {unit} and time {time:.4g} s, outside "
            f"0..{self.samples - 1}, 0..{self.units - 1} and >= 0 s; build spikes with Spikes.from_events, which "
            "checks them, or mend the backend that recorded them"
        )

    def bins(self, dt: float) -> Tensor:
        """Return each event's bin `floor(t / dt)`, int64 `[E]`."""
        return torch.floor(self.time.double() / dt + GRID_TOLERANCE).clamp(max=LAST_BIN).long()

    def inside(self, dt: float, steps: int) -> Tensor:
        """Return the number of events within a window of `steps` bins, int64 `[]`; the host does not wait for it."""
        return torch.count_nonzero(self.time < (steps - GRID_TOLERANCE) * dt)

    def to_grid(self, dt: float, steps: int, binary: bool = False, strict: bool = False) -> Tensor:
        """Return spike counts on a time grid, float32 `[T, B, N]`.

        Bin k covers `[k dt, (k + 1) dt)`. Where all spikes lie on the grid and inside it,
        `Spikes.from_grid(spikes.to_grid(dt, steps), dt)` gives the same events. Elsewhere a spike
        moves to the start of its bin, spikes of one unit in one bin add up (or count once with
        `binary`), and spikes at or after `steps * dt` are left out.

        Raises:
            ValueError: An event is out of range; `strict` and at least one spike lies outside the grid.
        """
        intake.positive(dt, "dt", "s")
        steps = intake.size(steps, "steps")
        self.check()
        bins = self.bins(dt)
        if strict and bool((bins >= steps).any()):
            late = int((bins >= steps).sum())
            raise ValueError(f"{late} spikes lie at or after {steps * dt:.3g} s, the grid's end; use more steps")
        grid = torch.zeros(steps + 1, self.samples, self.units, device=self.time.device)
        # events after the grid go to an additional last bin
        place = (bins.clamp(max=steps) * self.samples + self.sample) * self.units + self.unit
        if binary:
            grid.view(-1)[place] = 1.0
        else:
            grid.view(-1).scatter_add_(0, place, torch.ones_like(self.time))
        return grid[:steps]

    def offsets(self) -> Tensor:
        """Return the first event of each sample and the total, int64 `[B + 1]`."""
        counts = torch.bincount(self.sample, minlength=self.samples)
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    def split(self, size: int) -> list[Spikes]:
        """Return consecutive pieces of at most `size` samples, each counting its samples from 0.

        Raises:
            ValueError: The size is not positive.
        """
        size = intake.size(size, "spikes.split: size")
        if size < 1:
            raise ValueError(f"spikes.split: size={size} must be at least 1")
        offsets = self.offsets().tolist()
        pieces = []
        for first in range(0, self.samples, size):
            last = min(first + size, self.samples)
            part = slice(offsets[first], offsets[last])
            pieces.append(
                Spikes.trusted(self.sample[part] - first, self.unit[part], self.time[part], last - first, self.units)
            )
        return pieces

    def stretch(self, first: int, last: int) -> Spikes:
        """Return samples `first..last - 1`, renumbered from 0."""
        if (first, last) == (0, self.samples):
            return self
        return self.stretches([first, last])[0]

    def stretches(self, edges: Sequence[int]) -> list[Spikes]:
        """Return the stretches of samples between ascending edges, each renumbered from 0."""
        places = torch.searchsorted(self.sample, torch.tensor(edges, device=self.sample.device)).tolist()
        return [
            Spikes.trusted(
                self.sample[begin:end] - first, self.unit[begin:end], self.time[begin:end], last - first, self.units
            )
            for (first, last), (begin, end) in zip(pairwise(edges), pairwise(places), strict=True)
        ]

    @staticmethod
    def cat(pieces: list[Spikes]) -> Spikes:
        """Join pieces of consecutive samples (the inverse of `split`).

        Raises:
            TypeError: `pieces` is no list of Spikes.
            ValueError: `pieces` is empty, or the pieces differ in their number of units.
        """
        if not isinstance(pieces, list | tuple) or not all(isinstance(piece, Spikes) for piece in pieces):
            raise TypeError(f"Spikes.cat takes a list of Spikes, such as spikes.split(10), not {pieces!r:.60}")
        units = {piece.units for piece in pieces}
        if len(units) != 1:
            raise ValueError(f"Spikes.cat needs pieces of one number of units, got {sorted(units) or 'none'}")
        sample = []
        first = 0
        for piece in pieces:
            sample.append(piece.sample + first)
            first += piece.samples
        unit, time = torch.cat([p.unit for p in pieces]), torch.cat([p.time for p in pieces])
        return Spikes.trusted(torch.cat(sample), unit, time, first, pieces[0].units)

    def ordered(self) -> Spikes:
        """Return the same events in canonical order: by sample, then time, then unit."""
        order = torch.argsort(self.unit, stable=True)
        order = order[torch.argsort(self.time[order], stable=True)]
        order = order[torch.argsort(self.sample[order], stable=True)]
        return Spikes.trusted(self.sample[order], self.unit[order], self.time[order], self.samples, self.units)

    def to(self, device: str | torch.device) -> Spikes:
        """Return the same events on another torch device."""
        return Spikes.trusted(
            self.sample.to(device), self.unit.to(device), self.time.to(device), self.samples, self.units
        )


def gather(first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the events of chosen samples lie in arrays of all events.

    Args:
        first: First event of each sample, int64 `[S]`.
        last: Event after the last one of each sample, int64 `[S]`.

    Returns:
        Sample `0..S - 1` and index of each event, int64 `[E]` each, one sample after the other.
    """
    count = last - first
    sample = torch.arange(len(count), device=count.device).repeat_interleave(count)
    shift = first - (count.cumsum(0) - count)
    return sample, torch.arange(len(sample), device=count.device) + shift[sample]
