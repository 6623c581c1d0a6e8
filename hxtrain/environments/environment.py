"""The seam of closed loops: what a network observes, and what its actions earn.

An environment runs `B` episodes at once, and a device runs their trials as one batch. An epoch is

    reset(generator), then `moves` times: observe(window, generator, epoch) -> a pass of the network -> act(counts)

An environment is the reward of an objective: a function of spike counts and states for a reward at the end of each
trial, or a `RewardSource` for rewards at times.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hxtrain.backends import Registry, Spikes
from hxtrain.checks import check_types


class Outcome(NamedTuple):
    """What the actions of parallel episodes lead to.

    Attributes:
        actions: Chosen actions, int64 `[B]`; -1 if the network is silent.
        scores: Reward of each action, float64 `[B]`.
        hits: Episodes that succeed in this move, bool `[B]`.
        misses: Episodes that fail in this move, bool `[B]`; a move may be neither.
    """

    actions: Tensor
    scores: Tensor
    hits: Tensor
    misses: Tensor


@dataclass
class Environment(ABC):
    """Base: parallel episodes of a closed loop. A field is a setting, `environment.<field>`.

    The state consists of tensors outside the fields, made by `reset` and kept in checkpoints. All random numbers come
    from the generator in the arguments.
    """

    def __post_init__(self) -> None:
        check_types(self, "environment.")

    @property
    @abstractmethod
    def inputs(self) -> int:
        """Number of inputs of the network."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of output neurons: the actions."""

    @property
    @abstractmethod
    def states(self) -> int:
        """Number of states that an expected reward tells apart."""

    @property
    def moves(self) -> int:
        """Number of moves of an epoch."""
        return 1

    @property
    def best_score(self) -> float | None:
        """Largest reward of an action; None if there is no such bound."""
        return None

    def fixed_weights(self, neurons: int) -> Tensor | None:
        """Return weights that are not learned, from the last inputs to the first population `[N, fixed inputs]`.

        Args:
            neurons: Number of neurons `N` of the first population.
        """
        return None

    @abstractmethod
    def reset(self, generator: torch.Generator) -> None:
        """Start new episodes."""

    @abstractmethod
    def state(self) -> Tensor:
        """Return the state of each episode, int64 `[B]`."""

    @abstractmethod
    def observe(self, window: float, generator: torch.Generator, epoch: int | None) -> Spikes:
        """Return what the network gets to see: the input events of `B` trials.

        Args:
            window: Duration of a trial (s).
            generator: Source of random numbers.
            epoch: Number of finished epochs, for exploration that declines; None: no exploration.
        """

    @abstractmethod
    def act(self, counts: Tensor, generator: torch.Generator) -> Outcome:
        """Act on the numbers of output spikes `[B, N]`, and go on to the next state."""

    def exhibition(self, games: int, moves: int) -> Environment | None:
        """Return the environment of games that are played after training; None if there is nothing to play.

        Args:
            games: Number of games at a time.
            moves: Moves of a game.
        """
        return None

    def view(self) -> Tensor:
        """Return what a picture of a game shows, `[B, values]`."""
        return torch.zeros(len(self.state()), 0)

    def summary(self, weights: Tensor) -> dict[str, float]:
        """Return what the weights of the first projection `[N, J]` tell about success."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the episodes for a checkpoint: tensors."""
        return {name: value.clone() for name, value in vars(self).items() if isinstance(value, Tensor)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned.

        Raises:
            ValueError: An entry is no tensor.
        """
        for name, value in state.items():
            if not isinstance(value, Tensor):
                raise ValueError(f"the state of the environment has {name}={value!r:.40}, expected a tensor")
        vars(self).update({name: value.clone() for name, value in state.items()})


ENVIRONMENTS: Registry[type[Environment]] = Registry("environments", "environment", Environment)
"""Environments by name."""


def regular_times(window: float, interval: float) -> Tensor:
    """Return times from 0 to the end of a window at a fixed interval (s), float64."""
    return torch.arange(0.0, window, interval, dtype=torch.float64)


def random_trains(counts: Tensor, window: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return events at random times: sample, unit and time (s) of `counts[b, j]` events each.

    Args:
        counts: Numbers of events, int64 `[B, J]`.
        window: Times lie in 0..window (s).
        generator: Source of the times.
    """
    sample, unit = counts.nonzero(as_tuple=True)
    repeats = counts[sample, unit]
    time = torch.rand(int(repeats.sum()), generator=generator, dtype=torch.float64) * window
    return sample.repeat_interleave(repeats), unit.repeat_interleave(repeats), time
