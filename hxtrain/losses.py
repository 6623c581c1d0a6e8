"""Losses: how a readout's membranes answer a question."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


@dataclass
class MaxOverTime:
    """Cross-entropy of the readout's maximum over time (Cramer et al. 2022).

    Attributes:
        readout_scale: factor on the membranes before the softmax.
        label_smoothing: share of probability spread over all classes.
    """

    readout_scale: float = 10.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not self.readout_scale > 0:
            raise ValueError(f"loss.readout_scale={self.readout_scale} must be positive")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"loss.label_smoothing={self.label_smoothing} must be in 0 <= x < 1")

    def scores(self, readout: Tensor) -> Tensor:
        """Return scores `[B, classes]` of membranes `[T, B, classes]`; equal maxima share the gradient."""
        return readout.amax(dim=0)

    def logits(self, readout: Tensor) -> Tensor:
        """Return what the softmax sees `[B, classes]`, of membranes `[T, B, classes]`."""
        return self.readout_scale * self.scores(readout)

    def __call__(self, readout: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of membranes `[T, B, classes]` and labels `[B]`."""
        return cross_entropy(self.logits(readout), labels, label_smoothing=self.label_smoothing)


@dataclass
class MeanOverTime(MaxOverTime):
    """Cross-entropy of the readout's mean over time (for inputs that carry information throughout)."""

    def scores(self, readout: Tensor) -> Tensor:
        """Return scores `[B, classes]` of membranes `[T, B, classes]`."""
        return readout.mean(dim=0)


def predictions(scores: Tensor) -> Tensor:
    """Return the most likely class of each sample `[B]`."""
    return torch.argmax(scores, dim=1)


LOSSES: dict[str, type[MaxOverTime]] = {"MaxOverTime": MaxOverTime, "MeanOverTime": MeanOverTime}
"""Losses by class name, as checkpoints name them."""
