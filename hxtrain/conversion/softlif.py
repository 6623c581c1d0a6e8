"""SoftLIF: the smoothed rate of a leaky integrate-and-fire neuron as activation of an artificial neural network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from hxtrain.checks import not_negative, positive

SMALLEST = 1e-18
"""Floor of the current over threshold in divisions, whose squares stay normal numbers of single precision."""
FAR_BELOW = -15.0
"""Argument below which `ln(1 + exp(x))` is `exp(x)` to single precision."""


@dataclass(frozen=True)
class LIFCurve:
    """Rate of a LIF neuron with a constant input current, as share of its largest rate `1 / tau_ref`.

    `rate(j) = tau_ref / (tau_ref + tau_mem ln(1 + threshold / rho(j - threshold)))` with
    `rho(x) = gamma ln(1 + exp(x / gamma))` (Hunsberger and Eliasmith 2015, arXiv:1510.08829).
    `gamma = 0` is the curve of the neuron itself, whose slope at the threshold is infinite.

    Attributes:
        tau_mem: Time constant of the membrane, in the unit of `tau_ref`.
        tau_ref: Refractory period.
        threshold: Current at which the neuron starts to fire.
        gamma: Width of the smoothed region around the threshold, in the unit of the current.
    """

    tau_mem: float = 20e-3
    tau_ref: float = 2e-3
    threshold: float = 1.0
    gamma: float = 0.03

    def __post_init__(self) -> None:
        for name in ("tau_mem", "tau_ref", "threshold"):
            positive(f"softlif.{name}", getattr(self, name))
        not_negative("softlif.gamma", self.gamma)

    def __call__(self, current: Tensor) -> Tensor:
        """Return rates in 0..1 of currents of any shape."""
        distance = current - self.threshold
        if self.gamma == 0:
            rho = distance.clamp(min=SMALLEST)
            rate = self.tau_ref / (self.tau_ref + self.tau_mem * torch.log1p(self.threshold / rho))
            return torch.where(distance > 0, rate, torch.zeros_like(rate))
        rho = self.gamma * softplus(distance / self.gamma)
        silence = (rho + self.threshold).log() - math.log(self.gamma) - _log_softplus(distance / self.gamma)
        return self.tau_ref / (self.tau_ref + self.tau_mem * silence)


def _log_softplus(x: Tensor) -> Tensor:
    """Return `ln ln(1 + exp(x))`, which is x far below 0, where `exp(x)` has no digits left."""
    return torch.where(x < FAR_BELOW, x, softplus(x.clamp(min=FAR_BELOW)).log())


class SoftLIF(nn.Module):
    """Activation `LIFCurve`, with Gaussian noise on the rates in training.

    Args:
        curve: Rate of the neuron.
        noise: Standard deviation of the noise, as share of the largest rate; the noise makes the network robust
            against the variability of filtered spike trains (ibid.).
    """

    def __init__(self, curve: LIFCurve | None = None, noise: float = 0.0) -> None:
        super().__init__()
        self.curve = LIFCurve() if curve is None else curve
        self.noise = not_negative("softlif.noise", noise)

    def forward(self, current: Tensor) -> Tensor:
        """Return the rates of currents, in 0..1 without noise."""
        rate: Tensor = self.curve(current)
        if self.training and self.noise > 0:
            rate = rate + self.noise * torch.randn_like(rate)
        return rate

    def extra_repr(self) -> str:
        """Return the settings for `repr`."""
        return f"{self.curve}, noise={self.noise}"
