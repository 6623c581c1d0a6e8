"""Rate code: an input fires regularly, the more often the stronger it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.backends.spikes import Data

from .base import Limit
from .regular import RegularEncoder, of_trains, with_regular

GOLDEN = (math.sqrt(5) - 1) / 2
"""Phases that are multiples of the golden ratio are spread evenly over any number of inputs."""


@dataclass
class RateEncoder(RegularEncoder):
    """Regular spikes, `spikes x` of them in `duration` for an intensity x.

    The spike k of input n comes at `duration (k + phase) / (spikes x)` with `phase = frac(0.618 n)`: inputs of the same
    intensity do not fire together. The code is random with `jitter` alone.

    Attributes:
        spikes: Number of spikes for x = 1.
        duration: Time in which inputs fire (s).
        threshold: Intensity (0..1) up to which an input is silent.
        regular: Indices of inputs that fire as for x = 1 in every sample, and so act as biases; from the number of
            values on they are additional inputs.
        jitter: Standard deviation of noise on the times (s), see `Encoder`.
        grid: Width of bins (s), see `Encoder`.
    """

    spikes: int = 4
    duration: float = 40e-6
    threshold: float = 0.1

    def limits(self) -> Sequence[Limit]:
        """Return the conditions on the settings."""
        return (
            Limit("spikes", self.spikes >= 1, "spikes >= 1"),
            Limit("duration", 0 < self.duration < math.inf, "finite duration > 0 s"),
            Limit("threshold", 0 <= self.threshold < 1, "0 <= threshold < 1"),
            *super().limits(),
        )

    def times(self, samples: Tensor) -> Tensor:
        """Return spike times `[B, N spikes]` (s) of intensities `[B, F]`: all of input 0, then of input 1, ..."""
        x = with_regular(samples.float(), self.regular)
        inputs = torch.arange(x.shape[1], device=x.device, dtype=torch.float64)
        phases = (GOLDEN * inputs).frac()[:, None]
        numbers = torch.arange(self.spikes, device=x.device, dtype=torch.float64)
        shares = ((numbers + phases) / self.spikes).float()  # of the duration, for x = 1
        late = shares / x.clamp(min=1e-30)[:, :, None]
        is_silent = (late >= 1) | (x <= self.threshold)[:, :, None]
        return torch.where(is_silent, torch.inf, self.duration * late).flatten(1)

    def __call__(self, samples: Data | Spikes, generator: torch.Generator | None = None) -> Spikes:
        """Encode samples, see `Encoder`."""
        return of_trains(super().__call__(samples, generator), self.spikes)
