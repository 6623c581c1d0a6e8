"""norse: Linear, LIF (with reset to zero, the only available reset), Linear, LI."""

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
    hidden: Any = norse.LIF(norse.LIFParameters(**times, method="super", alpha=torch.tensor(SLOPE)), dt=task.dt)
    readout: Any = norse.LI(norse.LIParameters(**times), dt=task.dt)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        spikes, _ = hidden(first(x))
        return readout(second(spikes))[0], spikes

    return TorchPeer(task, first.weight, [second.weight], forward)
