"""Rewards at times: what a rule learns from where the reward is not known at the end of the trial alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from hxtrain.backends import Spikes


class Rewards(NamedTuple):
    """Rewards of the trials of a batch, in any order.

    Attributes:
        sample: Trial of each reward, int64 `[E]`.
        time: Time since the trial's start (s) `[E]`.
        value: Amount of reward, negative for a punishment `[E]`.
    """

    sample: Tensor
    time: Tensor
    value: Tensor


class RewardSource(ABC):
    """Base: gives rewards at times within a trial, from the spikes of the network."""

    @abstractmethod
    def rewards(self, inputs: Spikes, outputs: Spikes, labels: Tensor) -> Rewards:
        """Return the rewards of a pass.

        Args:
            inputs: Input events of `B` trials.
            outputs: Spikes of the output.
            labels: States of the environment, or true classes `[B]`.
        """
