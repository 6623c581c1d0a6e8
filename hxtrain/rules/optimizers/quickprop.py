r"""QuickProp: a parabola through the last two gradients of each weight (Fahlman 1988).

With gradient \(g_t\) and last change \(\Delta_{t-1}\) of a weight, the minimum of the parabola is at

    \Delta_t = g_t / (g_{t-1} - g_t) \Delta_{t-1}.

A change is at most `growth` times the last one. Where the gradient still points along the last change, or where there
was none, the step of plain descent, \(-\eta g_t\), is added.
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
class QuickProp(Optimizer):
    """QuickProp (Fahlman 1988), for batches of all samples.

    The learning rate is that of the added step of plain descent.

    Attributes:
        growth: Largest ratio of a change to the last one.
    """

    is_adaptive: ClassVar[bool] = True
    growth: float = 1.75

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.growth < math.inf:
            raise ValueError(f"optimizer.growth={self.growth} must be positive and finite; Fahlman's value is 1.75")

    def build(self, parameters: Iterable[Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Return the optimiser; see `Optimizer.build` for the arguments."""
        return QuickPropSteps(parameters, learning_rate, growth=self.growth)


class QuickPropSteps(WeightOptimizer):
    """QuickProp as an optimiser of torch. The state of a weight is its last gradient and its last change."""

    def change(self, weight: Tensor, gradient: Tensor, group: dict[str, float]) -> None:
        """Change a weight by a step."""
        state = self.state[weight]
        if not state:
            state["gradient"] = torch.zeros_like(weight)
            state["change"] = torch.zeros_like(weight)
        change = _change(gradient, state["gradient"], state["change"], group["lr"], group["growth"])
        state["gradient"].copy_(gradient)
        state["change"].copy_(change)
        weight.add_(change)


def _change(gradient: Tensor, previous: Tensor, last: Tensor, rate: float, growth: float) -> Tensor:
    """Return the change of each weight.

    Args:
        gradient: Gradient of each weight.
        previous: Gradient in the last step.
        last: Change in the last step.
        rate: Learning rate of plain descent.
        growth: Largest ratio of a change to the last one.
    """
    descent = torch.where(gradient * last <= 0, -rate * gradient, 0.0)
    limit = growth / (1 + growth)
    along = -last.sign()  # slopes along the last change: the minimum is too far away, or the parabola bends downwards
    is_steep = along * gradient >= limit * along * previous
    parabola = last * gradient / torch.where(is_steep, 1.0, previous - gradient)
    return descent + torch.where(is_steep, growth * last, parabola)
