"""Adam and stochastic gradient descent: settings that build those of torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, List  # noqa: UP035 - OmegaConf resolves these on every Python

import torch
from torch import Tensor

from .optimizer import Optimizer


@dataclass
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015).

    Attributes:
        betas: Decay per step of the mean of gradients, and of the mean of their squares.
        eps: Addition to the root of the mean square, which bounds a step of a weight with tiny gradients.
    """

    is_adaptive: ClassVar[bool] = True
    betas: List[float] = field(default_factory=lambda: [0.9, 0.999])  # noqa: UP006
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimizer.betas={list(self.betas)} must be two numbers in 0 <= x < 1")
        if not 0 <= self.eps < math.inf:
            raise ValueError(f"optimizer.eps={self.eps} must be finite and not negative")

    def build(self, parameters: Iterable[Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Return the optimiser; see `Optimizer.build` for the arguments."""
        first, second = self.betas
        return torch.optim.Adam(parameters, lr=learning_rate, betas=(first, second), eps=self.eps, fused=True)


@dataclass
class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Sutskever et al. 2013).

    Attributes:
        momentum: Decay per step of the sum of gradients; 0 follows the last gradient alone.
        nesterov: Whether the step looks ahead along the momentum.
    """

    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ValueError(f"optimizer.momentum={self.momentum} must be in 0 <= x < 1")
        if self.nesterov and self.momentum == 0:
            raise ValueError("optimizer.nesterov=true needs a momentum; set optimizer.momentum=0.9, or leave it out")

    def build(self, parameters: Iterable[Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Return the optimiser; see `Optimizer.build` for the arguments."""
        return torch.optim.SGD(parameters, lr=learning_rate, momentum=self.momentum, nesterov=self.nesterov, fused=True)
