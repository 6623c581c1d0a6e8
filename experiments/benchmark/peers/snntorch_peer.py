"""snnTorch: Synaptic neurons stepped in a loop, the linear layers applied to all steps at once."""

from __future__ import annotations

from typing import Any

import snntorch
import torch
from snntorch import surrogate
from torch import Tensor

from .common import SLOPE, Peer, Task, TorchPeer, linear


def build(task: Task) -> Peer:
    """Return the peer."""
    first, second = linear(task.hidden), linear(task.readout)
    spike = surrogate.fast_sigmoid(slope=SLOPE)
    decays = {"alpha": task.decay, "beta": task.decay}
    hidden: Any = snntorch.Synaptic(**decays, spike_grad=spike, reset_mechanism="subtract")
    readout: Any = snntorch.Synaptic(**decays, spike_grad=spike, reset_mechanism="none")

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        current, membrane = hidden.reset_mem()
        spikes, traces = [], []
        for drive in first(x).unbind(0):
            spike, current, membrane = hidden(drive, current, membrane)
            spikes.append(spike)
        hidden_spikes = torch.stack(spikes)
        current, membrane = readout.reset_mem()
        for drive in second(hidden_spikes).unbind(0):
            _, current, membrane = readout(drive, current, membrane)
            traces.append(membrane)
        return torch.stack(traces), hidden_spikes

    return TorchPeer(task, first.weight, [second.weight], forward)
