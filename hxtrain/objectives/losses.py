"""Losses of the readout's membranes, and the scores of classes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hxtrain.backends import Registry
from hxtrain.backends.intake import as_tensor
from hxtrain.backends.spikes import Data
from hxtrain.checks import check_types


@dataclass
class Loss(ABC):
    """Base of losses: a number to minimise, and the answers of the network. A field is a setting, `loss.<field>`."""

    def __post_init__(self) -> None:
        check_types(self, "loss.")

    @abstractmethod
    def scores(self, readout: Tensor) -> Tensor:
        """Return scores `[B, classes]` of membranes `[T, B, classes]`; the largest score is the answer."""

    @abstractmethod
    def logits(self, readout: Tensor) -> Tensor:
        """Return the logarithms of the classes' probabilities, up to a constant of each sample, `[B, classes]`.

        Args:
            readout: Membranes `[T, B, classes]`.
        """

    @abstractmethod
    def __call__(self, readout: Tensor, labels: Data) -> Tensor:
        """Return the mean loss of membranes `[T, B, classes]` and labels `[B]`."""


@dataclass
class CrossEntropy(Loss):
    """Base of losses that are the cross-entropy of scores; a subclass defines `scores`.

    Attributes:
        readout_scale: factor on the membranes before the softmax.
        label_smoothing: share of probability spread over all classes.
    """

    readout_scale: float = 10.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.readout_scale < math.inf:
            raise ValueError(f"loss.readout_scale={self.readout_scale} must be positive and finite")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"loss.label_smoothing={self.label_smoothing} must be in 0 <= x < 1")

    def logits(self, readout: Tensor) -> Tensor:
        """Return the inputs of the softmax `[B, classes]` for membranes `[T, B, classes]`."""
        return self.readout_scale * self.scores(readout)

    def __call__(self, readout: Tensor, labels: Data) -> Tensor:
        """Return the mean loss of membranes `[T, B, classes]` and labels `[B]`, or probabilities `[B, classes]`.

        Raises:
            TypeError: the readout is not a tensor, but an activity or a layer.
            ValueError: the labels are not numbers of these classes, or not one per sample.
        """
        logits = self.logits(readout)
        targets = class_labels(labels, logits)
        try:
            return cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        except IndexError:  # torch checks the values anyway; on a GPU it raises another error
            raise ValueError(
                f"labels span {int(targets.min())}..{int(targets.max())}, but the readout has {logits.shape[1]} "
                f"classes, 0..{logits.shape[1] - 1}; give it as many neurons as there are classes"
            ) from None


@dataclass
class MaxOverTime(CrossEntropy):
    """Cross-entropy of the readout's maximum over time (Cramer et al. 2022)."""

    def scores(self, readout: Tensor) -> Tensor:
        """Return scores `[B, classes]` of membranes `[T, B, classes]`; equal maxima share the gradient."""
        return _membranes(readout).amax(dim=0)


@dataclass
class MeanOverTime(CrossEntropy):
    """Cross-entropy of the readout's mean over time (for inputs that carry information throughout)."""

    def scores(self, readout: Tensor) -> Tensor:
        """Return scores `[B, classes]` of membranes `[T, B, classes]`."""
        return _membranes(readout).mean(dim=0)


def class_labels(labels: Data, logits: Tensor) -> Tensor:
    """Return labels as int64 `[B]` on the accelerator of the logits; probabilities `[B, classes]` get their type.

    Raises:
        ValueError: the labels are not whole numbers, or their number differs from that of the logits.
    """
    targets = as_tensor(labels, "labels").to(logits.device)
    if targets.is_floating_point() and targets.shape == logits.shape:
        return targets.to(logits.dtype)
    if targets.shape != logits.shape[:1] or targets.is_floating_point() or targets.dtype == torch.bool:
        raise ValueError(
            f"labels are {targets.dtype} {list(targets.shape)}, expected class numbers, int64 [{len(logits)}], one for "
            "each sample of the readout [T, B, classes]"
        )
    return targets.long()


def _membranes(readout: Tensor) -> Tensor:
    """Return a readout after a check of its type and shape.

    Raises:
        TypeError: the readout is not a tensor, but an activity or a layer.
        ValueError: the readout does not have three dimensions.
    """
    if not isinstance(readout, Tensor):
        raise TypeError(f"expected a readout [T, B, classes], got {type(readout).__name__}; give activity.readout")
    if readout.ndim != 3:
        raise ValueError(f"readout has shape {list(readout.shape)}, expected [T, B, classes]; give activity.readout")
    return readout


def predictions(scores: Tensor) -> Tensor:
    """Return the most likely class of each sample `[B]`."""
    return torch.argmax(scores, dim=1)


LOSSES: Registry[type[Loss]] = Registry("losses", "loss", Loss)
"""Losses by name."""
