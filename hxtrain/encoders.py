"""Encoders: images to spikes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hxtrain.backends import Spikes


@dataclass
class LatencyEncoder:
    """Time-to-first-spike code: the stronger an input, the earlier its only spike.

    `t = tau ln(x / (x - threshold))` for x > threshold; weaker inputs stay silent. This is the time
    at which a leaky integrator with constant input x reaches its threshold. The first spike of
    every sample is shifted to t = 0 (Cramer et al. 2022).

    Attributes:
        tau: time constant of the code (s).
        threshold: intensity (0..1) below which an input is silent.
        shift_first: whether the first spike of each sample is moved to t = 0.
        jitter: standard deviation of Gaussian noise on the times (s), drawn from the generator
            given to the call; times are kept >= 0.
    """

    tau: float = 8e-6
    threshold: float = 0.2
    shift_first: bool = True
    jitter: float = 0.0

    def __post_init__(self) -> None:
        for name, value, good in (
            ("tau", self.tau, self.tau > 0),
            ("threshold", self.threshold, 0 <= self.threshold < 1),
            ("jitter", self.jitter, self.jitter >= 0),
        ):
            if not good:
                raise ValueError(
                    f"encoder.{name}={value} is out of range (tau > 0 s, 0 <= threshold < 1, jitter >= 0 s)"
                )

    def times(self, intensity: Tensor) -> Tensor:
        """Return spike times in seconds, same shape as `intensity`; infinite where silent."""
        x = intensity.float()
        return torch.where(
            x > self.threshold, self.tau * torch.log(x / (x - self.threshold).clamp(min=1e-30)), torch.inf
        )

    def __call__(self, intensity: Tensor, generator: torch.Generator | None = None) -> Spikes:
        """Encode intensities in 0..1.

        Args:
            intensity: `[B, ...]`, flattened to `[B, N]` inputs.
            generator: source of the jitter; needed where `jitter` is not 0.

        Raises:
            ValueError: an intensity is outside 0..1, or jitter is asked for without a generator.
        """
        x = intensity.flatten(1)
        if x.numel() and not (float(x.min()) >= 0 and float(x.max()) <= 1):
            raise ValueError(
                f"intensities span {float(x.min()):.4g}..{float(x.max()):.4g}, expected 0..1; "
                "divide 8-bit images by 255"
            )
        times = self.times(x)
        if self.shift_first:
            first = times.amin(dim=1, keepdim=True)
            times = times - torch.where(torch.isfinite(first), first, 0.0)
        if self.jitter > 0:
            if generator is None:
                raise ValueError(f"encoder.jitter={self.jitter} s needs a generator; pass one to the call")
            noise = torch.randn(times.shape, generator=generator, device=times.device)
            times = (times + self.jitter * noise).clamp(min=0)
        return Spikes.from_times(times)
