"""Rockpool: LinearTorch, LIFTorch (may spike several times per step), LinearTorch, two ExpSynTorch as readout."""

from __future__ import annotations

from typing import Any

import torch
from rockpool.nn.modules import ExpSynTorch, LIFTorch, LinearTorch
from rockpool.parameters import Constant
from torch import Tensor

from .common import Peer, Task, TorchPeer


def build(task: Task) -> Peer:
    """Return the peer."""
    classes, neurons = task.readout.shape
    first: Any = LinearTorch((task.hidden.shape[1], neurons), has_bias=False)
    second: Any = LinearTorch((neurons, classes), has_bias=False)
    with torch.no_grad():
        first.weight.copy_(task.hidden.t())
        second.weight.copy_(task.readout.t())
    times = {"tau_mem": Constant(task.tau), "tau_syn": Constant(task.tau)}
    is_recurrent = task.recurrent is not None
    hidden: Any = LIFTorch(
        neurons, **times, bias=Constant(0.0), threshold=Constant(1.0), has_rec=is_recurrent, dt=task.dt
    )
    weights = [first.weight]
    if task.recurrent is not None:
        with torch.no_grad():
            hidden.w_rec.copy_(task.recurrent.t())
        weights.append(hidden.w_rec)
    synapse: Any = ExpSynTorch(classes, tau=Constant(task.tau), dt=task.dt)
    membrane: Any = ExpSynTorch(classes, tau=Constant(task.tau), dt=task.dt)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        for layer in (hidden, synapse, membrane):
            layer.reset_state()
        spikes = hidden(first(x)[0])[0]
        return membrane(synapse(second(spikes)[0])[0])[0], spikes

    return TorchPeer(task, weights, [second.weight], forward, batch_first=True)
