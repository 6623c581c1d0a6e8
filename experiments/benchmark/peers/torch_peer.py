"""PyTorch alone: a loop written by hand, plain and under torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .common import SLOPE, Peer, Task, TorchPeer, linear


def build(task: Task) -> Peer:
    """Return the peer without a compiler."""
    return _build(task, lambda function: function)


def build_compiled(task: Task) -> Peer:
    """Return the peer with loops that torch.compile compiles for the shapes of the task."""
    compiled: Any = lambda function: torch.compile(function, dynamic=False)  # noqa: E731
    return _build(task, compiled)


def _spike(distance: Tensor) -> Tensor:
    """Return a step function with the derivative of the SuperSpike surrogate."""
    soft = distance / (SLOPE * distance.abs() + 1.0)
    return ((distance > 0).to(distance.dtype) - soft).detach() + soft


def _build(task: Task, prepare: Callable[[Any], Any]) -> Peer:
    first = linear(task.hidden)
    second = linear(task.readout)
    decay = task.decay
    weights = [first.weight]
    feedback = None if task.recurrent is None else linear(task.recurrent).weight
    if feedback is not None:
        weights.append(feedback)

    def fire(drives: Tensor) -> Tensor:
        current = membrane = spikes = torch.zeros_like(drives[0])
        spike_trains = []
        for drive in drives.unbind(0):
            arriving = drive if feedback is None else torch.addmm(drive, spikes, feedback.t())
            current = decay * current + arriving
            membrane = decay * membrane + current - spikes.detach()
            spikes = _spike(membrane - 1.0)
            spike_trains.append(spikes)
        return torch.stack(spike_trains)

    def integrate(drives: Tensor) -> Tensor:
        current = membrane = torch.zeros_like(drives[0])
        traces = []
        for drive in drives.unbind(0):
            current = decay * current + drive
            membrane = decay * membrane + current
            traces.append(membrane)
        return torch.stack(traces)

    hidden, readout = prepare(fire), prepare(integrate)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        spikes = hidden(first(x))
        return readout(second(spikes)), spikes

    return TorchPeer(task, weights, [second.weight], forward)
