"""Distortion of recorded events, before an encoder chooses inputs and speed: units and times are recorded ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.checks import check_types

from .base import Augmentation

PART_OF_A_BLEND = 0.5
"""Probability that an event of a blended sample stays (Nowotny, Turner and Knight 2025, published code)."""
FINITE = ("channel_jitter", "time_warp", "time_shift")
"""Settings that may have any finite size."""


@dataclass
class EventAugmentation(Augmentation):
    """Distortion of the events of training samples. Events that leave the units, or begin before 0 s, are dropped.

    Samples are blended first; then events are dropped, times stretched and shifted, and units shifted and jittered.
    Late events stay: a network ignores those after its window.

    Attributes:
        channel_jitter: Standard deviation of a Gaussian shift of each event's unit (units, rounded), as for the Spiking
            Heidelberg Digits (Cramer et al. 2022).
        channel_shift: Largest shift of all units of a sample (units), uniform; Nowotny et al. 2025 take 40 of 700.
        time_warp: Largest relative change of the duration of a sample: a factor between `1 / (1 + time_warp)` and
            `1 + time_warp`, uniform in its logarithm.
        time_shift: Largest shift of all times of a sample (s of the recording), uniform.
        dropping: Probability of each event to be left out.
        blending: Probability of each sample to be blended with a random training sample of its class: both are moved to
            the mean of their centres, in unit and time, and half of the events of each stay (Nowotny et al. 2025).
    """

    TAKES: ClassVar[str] = "event samples"

    channel_jitter: float = 0.0
    channel_shift: int = 0
    time_warp: float = 0.0
    time_shift: float = 0.0
    dropping: float = 0.0
    blending: float = 0.0

    def __post_init__(self) -> None:
        check_types(self, "augment.")
        for name in FINITE:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"augment.{name}={getattr(self, name)} must be finite and not negative")
        if self.channel_shift < 0:
            raise ValueError(f"augment.channel_shift={self.channel_shift} must be at least 0 units")
        if not 0 <= self.dropping < 1:
            raise ValueError(f"augment.dropping={self.dropping} must be a probability, in 0 <= x < 1")
        if not 0 <= self.blending <= 1:
            raise ValueError(f"augment.blending={self.blending} must be a probability, in 0 <= x <= 1")

    def __call__(self, events: Spikes, generator: torch.Generator) -> Spikes:
        """Distort events on the CPU, without blending, see `blend`.

        Args:
            events: Events of a batch, at recorded times.
            generator: Source of all random numbers, on the CPU.
        """
        if self.dropping > 0:
            events = _chosen(events, torch.rand(len(events), generator=generator) >= self.dropping)
        return _moved(events, self._units(events, generator), self._times(events, generator))

    def rows(self, count: int, generator: torch.Generator) -> Tensor:
        """Return the samples of a batch of `count` that are to be blended, int64 [R]."""
        return (torch.rand(count, generator=generator) < self.blending).nonzero()[:, 0]

    def _times(self, events: Spikes, generator: torch.Generator) -> Tensor:
        """Return stretched and shifted times, float64 `[E]`."""
        time = events.time.double()
        if self.time_warp > 0:
            exponents = 2 * torch.rand(events.samples, generator=generator, dtype=torch.float64) - 1
            time = time * torch.exp(math.log1p(self.time_warp) * exponents)[events.sample]
        if self.time_shift > 0:
            shares = 2 * torch.rand(events.samples, generator=generator, dtype=torch.float64) - 1
            time = time + (self.time_shift * shares)[events.sample]
        return time

    def _units(self, events: Spikes, generator: torch.Generator) -> Tensor:
        """Return shifted units with jitter, int64 `[E]`; they may lie outside the range."""
        unit = events.unit
        if self.channel_shift > 0:
            shifts = torch.randint(-self.channel_shift, self.channel_shift + 1, (events.samples,), generator=generator)
            unit = unit + shifts[events.sample]
        if self.channel_jitter > 0:
            noise = torch.randn(len(events), generator=generator)
            unit = unit + (self.channel_jitter * noise).round_().long()
        return unit


class Classmates:
    """The samples of each class, of which a blend takes one.

    Args:
        labels: Class numbers from 0, int64 [N].
    """

    def __init__(self, labels: Tensor) -> None:
        self._labels = labels
        self._order = torch.argsort(labels, stable=True)
        self._counts = torch.bincount(labels)
        self._first = self._counts.cumsum(0) - self._counts

    def draw(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Return a random sample of the class of each sample, int64 `[B]`; it may be the same one."""
        labels = self._labels[indices]
        shares = torch.rand(len(indices), generator=generator, dtype=torch.float64)
        return self._order[self._first[labels] + (shares * self._counts[labels]).long()]


def blend(events: Spikes, rows: Tensor, partners: Spikes, generator: torch.Generator) -> Spikes:
    """Blend some samples of a batch with partners.

    Args:
        events: Events of a batch of `B` samples.
        rows: Samples to blend, ascending, int64 [R].
        partners: Events of `R` samples, one for each row.
        generator: Source of the random numbers, on the CPU.

    Returns:
        Events of `B` samples; those that are not blended are as they were.
    """
    if not len(rows):
        return events
    is_blended = torch.zeros(events.samples, dtype=torch.bool)
    is_blended[rows] = True
    is_part = is_blended[events.sample]
    originals = _chosen(events, is_part)
    gaps = _centres(partners) - _centres(originals)[:, rows]
    halves = torch.zeros(2, events.samples, dtype=torch.float64)
    halves[:, rows] = gaps.nan_to_num() / 2  # a sample without events has no centre
    partners = Spikes.trusted(rows[partners.sample], partners.unit, partners.time, events.samples, events.units)
    pieces = [_chosen(events, ~is_part)]
    for piece, sign in ((originals, 1), (partners, -1)):
        unit = piece.unit + (sign * halves[0]).long()[piece.sample]
        moved = _moved(piece, unit, piece.time.double() + (sign * halves[1])[piece.sample])
        pieces.append(_chosen(moved, torch.rand(len(moved), generator=generator) < PART_OF_A_BLEND))
    sample, unit, time = (torch.cat(parts) for parts in zip(*((p.sample, p.unit, p.time) for p in pieces), strict=True))
    order = torch.argsort(sample, stable=True)
    return Spikes.trusted(sample[order], unit[order], time[order], events.samples, events.units)


def _centres(events: Spikes) -> Tensor:
    """Return the mean unit and the mean time of each sample, float64 `[2, B]`; nan without events."""
    counts = torch.bincount(events.sample, minlength=events.samples)
    values = (events.unit.double(), events.time.double())
    return torch.stack([torch.bincount(events.sample, value, events.samples).double() / counts for value in values])


def _moved(events: Spikes, unit: Tensor, time: Tensor) -> Spikes:
    """Return events with new units and times, without those outside the units or before 0 s."""
    moved = Spikes.trusted(events.sample, unit, time.float(), events.samples, events.units)
    return _chosen(moved, (unit >= 0) & (unit < events.units) & (time >= 0))


def _chosen(events: Spikes, is_chosen: Tensor) -> Spikes:
    """Return some of the events."""
    chosen = is_chosen.nonzero()[:, 0]
    return Spikes.trusted(events.sample[chosen], events.unit[chosen], events.time[chosen], events.samples, events.units)
