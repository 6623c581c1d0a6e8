"""Base of all peers: the same task, loss and optimiser, and the same number of hidden spikes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

SLOPE = 10.0
"""Slope of the surrogate derivative."""


class Task(NamedTuple):
    """Input of every peer.

    Attributes:
        spikes: Dense input spikes `[T, B, J]`.
        labels: True classes `[B]`.
        hidden: Weights of the hidden layer `[N, J]`.
        readout: Weights of the readout `[C, N]`.
        dt: Time step (s).
        tau: Both time constants (s).
        decay: Decay per time step, `exp(-dt / tau)`.
        activity: Hidden spikes per sample.
        rate: Learning rate of Adam, small enough to leave the activity unchanged.
        recurrent: Recurrent weights of the hidden layer `[N, N]`; None without recurrence.
    """

    spikes: Tensor
    labels: Tensor
    hidden: Tensor
    readout: Tensor
    dt: float
    tau: float
    decay: float
    activity: float
    rate: float
    recurrent: Tensor | None = None


class Peer(ABC):
    """Another library on the same task."""

    @abstractmethod
    def train(self) -> object:
        """Do one training step."""

    @abstractmethod
    def infer(self) -> object:
        """Return the maximum of each readout over time."""

    @abstractmethod
    def set_gain(self, gain: float) -> None:
        """Multiply the initial weights onto the hidden neurons."""

    @abstractmethod
    def hidden_spikes(self) -> float:
        """Return hidden spikes per sample."""

    def match(self, activity: float) -> None:
        """Set the gain at which the hidden neurons have the same activity as ours (reset and discretisation differ)."""
        low, high = 0.1, 30.0
        for _ in range(14):
            gain = (low * high) ** 0.5
            self.set_gain(gain)
            low, high = (gain, high) if self.hidden_spikes() < activity else (low, gain)


class TorchPeer(Peer):
    """A peer on PyTorch.

    Args:
        task: Task to compute.
        hidden: Parameters with the weights onto the hidden neurons.
        parameters: Further parameters.
        forward: Function from input spikes to readout and hidden spikes, all in the library's order of axes.
        batch_first: Whether the order of axes is `[B, T, N]` instead of `[T, B, N]`.
    """

    def __init__(
        self,
        task: Task,
        hidden: list[Tensor],
        parameters: list[Tensor],
        forward: Callable[[Tensor], tuple[Tensor, Tensor]],
        batch_first: bool = False,
    ) -> None:
        self._hidden = hidden
        self._initial = [weight.detach().clone() for weight in hidden]
        self._forward = forward
        self._spikes = task.spikes.transpose(0, 1).contiguous() if batch_first else task.spikes
        self._labels = task.labels
        self._time_axis = int(batch_first)
        self._optimizer = torch.optim.Adam([*hidden, *parameters], lr=task.rate)

    def train(self) -> object:
        """Do one training step."""
        self._optimizer.zero_grad()
        readout, _ = self._forward(self._spikes)
        loss: Any = cross_entropy(readout.amax(self._time_axis), self._labels)
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def infer(self) -> object:
        """Return the maximum of each readout over time."""
        with torch.no_grad():
            return self._forward(self._spikes)[0].amax(self._time_axis)

    def set_gain(self, gain: float) -> None:
        """Multiply the initial weights onto the hidden neurons."""
        with torch.no_grad():
            for weight, initial in zip(self._hidden, self._initial, strict=True):
                weight.copy_(gain * initial)

    def hidden_spikes(self) -> float:
        """Return hidden spikes per sample."""
        with torch.no_grad():
            return float(self._forward(self._spikes)[1].sum()) / len(self._labels)


def linear(weight: Tensor, factor: float = 1.0) -> torch.nn.Linear:
    """Return a layer without bias, with `factor` times a weight."""
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(factor * weight)
    return layer
