r"""SpikePropAd and SpikePropR: a learning rate from the size of the error (Shrestha and Song 2015, 2017).

For a loss \(E = \|e\|^2 / 2\) whose errors are \(e\), with gradient \(g\), a step with the rate

    \eta = \kappa \|e\|^2 / \|g\|^2 = 2 \kappa E / \|g\|^2,    0 < \kappa < 2,

brings the weights nearer to a solution, as long as the errors are linear in them: with \(e = J (w - w^*)\) and
\(g = J^T e\) the squared distance changes by \(\|e\|^4 (\kappa^2 - 2 \kappa) / \|g\|^2\). \(\kappa\) is the learning
rate of the run. SpikePropR makes no step while the error is within a bound, the size of the errors that disturbances
such as noise make; beyond it, the step is towards the bound:

    \eta = \kappa (\|e\|^2 - b \|e\|) / \|g\|^2.

The form follows from the convergence condition that the papers name; their own constants are not used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .optimizer import Optimizer

LARGEST_SHARE = 2.0
"""Learning rate from which on convergence is not assured."""


@dataclass
class SpikePropAd(Optimizer):
    """Step from the size of the error (Shrestha and Song 2015), for a loss that is at least 0, without penalties.

    The learning rate is the share of the error that a step takes away where the error is linear, below 2.
    """

    is_adaptive: ClassVar[bool] = True

    def build(self, parameters: Iterable[Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Return the optimiser; see `Optimizer.build` for the arguments.

        Raises:
            ValueError: The learning rate is 2 or more.
        """
        return ErrorSteps(parameters, learning_rate)


@dataclass
class SpikePropR(Optimizer):
    """Step from the size of the error, none while it is small (Shrestha and Song 2017).

    The loss is at least 0, without penalties; the learning rate is that of `SpikePropAd`.

    Attributes:
        bound: Size of the error, the root of twice the loss, up to which there is no step.
    """

    is_adaptive: ClassVar[bool] = True
    bound: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.bound < math.inf:
            raise ValueError(f"optimizer.bound={self.bound} must be finite and not negative")

    def build(self, parameters: Iterable[Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Return the optimiser; see `Optimizer.build` for the arguments and `SpikePropAd.build` for errors."""
        return ErrorSteps(parameters, learning_rate, self.bound)


class ErrorSteps(torch.optim.Optimizer):
    """Descent whose rate follows from the loss; it has no state.

    Args:
        parameters: Weights to change.
        learning_rate: Share of the error that a step takes away, below 2.
        bound: Size of the error up to which there is no step.
    """

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float, bound: float = 0.0) -> None:
        if not 0 < learning_rate < LARGEST_SHARE:
            raise ValueError(
                f"learning_rate={learning_rate} must be in 0 < x < 2: it is the share of the error that a step takes "
                "away; begin with 0.2"
            )
        super().__init__(parameters, {"lr": learning_rate, "bound": bound})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float:  # type: ignore[override]
        """Change all weights that have a gradient.

        Args:
            closure: Function that returns the loss of the gradients.

        Raises:
            TypeError: There is no function.
            ValueError: The loss is negative.
        """
        if closure is None:
            raise TypeError("this optimiser needs the loss: give optimizer.step(lambda: loss)")
        loss = float(closure())
        if loss < 0:
            raise ValueError(
                f"the loss is {loss}, but the step is computed from the size of an error; choose a loss that is at "
                "least 0, or optimizer=adam"
            )
        weights = [(group, weight) for group in self.param_groups for weight in group["params"]]
        square = sum(float(weight.grad.square().sum()) for _, weight in weights if weight.grad is not None)
        if square == 0:
            return loss
        error = math.sqrt(2 * loss)
        for group, weight in weights:
            if weight.grad is not None:
                rate = group["lr"] * error * max(error - group["bound"], 0.0) / square
                weight.add_(weight.grad, alpha=-rate)
        return loss
