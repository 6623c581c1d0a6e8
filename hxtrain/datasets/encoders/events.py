"""Recorded events as input spikes: a choice of their units, and a factor of time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.backends.spikes import Data

from .base import EVENTS, Encoder, Limit, checked_events


@dataclass
class EventEncoder(Encoder):
    """Recorded events as they are, faster: an event of unit n at time t becomes a spike of input n at `t / speedup`.

    Fewer inputs than units take part of them: every `stride`-th unit from `first` on, whose events become those of
    input `(n - first) / stride`; or, with `pooled`, all units from `first` on, `stride` neighbours per input. Cramer et
    al. 2022 feed 70 of the 700 units of the Spiking Heidelberg Digits to a chip with `first=70, stride=9`.

    Merged units keep all their events: two events at one time stay two spikes, which a device adds up like any two
    spikes of an input.

    Attributes:
        speedup: factor by which recordings pass faster than they were made. A second of speech fits a trial of 0.5 ms
            with 2000; 1 is for events whose times are those of the device.
        first: first unit in use; events of the units before it are left out.
        stride: number of neighbouring units per input.
        pooled: whether an input gets the events of all its units, instead of those of the first one alone.
        jitter: standard deviation of noise on the times of spikes (s), see `Encoder`.
        grid: width of bins (s) of the times of spikes, see `Encoder`.
    """

    TAKES: ClassVar[str] = EVENTS

    speedup: float = 1.0
    first: int = 0
    stride: int = 1
    pooled: bool = False

    def limits(self) -> Sequence[Limit]:
        """Return the conditions on the settings."""
        return (
            Limit("speedup", 0 < self.speedup < math.inf, "finite speedup > 0"),
            Limit("first", self.first >= 0, "first >= 0"),
            Limit("stride", self.stride >= 1, "stride >= 1"),
            Limit("pooled", self.stride > 1 or not self.pooled, "pooled needs stride > 1"),
        )

    def units(self, features: int) -> int:
        """Return the number of network inputs for events of so many units.

        Raises:
            ValueError: `first` leaves no unit.
        """
        return self.inputs(features)

    def inputs(self, features: int) -> int:
        """Return the number of inputs that the units in use make; arguments and errors as in `units`."""
        if self.first >= features:
            raise ValueError(f"encoder.first={self.first} leaves none of {features} units; give at most {features - 1}")
        return -(-(features - self.first) // self.stride)

    def times(self, samples: Tensor) -> Tensor:
        """Return spike times `[E]` (s) of events at recorded times `[E]` (s)."""
        return samples if self.speedup == 1 else (samples.double() / self.speedup).float()

    def __call__(self, samples: Data | Spikes, generator: torch.Generator | None = None) -> Spikes:
        """Encode events; arguments and errors as in `Encoder`. Jitter is drawn for the events that are in use."""
        return super().__call__(self.selected(checked_events(samples, self)), generator)

    def selected(self, events: Spikes) -> Spikes:
        """Return the events of the units in use, at recorded times, with the number of their input as their unit."""
        inputs = self.inputs(events.units)
        if inputs == events.units:
            return events
        places = events.unit - self.first
        is_used = places >= 0
        if not self.pooled:
            is_used &= places % self.stride == 0
        chosen = is_used.nonzero()[:, 0]
        unit = torch.div(places[chosen], self.stride, rounding_mode="floor")
        return Spikes.trusted(events.sample[chosen], unit, events.time[chosen], events.samples, inputs)
