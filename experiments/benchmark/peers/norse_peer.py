"""norse: Linear and LIF, or LIFRecurrent (with reset to zero, the only available reset), Linear, LI."""

from __future__ import annotations

from typing import Any

import norse.torch as norse
import torch
from torch import Tensor

from .common import SLOPE, Peer, Task, TorchPeer, linear


def build(task: Task) -> Peer:
    """Return the peer; the weights compensate that norse's Euler step scales inputs by dt / tau."""
    rate = torch.tensor(1 / task.tau)
    factor = task.tau / task.dt
    times = {"tau_syn_inv": rate, "tau_mem_inv": rate}
    first, second = linear(task.hidden, factor), linear(task.readout, factor)
    parameters = norse.LIFParameters(**times, method="super", alpha=torch.tensor(SLOPE))
    weights = [first.weight]
    hidden: Any
    if task.recurrent is None:
        hidden = norse.LIF(parameters, dt=task.dt)
    else:
        neurons, inputs = task.hidden.shape
        hidden = norse.LIFRecurrent(inputs, neurons, parameters, dt=task.dt, autapses=True)
        with torch.no_grad():
            hidden.input_weights.copy_(first.weight)
            hidden.recurrent_weights.copy_(factor * task.recurrent)
        weights = [hidden.input_weights, hidden.recurrent_weights]
    readout: Any = norse.LI(norse.LIParameters(**times), dt=task.dt)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        spikes, _ = hidden(first(x) if task.recurrent is None else x)
        return readout(second(spikes))[0], spikes

    return TorchPeer(task, weights, [second.weight], forward)
