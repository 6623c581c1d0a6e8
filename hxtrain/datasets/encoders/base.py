"""The base of all encoders: checked settings, jitter, and the way from times to spikes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple, Optional

import torch
from torch import Tensor

from hxtrain.backends import Registry, Spikes
from hxtrain.backends.intake import as_tensor
from hxtrain.backends.spikes import GRID_TOLERANCE, Data
from hxtrain.checks import check_types, require_kind

INTENSITIES = "intensities"
"""Kind of samples: values in 0..1."""
EVENTS = "events"
"""Kind of samples: recorded events."""


class Limit(NamedTuple):
    """A condition on a setting.

    Attributes:
        name: name of the setting.
        is_met: whether the setting meets the condition.
        text: the condition, for an error.
    """

    name: str
    is_met: bool
    text: str


@dataclass
class Encoder(ABC):
    """Base: checked settings, jitter, and the way from times to spikes.

    Attributes:
        TAKES: kind of the samples, `INTENSITIES` or `EVENTS`.
        jitter: standard deviation of Gaussian noise on the times (s), drawn from the generator that the call gets;
            times stay >= 0.
        grid: width of bins (s) at whose start spikes are sent, as in Cramer et al. 2022 (published code); None
            sends each spike at its exact time.
    """

    TAKES: ClassVar[str] = INTENSITIES

    jitter: float = field(default=0.0, kw_only=True)
    grid: Optional[float] = field(default=None, kw_only=True)  # noqa: UP045

    def __post_init__(self) -> None:
        check_types(self, "encoder.")
        limits = [
            *self.limits(),
            Limit("jitter", 0 <= self.jitter < math.inf, "finite jitter >= 0 s"),
            Limit("grid", self.grid is None or 0 < self.grid < math.inf, "finite grid > 0 s or null"),
        ]
        conditions = ", ".join(limit.text for limit in limits)
        for name, is_met, _ in limits:
            if not is_met:
                raise ValueError(f"encoder.{name}={getattr(self, name)} is out of range ({conditions})")

    @abstractmethod
    def limits(self) -> Sequence[Limit]:
        """Return the conditions on the settings of this class; those on jitter and grid are added."""

    @abstractmethod
    def units(self, features: int) -> int:
        """Return the number of network inputs `N` for samples of `F` values, or of events of `F` units."""

    @abstractmethod
    def times(self, samples: Tensor) -> Tensor:
        """Return spike times (s) without jitter.

        Args:
            samples: intensities `[B, F]` in 0..1; or times `[E]` of events (s), if the encoder takes those.

        Returns:
            Times `[B, N]`, infinite for silence; or times `[E]`.
        """

    def without_jitter(self) -> Encoder:
        """Return this encoder without jitter."""
        return replace(self, jitter=0.0)

    def __call__(self, samples: Data | Spikes, generator: torch.Generator | None = None) -> Spikes:
        """Encode samples.

        Args:
            samples: intensities in 0..1, a tensor, numpy array or lists `[B, ...]`, flattened to `[B, F]`; or events,
                if the encoder takes those.
            generator: source of the jitter; required if `jitter` is not 0.

        Raises:
            TypeError: the intensities are not numbers, or the samples are of the other kind.
            ValueError: an intensity is outside 0..1, the intensities require a gradient, which spikes do not carry, or
                jitter has no generator.
        """
        if self.TAKES == EVENTS:
            events = checked_events(samples, self)
            time = self._times_sent(self.times(events.time), generator)
            return Spikes.trusted(events.sample, events.unit, time, events.samples, events.units)
        return Spikes.from_times(self._times_sent(self.times(checked_intensities(samples)), generator))

    def _times_sent(self, times: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return times with jitter, on the grid."""
        if self.jitter > 0:
            if generator is None:
                raise ValueError(f"encoder.jitter={self.jitter} s needs a generator; pass one to the call")
            require_kind(generator, torch.Generator, "generator", "write torch.Generator().manual_seed(0)")
            noise = torch.randn(times.shape, generator=generator, device=generator.device).to(times.device)
            times = (times + self.jitter * noise).clamp(min=0)
        if self.grid is not None:
            times = ((times.double() / self.grid + GRID_TOLERANCE).floor() * self.grid).float()
        return times


def checked_intensities(samples: Data) -> Tensor:
    """Return intensities `[B, F]` after a check."""
    if isinstance(samples, Spikes):
        raise TypeError("expected intensities [B, ...], got Spikes: they are encoded already; give them to the network")
    if hasattr(samples, "samples") or hasattr(samples, "train"):
        raise TypeError(
            f"expected intensities [B, ...], got {type(samples).__name__}; give samples of a split, such as "
            "data.train.images[:100] / 255"
        )
    x = as_tensor(samples, "intensities")
    if x.ndim < 2:
        raise ValueError(f"intensities have shape {list(x.shape)}, expected [B, ...]; of one sample: x[None]")
    x = x.flatten(1)
    low, high = torch.stack(torch.aminmax(x)).tolist() if x.numel() else (0.0, 0.0)
    if math.isnan(low):
        raise ValueError(f"intensities hold nan ({int(torch.isnan(x).sum())} of {x.numel()} values), expected 0..1")
    if not (low >= 0 and high <= 1):
        raise ValueError(f"intensities span {low:.4g}..{high:.4g}, expected 0..1; divide 8-bit images by 255")
    return x


def checked_events(samples: object, encoder: Encoder) -> Spikes:
    """Return events after a check of their type."""
    if not isinstance(samples, Spikes):
        raise TypeError(
            f"{type(encoder).__name__} takes Spikes, not {type(samples).__name__}; for intensities take "
            "LatencyEncoder, for event samples give split.events([0, 1])"
        )
    return samples


ENCODERS: Registry[type[Encoder]] = Registry("encoders", "encoder", Encoder)
"""Encoders by name."""
