"""Base of optimisers of torch that are defined by one step of one weight matrix."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class WeightOptimizer(torch.optim.Optimizer):
    """Base of optimisers that treat each weight matrix on its own.

    Args:
        parameters: Weights to change.
        learning_rate: Initial learning rate.
        settings: Numbers that `change` needs, by name.
    """

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float, **settings: float) -> None:
        super().__init__(parameters, {"lr": learning_rate, **settings})

    @abstractmethod
    def change(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Change a weight in place by a step; called without gradients.

        Args:
            weight: Weight matrix; `self.state[weight]` is its state.
            gradient: Its gradient, of the same shape.
            group: Learning rate `lr` and the settings.
        """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Change all weights that have a gradient.

        Args:
            closure: Function that returns the loss; None if the caller needs none.
        """
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self.change(weight, weight.grad, group)
        return loss
