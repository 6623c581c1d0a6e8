r"""RMaxProp: a learning rate per weight from the largest recent gradient (Zenke and Ganguli 2018).

For a gradient \(g\) of a weight \(w\),

    v <- max(\gamma v, g^2),    w <- w - \eta g / (\sqrt{v} + \epsilon).

A step is at most \(\eta\). In the paper an update follows each 0.5 s of activity and v decays with 30 s, so that
\(\gamma = \exp(-0.5 / 30) = 0.983\).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .optimizer import Optimizer
from .weights import WeightOptimizer


@dataclass
class RMaxProp(Optimizer):
    """RMaxProp, the optimiser of SuperSpike (Zenke and Ganguli 2018).

    Attributes:
        decay: Factor of the largest square of a gradient per step.
        eps: Addition to its root, which bounds a step of a weight with tiny gradients.
    """

    is_adaptive: ClassVar[bool] = True
    decay: float = math.exp(-0.5 / 30)
    eps: float = 1e-12

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.decay <= 1:
            raise ValueError(f"optimizer.decay={self.decay} must be in 0..1")
        if not 0 < self.eps < math.inf:
            raise ValueError(f"optimizer.eps={self.eps} must be positive and finite")

    def build(self, parameters: Iterable[Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Return the optimiser; see `Optimizer.build` for the arguments."""
        return RMaxPropSteps(parameters, learning_rate, decay=self.decay, eps=self.eps)


class RMaxPropSteps(WeightOptimizer):
    """RMaxProp as an optimiser of torch. The state of a weight is its largest recent square of a gradient."""

    def change(self, weight: Tensor, gradient: Tensor, group: dict[str, float]) -> None:
        """Change a weight by a step."""
        state = self.state[weight]
        if not state:
            state["largest"] = torch.zeros_like(weight)
        largest = state["largest"].mul_(group["decay"])
        torch.maximum(largest, gradient.square(), out=largest)
        weight.addcdiv_(gradient, largest.sqrt().add_(group["eps"]), value=-group["lr"])
