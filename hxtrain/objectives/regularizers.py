"""Regularisers: additions to the loss that shape activity or weights.

A regulariser is called with the activity of a pass and the weights of each projection. `S_i` is the number of spikes
of hidden neuron i in a trial.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hxtrain.backends import Registry
from hxtrain.checks import check_types, require_kind
from hxtrain.network import Activity, Network, Write


@dataclass
class Regularizer(ABC):
    """Base: a strength, checked. A field is a setting, `regularizer.<name>.<field>`.

    A regulariser may have a state outside its fields, made by `prepare`; it goes into the checkpoint. It is prepared
    for one network at a time.

    Attributes:
        is_prepared: whether a rule has called `prepare`; `train_step` keeps the state then.
        reads: output that the penalty reads, a kind of `Network.output_kind`; None if it reads none.
        strength: factor of the penalty; 0 switches the regulariser off.
        watches_writes: whether `after_write` is called; without a watcher no copy of the weights is made.
        reads_loss: whether `after_write` reads the gradients of the loss without penalties, see `Write.gradients`.
    """

    reads: ClassVar[str | None] = None
    watches_writes: ClassVar[bool] = False
    reads_loss: ClassVar[bool] = False
    is_prepared = False
    strength: float = 0.0

    def __post_init__(self) -> None:
        check_types(self, f"regularizer {type(self).__name__}: ")
        self._check("strength")

    def _check(self, name: str) -> None:
        value = getattr(self, name)
        if not 0 <= value < math.inf:
            raise ValueError(f"regularizer {type(self).__name__}: {name}={value} must be finite and not negative")

    @property
    def measures_loss(self) -> bool:
        """Whether steps have to tell the gradients of the loss without penalties."""
        return self.reads_loss and self.strength > 0

    @abstractmethod
    def penalty(self, activity: Activity, weights: list[Tensor]) -> Tensor:
        """Return the penalty without its strength.

        Args:
            activity: Activity of the network in the pass.
            weights: Weights of each projection, as the device has them.
        """

    def online(self, counts: list[Tensor]) -> list[Tensor] | None:
        """Return the derivative of the addition to the loss with respect to hidden spikes, while trials run.

        The derivatives are those at the numbers of spikes up to each step, for rules that learn while a trial runs.

        Args:
            counts: Numbers of spikes of each hidden layer up to each step `[W, B, N]`.

        Returns:
            Derivatives of each hidden layer `[W, B, N]`; an empty list if the penalty depends on weights alone; None if
            it is known at the end of a trial alone.
        """
        return None

    def prepare(self, net: Network) -> None:  # noqa: B027 - a hook
        """Make the state for a network; there is none by default."""

    def after_write(self, net: Network, write: Write) -> None:  # noqa: B027 - a hook
        """Take note of a change of the weights; called after each step if `watches_writes`."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint: tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned, after `prepare`.

        Raises:
            ValueError: the state belongs to another regulariser.
        """
        if state:
            raise ValueError(f"there is a state of {', '.join(state)}, but {type(self).__name__} has none")

    def __call__(self, activity: Activity, weights: list[Tensor]) -> Tensor:
        """Return the addition to the loss.

        Raises:
            TypeError: the first argument is not an activity.
        """
        require_kind(activity, Activity, "activity", "give what net(spikes) returns, then net.effective_weights()")
        return self.strength * self.penalty(activity, weights)


@dataclass
class Burst(Regularizer):
    """`mean over neurons and trials of S_i^2`: can only reduce activity (Cramer et al. 2022)."""

    strength: float = 5e-4

    def penalty(self, activity: Activity, weights: list[Tensor]) -> Tensor:
        """Return the mean squared number of spikes per neuron."""
        return _sum(counts.square().mean() for counts in _spike_counts(activity))

    def online(self, counts: list[Tensor]) -> list[Tensor]:
        """Return the derivatives while trials run, see `Regularizer.online`."""
        return [self.strength * 2 / layer[0].numel() * layer for layer in counts]


@dataclass
class UpperActivity(Regularizer):
    """`mean of max(0, S_i - allowed)^2`: leaves neurons below the limit alone (Cramer et al. 2022).

    Attributes:
        allowed: number of spikes of a neuron per trial without a penalty.
    """

    strength: float = 1e-3
    allowed: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("allowed")

    def penalty(self, activity: Activity, weights: list[Tensor]) -> Tensor:
        """Return the mean squared excess of spikes per neuron."""
        return _sum((counts - self.allowed).relu().square().mean() for counts in _spike_counts(activity))

    def online(self, counts: list[Tensor]) -> list[Tensor]:
        """Return the derivatives while trials run, see `Regularizer.online`."""
        return [self.strength * 2 / layer[0].numel() * (layer - self.allowed).relu_() for layer in counts]


@dataclass
class ReadoutAmplitude(Regularizer):
    """`mean of (max over time of the readout)^2`: keeps the readout within the ADC's range."""

    reads: ClassVar[str | None] = "membranes"
    strength: float = 1e-3

    def penalty(self, activity: Activity, weights: list[Tensor]) -> Tensor:
        """Return the mean squared maximum of the readout's membranes."""
        return activity.readout.amax(0).square().mean()


@dataclass
class WeightDecay(Regularizer):
    """`mean of w^2` of the projections onto hidden neurons, recurrent ones included.

    Fixed projections add a constant; synapses that a mask removes count as weights of 0.
    """

    strength: float = 0.1

    def penalty(self, activity: Activity, weights: list[Tensor]) -> Tensor:
        """Return the mean squared weight, summed over all projections but those onto the output."""
        return _sum(w.square().mean() for w in weights[: -activity.onto_output])

    def online(self, counts: list[Tensor]) -> list[Tensor]:
        """Return no derivatives: the penalty depends on weights alone."""
        return []


PENALTIES: Registry[type[Regularizer]] = Registry("penalties", "regularizer", Regularizer)
"""Regularisers by name."""


def default_penalties() -> dict[str, Regularizer]:
    """Return the regularisers of a run that names none, by name."""
    return {"burst": Burst(), "weight_decay": WeightDecay()}


def listed(regularizers: Iterable[Regularizer] | Mapping[str, Regularizer]) -> list[Regularizer]:
    """Return regularisers as a list; a mapping is replaced by its values.

    Raises:
        TypeError: a value is not a regulariser.
    """
    values = regularizers.values() if isinstance(regularizers, Mapping) else regularizers
    if not isinstance(values, Iterable):
        raise TypeError(f"regularizers: expected several, got {values!r:.60}; give a list, such as [Burst()], or []")
    result = list(values)
    for regularizer in result:
        require_kind(regularizer, Regularizer, "regularizers", "give instances, such as [Burst()], or []")
    return result


def _spike_counts(activity: Activity) -> list[Tensor]:
    return [layer.counts for layer in activity.hidden if layer.counts is not None]


def _sum(parts: Iterable[Tensor]) -> Tensor:
    values = list(parts)
    if len(values) == 1:
        return values[0]
    return torch.stack(values).sum() if values else torch.zeros(())
