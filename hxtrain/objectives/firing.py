"""Decisions by whether neurons fire: the loss of the tempotron (Gütig and Sompolinsky 2006)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.backends.spikes import Data

from .losses import Loss, _checked, class_labels


@dataclass
class Firing(Loss):
    """Share of the output neurons that fire although they should be silent, or are silent although they should fire.

    With two classes, all output neurons should fire for the second one, and be silent for the first. With more classes,
    each has neurons of its own, in order, which should fire for this class alone; the answer is the class of which most
    neurons fire (a vote of neurons, as in Zhao et al. 2015). The gradient is that of the squared error of
    `min(spikes, 1)`.

    Attributes:
        neurons: Number of output neurons of each class; with two classes, of the output.
    """

    reads: ClassVar[str] = "spikes"
    neurons: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neurons < 1:
            raise ValueError(f"loss.neurons={self.neurons} must be at least 1")

    def outputs(self, classes: int, targets: Spikes | None = None) -> int:
        """Return the number of output neurons."""
        return self.neurons * (1 if classes == 2 else classes)

    def classes(self, outputs: int) -> int:
        """Return the number of classes that `outputs` neurons tell apart.

        Raises:
            ValueError: The neurons do not divide into classes.
        """
        if outputs % self.neurons or outputs == 2 * self.neurons:
            raise ValueError(
                f"loss.neurons={self.neurons}: {outputs} output neurons are not {self.neurons} (two classes), nor so "
                "many for each of three or more classes; give the network's output as many"
            )
        return 2 if outputs == self.neurons else outputs // self.neurons

    def goals(self, labels: Data, outputs: int) -> Tensor:
        """Return which neurons should fire, bool `[B, N]`.

        Args:
            labels: True classes `[B]`.
            outputs: Number of output neurons `N`.

        Raises:
            ValueError: The labels are not numbers of the classes, or the neurons do not divide into classes.
        """
        classes = self.classes(outputs)
        numbers = torch.as_tensor(labels)
        numbers = class_labels(numbers, torch.empty(len(numbers), classes, device=numbers.device))
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < classes:
            raise ValueError(
                f"labels span {int(numbers.min())}..{int(numbers.max())}, but {outputs} neurons tell {classes} classes "
                "apart"
            )
        first = 1 if classes == 2 else 0
        groups = first + torch.arange(outputs, device=numbers.device) // self.neurons
        return numbers[:, None] == groups

    def scores(self, output: Tensor) -> Tensor:
        """Return the share of the neurons of each class that fire `[B, classes]` of spikes `[T, B, N]`.

        With two classes, the first has a score of one half: the second wins if more than half of the neurons fire.
        """
        fired = (_checked(output).sum(0) > 0).to(output.dtype)
        shares = fired.view(len(fired), -1, self.neurons).mean(2)
        if self.classes(fired.shape[1]) > 2:
            return shares
        return torch.cat([torch.full_like(shares, 0.5), shares], 1)

    def __call__(self, output: Tensor, labels: Data) -> Tensor:
        """Return the share of wrong neurons; arguments and errors as in `Loss` and `goals`."""
        counts = _checked(output).sum(0)
        goals = self.goals(labels, counts.shape[1]).to(counts)
        return (counts.clamp(max=1) - goals).square().mean()
