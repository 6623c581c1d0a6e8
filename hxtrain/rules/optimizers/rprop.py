"""Resilient backpropagation (RProp): steps by the signs of gradients alone (Riedmiller and Braun 1993).

A weight moves by its own step width against the sign of its gradient. The width grows by a factor while the sign stays,
and shrinks where it changes; there the weight waits for a step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, List  # noqa: UP035 - OmegaConf resolves these on every Python

import torch
from torch import Tensor

from .optimizer import Optimizer


@dataclass
class RProp(Optimizer):
    """Resilient backpropagation (Riedmiller and Braun 1993), for batches of all samples.

    The learning rate is the first step width of every weight; its schedule has no effect after the first step.

    Attributes:
        etas: Factors of a step width where the sign of the gradient changes, and where it stays.
        step_sizes: Smallest and largest step width.
    """

    is_adaptive: ClassVar[bool] = True
    etas: List[float] = field(default_factory=lambda: [0.5, 1.2])  # noqa: UP006
    step_sizes: List[float] = field(default_factory=lambda: [1e-6, 50.0])  # noqa: UP006

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.etas) != 2 or not 0 < self.etas[0] < 1 < self.etas[1] < math.inf:
            raise ValueError(f"optimizer.etas={list(self.etas)} must be two numbers, 0 < x < 1 and x > 1")
        if len(self.step_sizes) != 2 or not 0 < self.step_sizes[0] <= self.step_sizes[1] < math.inf:
            raise ValueError(
                f"optimizer.step_sizes={list(self.step_sizes)} must be two positive numbers, the smaller one first"
            )

    def build(self, parameters: Iterable[Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Return the optimiser; see `Optimizer.build` for the arguments."""
        shrinkage, growth = self.etas
        smallest, largest = self.step_sizes
        return torch.optim.Rprop(parameters, learning_rate, (shrinkage, growth), (smallest, largest), foreach=True)
