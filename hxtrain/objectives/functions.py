"""Losses and penalties that are functions of the user, in the form that a trainer takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hxtrain.backends.spikes import Data
from hxtrain.checks import mapping, require_kind
from hxtrain.network import Activity

from .losses import Loss
from .regularizers import Regularizer


@dataclass
class FunctionLoss(Loss):
    """A loss that is a function of the user; the answer is the neuron with the highest membrane or the most spikes.

    Attributes:
        function: function of the output `[T, B, classes]` and the labels `[B]`; returns one number.
        reads: output that the function reads, `membranes` or `spikes`.
    """

    function: Callable[[Tensor, Data], Tensor] = field(kw_only=True)
    reads: str = "membranes"  # type: ignore[misc]

    def scores(self, output: Tensor) -> Tensor:
        """Return the maxima of membranes, or the numbers of spikes, `[B, classes]`."""
        return output.amax(0) if self.reads == "membranes" else output.sum(0)

    def __call__(self, output: Tensor, labels: Data) -> Tensor:
        """Return what the function gives."""
        return self.function(output, labels)


@dataclass
class FunctionPenalty(Regularizer):
    """A penalty that is a function of the user.

    Attributes:
        function: function of the activity of a pass and the weights of each projection; returns one number.
    """

    strength: float = 1.0
    function: Callable[[Activity, list[Tensor]], Tensor] = field(kw_only=True)

    def penalty(self, activity: Activity, weights: list[Tensor]) -> Tensor:
        """Return what the function gives."""
        return self.function(activity, weights)


def as_loss(loss: Any, reads: str) -> Loss:
    """Return a loss; a function becomes one.

    Args:
        loss: loss, or function of output and labels.
        reads: output that a function reads, `membranes` or `spikes`.

    Raises:
        TypeError: the argument is neither.
    """
    if not isinstance(loss, Loss | type) and callable(loss):
        return FunctionLoss(function=loss, reads=reads)
    require_kind(loss, Loss, "loss", "give an instance, such as MaxOverTime(), or a function of output and labels")
    result: Loss = loss
    return result


def named_penalties(penalties: Iterable[Any] | Mapping[str, Any]) -> dict[str, Regularizer]:
    """Return penalties by name; functions become penalties of strength 1.

    Args:
        penalties: regularisers and functions of activity and weights: a list, or a mapping by name.

    Raises:
        TypeError: a value is neither.
    """
    if isinstance(penalties, Mapping):
        named = dict(mapping("penalties", penalties))
    elif isinstance(penalties, Iterable):
        named = {f"{number}_{_name(penalty)}": penalty for number, penalty in enumerate(penalties)}
    else:
        raise TypeError(f"penalties: expected several, got {penalties!r:.60}; give a list, such as [Burst()], or []")
    return {name: _penalty(penalty) for name, penalty in named.items()}


def _name(penalty: Any) -> str:
    return str(getattr(penalty, "__name__", type(penalty).__name__)).lower()


def _penalty(penalty: Any) -> Regularizer:
    if not isinstance(penalty, Regularizer | type) and callable(penalty):
        return FunctionPenalty(function=penalty)
    require_kind(penalty, Regularizer, "penalties", "give instances, such as [Burst()], or functions")
    result: Regularizer = penalty
    return result
