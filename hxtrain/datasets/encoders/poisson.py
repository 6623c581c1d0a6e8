"""Poisson code: an input fires at random, the more often the stronger it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.backends.spikes import Data

from .base import Limit, checked_intensities
from .regular import RegularEncoder, of_trains, with_regular


@dataclass
class PoissonEncoder(RegularEncoder):
    """Random spikes: a Poisson process in `duration` with `spikes x` spikes in the mean for an intensity x.

    Candidates come with the rate of x = 1, and pass with the probability x. With a generator, as in training, each
    sample has candidates of its own. Without one, as in evaluation, the candidates are those of `seed`, the same for
    all samples, so that no result depends on the size of a batch.

    Attributes:
        spikes: Mean number of spikes for x = 1.
        duration: Time in which inputs fire (s).
        seed: Seed of the candidates of calls without a generator.
        regular: Indices of inputs that fire as for x = 1 in every sample, and so act as biases; from the number of
            values on they are additional inputs.
        jitter: Standard deviation of noise on the times (s), see `Encoder`.
        grid: Width of bins (s), see `Encoder`.
    """

    spikes: float = 4.0
    duration: float = 40e-6
    seed: int = 0

    def limits(self) -> Sequence[Limit]:
        """Return the conditions on the settings."""
        return (
            Limit("spikes", 0 < self.spikes < math.inf, "finite spikes > 0"),
            Limit("duration", 0 < self.duration < math.inf, "finite duration > 0 s"),
            Limit("seed", self.seed >= 0, "seed >= 0"),
            *super().limits(),
        )

    def times(self, samples: Tensor) -> Tensor:
        """Return spike times `[B, N, candidates]` (s) of intensities `[B, F]` for the candidates of `seed`."""
        return self._times(samples, None)

    def _times(self, samples: Tensor, generator: torch.Generator | None) -> Tensor:
        samples = with_regular(samples, self.regular)
        source = torch.Generator().manual_seed(self.seed) if generator is None else generator
        trials = 1 if generator is None else len(samples)
        means = torch.full((trials, samples.shape[1]), float(self.spikes), device=source.device)
        counts = torch.poisson(means, generator=source)
        size = (*counts.shape, max(1, int(counts.max()) if counts.numel() else 1))
        times = torch.rand(size, generator=source, device=source.device)
        marks = torch.rand(size, generator=source, device=source.device)
        is_candidate = torch.arange(size[2], device=source.device) < counts[:, :, None]
        passes = (marks.to(samples.device) < samples[:, :, None]) & is_candidate.to(samples.device)
        return torch.where(passes, self.duration * times.to(samples.device), torch.inf)

    def __call__(self, samples: Data | Spikes, generator: torch.Generator | None = None) -> Spikes:
        """Encode samples, see `Encoder`."""
        times = self._times(checked_intensities(samples).float(), generator)
        events = Spikes.from_times(self._times_sent(times.flatten(1), generator))
        return of_trains(events, times.shape[2])
