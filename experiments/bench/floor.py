"""The floor: the matrix products of a step alone, without neurons, surrogate, loss or optimiser.

Inputs fire at most once, so the first layer's products are sums over events; the others are dense.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import embedding_bag

from hxtrain.backends import Spikes
from hxtrain.experiments.bench.peers.common import Task


class Floor:
    """The products of a training step and of an inference.

    Args:
        spikes: input events. task: sizes and weights.
    """

    def __init__(self, spikes: Spikes, task: Task) -> None:
        steps, samples = task.spikes.shape[:2]
        rows, where = steps * samples, task.hidden.device
        row = spikes.bins(task.dt) * samples + spikes.sample
        row, unit = row[row < rows], spikes.unit[row < rows]
        forward, backward = torch.argsort(row), torch.argsort(unit)
        self._forward = unit[forward], torch.searchsorted(row[forward], torch.arange(rows, device=where))
        self._backward = row[backward], torch.searchsorted(unit[backward], torch.arange(spikes.units, device=where))
        self._hidden, self._readout = task.hidden.t().contiguous(), task.readout
        neurons, classes = task.hidden.shape[0], task.readout.shape[0]
        with where:
            self._fired = (torch.rand(rows, neurons) < 0.01).float()
            self._charge, self._charge_out = torch.randn(rows, neurons), torch.randn(rows, classes)
            self._drive = torch.empty(rows, classes)
            self._grad_fired, self._grad_readout = torch.empty(rows, neurons), torch.empty(classes, neurons)

    def inference(self) -> object:
        """Do the products of a forward pass."""
        first = embedding_bag(self._forward[0], self._hidden, self._forward[1], mode="sum")
        torch.mm(self._fired, self._readout.t(), out=self._drive)
        return first

    def training(self) -> object:
        """Do the products of a forward and a backward pass."""
        self.inference()
        torch.mm(self._charge_out, self._readout, out=self._grad_fired)
        torch.mm(self._charge_out.t(), self._fired, out=self._grad_readout)
        return embedding_bag(self._backward[0], self._charge, self._backward[1], mode="sum")


def floor_works(spikes: Spikes, task: Task) -> dict[str, Callable[[], object]]:
    """Return what is timed, by `training` and `inference`."""
    floor = Floor(spikes, task)
    return {"training": floor.training, "inference": floor.inference}
