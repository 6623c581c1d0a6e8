"""Spikes as events, and their conversion to and from a time grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GRID_TOLERANCE = 1e-3
"""A time within this fraction of a bin before the bin's start still counts as its start (rounding)."""


@dataclass(frozen=True)
class Spikes:
    """Spike events of a batch: sparse, grouped by sample, times as exact as the device gives them.

    Attributes:
        sample: index of the trial, ascending, int64 `[E]`.
        unit: index of the input or neuron, int64 `[E]`.
        time: time since the trial's start in seconds, >= 0, float32 `[E]`; any order within a sample.
        samples: number of trials `B`.
        units: number of inputs or neurons `N`.
    """

    sample: Tensor
    unit: Tensor
    time: Tensor
    samples: int
    units: int

    @classmethod
    def from_events(cls, sample: Tensor, unit: Tensor, time: Tensor, samples: int, units: int) -> Spikes:
        """Build from events in any order, and check them.

        Raises:
            ValueError: an index is out of range, a time negative or not finite, or lengths differ.
        """
        lengths = {sample.numel(), unit.numel(), time.numel()}
        if len(lengths) != 1:
            raise ValueError(f"sample, unit and time need one length, got {sorted(lengths)}")
        for name, index, limit in (("sample", sample, samples), ("unit", unit, units)):
            if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < limit:
                raise ValueError(f"spikes.{name} spans {int(index.min())}..{int(index.max())}, allowed 0..{limit - 1}")
        if time.numel() and not (bool(torch.isfinite(time).all()) and float(time.min()) >= 0):
            raise ValueError(f"spikes.time must be finite and >= 0 s, smallest is {float(time.min())}")
        order = torch.argsort(sample, stable=True)
        return cls(sample[order].long(), unit[order].long(), time[order].float(), samples, units)

    @classmethod
    def from_times(cls, times: Tensor) -> Spikes:
        """Build from one time per input `[B, N]` in seconds; a time that is not finite means no spike.

        Raises:
            ValueError: a time is negative.
        """
        sample, unit = torch.isfinite(times).nonzero(as_tuple=True)
        time = times[sample, unit].float()
        if time.numel() and float(time.min()) < 0:
            raise ValueError(f"spikes.time must be finite and >= 0 s, smallest is {float(time.min())}")
        return cls(sample, unit, time, times.shape[0], times.shape[1])

    @classmethod
    def from_grid(cls, grid: Tensor, dt: float) -> Spikes:
        """Build from spike counts on a grid `[T, B, N]`: a count of c in bin k gives c events at `k * dt`."""
        sample, step, unit = grid.permute(1, 0, 2).nonzero(as_tuple=True)
        count = grid[step, sample, unit].long()
        sample, step, unit = (x.repeat_interleave(count) for x in (sample, step, unit))
        return cls(sample, unit, (step.double() * dt).float(), grid.shape[1], grid.shape[2])

    def __len__(self) -> int:
        """Return the number of events `E`."""
        return self.time.numel()

    def check(self) -> None:
        """Look at all events, which only `from_events` does by itself.

        Raises:
            ValueError: an event is out of range.
        """
        good = (self.sample >= 0) & (self.sample < self.samples) & (self.unit >= 0) & (self.unit < self.units)
        good &= self.time >= 0
        if not bool(good.all()):
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
        return torch.floor(self.time.double() / dt + GRID_TOLERANCE).long()

    def to_grid(self, dt: float, steps: int, binary: bool = False, strict: bool = False) -> Tensor:
        """Return spike counts on a time grid, float32 `[T, B, N]`.

        Bin k covers `[k dt, (k + 1) dt)`. Where all spikes lie on the grid and inside it,
        `Spikes.from_grid(spikes.to_grid(dt, steps), dt)` gives the same events. Elsewhere a spike
        moves to the start of its bin, spikes of one unit in one bin add up (or count once with
        `binary`), and spikes at or after `steps * dt` are left out.

        Raises:
            ValueError: an event is out of range; `strict` and at least one spike lies outside the grid.
        """
        self.check()
        bins = self.bins(dt)
        if strict and bool((bins >= steps).any()):
            late = int((bins >= steps).sum())
            raise ValueError(f"{late} spikes lie at or after {steps * dt:.3g} s, the grid's end; use more steps")
        grid = torch.zeros(steps + 1, self.samples, self.units, device=self.time.device)
        # what is too late lies behind the grid
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
        """Return consecutive pieces of at most `size` samples, each counting its samples from 0."""
        offsets = self.offsets().tolist()
        pieces = []
        for first in range(0, self.samples, size):
            last = min(first + size, self.samples)
            part = slice(offsets[first], offsets[last])
            pieces.append(Spikes(self.sample[part] - first, self.unit[part], self.time[part], last - first, self.units))
        return pieces

    def stretch(self, first: int, last: int) -> Spikes:
        """Return samples `first` to before `last`, counted from 0."""
        if (first, last) == (0, self.samples):
            return self
        edges = torch.searchsorted(self.sample, torch.tensor([first, last], device=self.sample.device))
        begin, end = edges.tolist()
        sample = self.sample[begin:end] - first
        return Spikes(sample, self.unit[begin:end], self.time[begin:end], last - first, self.units)

    @staticmethod
    def cat(pieces: list[Spikes]) -> Spikes:
        """Join pieces of consecutive samples (the inverse of `split`)."""
        sample, first = [], 0
        for piece in pieces:
            sample.append(piece.sample + first)
            first += piece.samples
        unit, time = torch.cat([p.unit for p in pieces]), torch.cat([p.time for p in pieces])
        return Spikes(torch.cat(sample), unit, time, first, pieces[0].units)

    def ordered(self) -> Spikes:
        """Return the same events in canonical order: by sample, then time, then unit."""
        order = torch.argsort(self.unit, stable=True)
        order = order[torch.argsort(self.time[order], stable=True)]
        order = order[torch.argsort(self.sample[order], stable=True)]
        return Spikes(self.sample[order], self.unit[order], self.time[order], self.samples, self.units)

    def to(self, device: str | torch.device) -> Spikes:
        """Return the same events on another torch device."""
        return Spikes(self.sample.to(device), self.unit.to(device), self.time.to(device), self.samples, self.units)
