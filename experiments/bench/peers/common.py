"""What peers share: the same task, loss and optimiser, and as many hidden spikes."""

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
    """What every peer is given.

    Attributes:
        spikes: dense input spikes `[T, B, J]`. labels: `[B]`.
        hidden: weights `[N, J]`. readout: weights `[C, N]`.
        dt, tau: time step and both time constants (s). decay: `exp(-dt / tau)`.
        activity: hidden spikes per sample.
        rate: learning rate of Adam, so small that the activity stays what it is.
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


class Peer(ABC):
    """Another library on the same task."""

    @abstractmethod
    def train(self) -> object:
        """Do one training step."""

    @abstractmethod
    def infer(self) -> object:
        """Return the readouts' maxima."""

    @abstractmethod
    def set_gain(self, gain: float) -> None:
        """Multiply the initial hidden weights."""

    @abstractmethod
    def hidden_spikes(self) -> float:
        """Return hidden spikes per sample."""

    def match(self, activity: float) -> None:
        """Find the gain at which the hidden neurons are as active as ours (reset and discretisation differ)."""
        low, high = 0.1, 30.0
        for _ in range(14):
            gain = (low * high) ** 0.5
            self.set_gain(gain)
            low, high = (gain, high) if self.hidden_spikes() < activity else (low, gain)


class TorchPeer(Peer):
    """A peer on PyTorch.

    Args:
        task: what is computed.
        hidden: the parameter that holds the hidden weights.
        others: further parameters.
        forward: from spikes in the library's own order of axes to readout and hidden spikes, likewise.
        batch_first: whether that order is `[B, T, N]` instead of `[T, B, N]`.
    """

    def __init__(
        self,
        task: Task,
        hidden: Tensor,
        others: list[Tensor],
        forward: Callable[[Tensor], tuple[Tensor, Tensor]],
        batch_first: bool = False,
    ) -> None:
        self._hidden, self._initial, self._forward = hidden, hidden.detach().clone(), forward
        self._spikes = task.spikes.transpose(0, 1).contiguous() if batch_first else task.spikes
        self._labels, self._time = task.labels, int(batch_first)
        self._optimizer = torch.optim.Adam([hidden, *others], lr=task.rate)

    def train(self) -> object:
        """Do one training step."""
        self._optimizer.zero_grad()
        readout, _ = self._forward(self._spikes)
        loss: Any = cross_entropy(readout.amax(self._time), self._labels)
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def infer(self) -> object:
        """Return the readouts' maxima."""
        with torch.no_grad():
            return self._forward(self._spikes)[0].amax(self._time)

    def set_gain(self, gain: float) -> None:
        """Multiply the initial hidden weights."""
        with torch.no_grad():
            self._hidden.copy_(gain * self._initial)

    def hidden_spikes(self) -> float:
        """Return hidden spikes per sample."""
        with torch.no_grad():
            return float(self._forward(self._spikes)[1].sum()) / len(self._labels)


def linear(weight: Tensor, factor: float = 1.0) -> torch.nn.Linear:
    """Return a layer without bias that holds `factor` times a weight."""
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(factor * weight)
    return layer
