"""Codes of one spike per input: the time says the intensity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Encoder, Limit
from .regular import RegularEncoder, with_regular


@dataclass
class LatencyEncoder(Encoder):
    """Time-to-first-spike code: the stronger an input, the earlier its only spike.

    `t = tau ln(x / (x - threshold))` for x > threshold; weaker inputs stay silent. A leaky integrator with constant
    input x reaches its threshold at this time. The first spike of every sample is shifted to t = 0 (Cramer et al.
    2022).

    Attributes:
        tau: time constant of the code (s).
        threshold: intensity (0..1) up to which an input is silent.
        shift_first: whether the first spike of each sample is moved to t = 0.
        jitter: standard deviation of noise on the times (s), see `Encoder`.
        grid: width of bins (s), see `Encoder`.
    """

    tau: float = 8e-6
    threshold: float = 0.2
    shift_first: bool = True

    def limits(self) -> Sequence[Limit]:
        """Return the conditions on the settings."""
        return (
            Limit("tau", 0 < self.tau < math.inf, "finite tau > 0 s"),
            Limit("threshold", 0 <= self.threshold < 1, "0 <= threshold < 1"),
        )

    def units(self, features: int) -> int:
        """Return the number of network inputs: one for each value of a sample."""
        return features

    def times(self, samples: Tensor) -> Tensor:
        """Return spike times (s) of intensities `[B, F]`, in the same shape; silent inputs get infinity."""
        x = samples.float()
        times = torch.where(
            x > self.threshold, self.tau * torch.log(x / (x - self.threshold).clamp(min=1e-30)), torch.inf
        )
        if not self.shift_first:
            return times
        first = times.amin(dim=1, keepdim=True)
        return times - torch.where(torch.isfinite(first), first, 0.0)


@dataclass
class LinearLatencyEncoder(Encoder):
    """Linear code: every value becomes one spike, smaller values earlier, and a spike at a fixed time is added.

    `t = early + x (late - early)`. The default times are 0.15, 2 and 0.9 times 6 us (Göltz et al. 2021, Yin-Yang).

    Attributes:
        early: time of the spike for x = 0 (s).
        late: time of the spike for x = 1 (s).
        bias: time of the additional spike, which acts as a bias (s).
        repeats: number of network inputs that get the same spike, with separate weights: one 6-bit synapse is too weak
            for samples of few values (Göltz et al. 2021 use 5 on BrainScaleS-2). The F values and the bias use the
            inputs 0 to F, their first repetition F + 1 to 2 F + 1, and so on.
        jitter: standard deviation of noise on the times (s), drawn for each repetition, see `Encoder`.
        grid: width of bins (s), see `Encoder`.
    """

    early: float = 0.9e-6
    late: float = 12e-6
    bias: float = 5.4e-6
    repeats: int = 1

    def limits(self) -> Sequence[Limit]:
        """Return the conditions on the settings."""
        return (
            Limit("early", self.early >= 0, "early >= 0 s"),
            Limit("late", self.early < self.late < math.inf, "early < late"),
            Limit("bias", 0 <= self.bias < math.inf, "bias >= 0 s"),
            Limit("repeats", self.repeats >= 1, "repeats >= 1"),
        )

    def units(self, features: int) -> int:
        """Return the number of network inputs: every value and the bias, repeated."""
        return self.repeats * (features + 1)

    def times(self, samples: Tensor) -> Tensor:
        """Return spike times `[B, repeats (F + 1)]` (s) of intensities `[B, F]`."""
        values = self.early + samples.float() * (self.late - self.early)
        bias = values.new_full((len(values), 1), self.bias)
        return torch.cat([values, bias], 1).repeat(1, self.repeats)


@dataclass
class FirstSpikeEncoder(RegularEncoder):
    """Time-to-first-spike code, linear: the stronger an input, the earlier its only spike.

    `t = duration (1 - x)` for x > threshold; weaker inputs stay silent.

    Attributes:
        duration: time of the spike for x = 0 (s).
        threshold: intensity (0..1) up to which an input is silent.
        regular: indices of inputs that fire at t = 0 in every sample, and so act as biases; from the number of values
            on they are additional inputs.
        jitter: standard deviation of noise on the times (s), see `Encoder`.
        grid: width of bins (s), see `Encoder`.
    """

    duration: float = 8e-6
    threshold: float = 0.05

    def limits(self) -> Sequence[Limit]:
        """Return the conditions on the settings."""
        return (
            Limit("duration", 0 < self.duration < math.inf, "finite duration > 0 s"),
            Limit("threshold", 0 <= self.threshold < 1, "0 <= threshold < 1"),
            *super().limits(),
        )

    def times(self, samples: Tensor) -> Tensor:
        """Return spike times `[B, N]` (s) of intensities `[B, F]`; silent inputs get infinity."""
        x = with_regular(samples.float(), self.regular)
        return torch.where(x > self.threshold, self.duration * (1 - x), torch.inf)
