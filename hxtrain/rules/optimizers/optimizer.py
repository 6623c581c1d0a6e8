"""Base of the settings of an optimiser, and the optimisers by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hxtrain.backends import Registry
from hxtrain.checks import check_types


@dataclass
class Optimizer(ABC):
    """Base of the settings of an optimiser. A field is a setting, `optimizer.<field>`.

    Attributes:
        is_adaptive: Whether the size of a step follows from gradients of the past, or from the loss, so that the change
            that a local rule leaves is not the one that is made.
    """

    is_adaptive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_types(self, "optimizer.")

    @abstractmethod
    def build(self, parameters: Iterable[Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Return the optimiser.

        Args:
            parameters: Weights to change.
            learning_rate: Initial learning rate; a schedule changes the `lr` of the parameter groups.
        """


OPTIMIZERS: Registry[type[Optimizer]] = Registry("optimizers", "optimizer", Optimizer)
"""Optimisers by name."""
