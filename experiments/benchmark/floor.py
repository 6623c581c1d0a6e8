"""The floor: the matrix products of a step alone, without neurons, surrogate, loss or optimiser.

Inputs fire at most once, so the first layer's products are sums over events; the others are dense.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import embedding_bag

from hxtrain.backends import Spikes
from hxtrain.experiments.benchmark.peers.common import Task


class Floor:
    """The products of a training step and of an inference.

    Args:
        spikes: Input events.
        task: Sizes and weights.
    """

    def __init__(self, spikes: Spikes, task: Task) -> None:
        steps, samples = task.spikes.shape[:2]
        rows = steps * samples
        device = task.hidden.device
        row = spikes.bins(task.dt) * samples + spikes.sample
        is_recorded = row < rows
        unit = spikes.unit[is_recorded]
        row = row[is_recorded]
        by_row = torch.argsort(row)
        by_unit = torch.argsort(unit)
        self._forward = (unit[by_row], torch.searchsorted(row[by_row], torch.arange(rows, device=device)))
        self._backward = (row[by_unit], torch.searchsorted(unit[by_unit], torch.arange(spikes.units, device=device)))
        self._hidden = task.hidden.t().contiguous()
        self._readout = task.readout
        neurons = task.hidden.shape[0]
        classes = task.readout.shape[0]
        with device:
            self._hidden_spikes = (torch.rand(rows, neurons) < 0.01).float()
            self._charge = torch.randn(rows, neurons)
            self._charge_out = torch.randn(rows, classes)
            self._drive = torch.empty(rows, classes)
            self._grad_spikes = torch.empty(rows, neurons)
            self._grad_readout = torch.empty(classes, neurons)

    def inference(self) -> object:
        """Compute the products of a forward pass."""
        first = embedding_bag(self._forward[0], self._hidden, self._forward[1], mode="sum")
        torch.mm(self._hidden_spikes, self._readout.t(), out=self._drive)
        return first

    def training(self) -> object:
        """Compute the products of a forward and a backward pass."""
        self.inference()
        torch.mm(self._charge_out, self._readout, out=self._grad_spikes)
        torch.mm(self._charge_out.t(), self._hidden_spikes, out=self._grad_readout)
        return embedding_bag(self._backward[0], self._charge, self._backward[1], mode="sum")


def floor_works(spikes: Spikes, task: Task) -> dict[str, Callable[[], object]]:
    """Return the timed functions, by `training` and `inference`."""
    floor = Floor(spikes, task)
    return {"training": floor.training, "inference": floor.inference}
