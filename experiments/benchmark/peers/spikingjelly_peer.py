"""SpikingJelly: Linear, multi-step CUBALIFNode, Linear, the same with an unreachable threshold as readout.

Recurrent neurons are stepped in a loop.
"""

from __future__ import annotations

from typing import Any

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor

from .common import SLOPE, Peer, Task, TorchPeer, linear


def build(task: Task) -> Peer:
    """Return the peer."""
    first, second = linear(task.hidden), linear(task.readout)

    def node(threshold: float) -> Any:
        layer: Any = neuron.CUBALIFNode(
            c_decay=task.decay,
            v_decay=task.decay,
            v_threshold=threshold,
            v_reset=None,
            surrogate_function=surrogate.SuperSpike(alpha=SLOPE),
        )
        layer.detach_reset = True
        layer.step_mode = "m"
        return layer

    hidden, readout = node(1.0), node(1e30)
    readout.store_v_seq = True
    weights = [first.weight]
    feedback = None if task.recurrent is None else linear(task.recurrent)
    if feedback is not None:
        hidden.step_mode = "s"
        weights.append(feedback.weight)

    def fire(drives: Tensor) -> Tensor:
        if feedback is None:
            spikes: Tensor = hidden(drives)
            return spikes
        spike = torch.zeros_like(drives[0])
        train = []
        for drive in drives.unbind(0):
            spike = hidden(drive + feedback(spike))
            train.append(spike)
        return torch.stack(train)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        for layer in (hidden, readout):
            functional.reset_net(layer)
        spikes = fire(first(x))
        readout(second(spikes))
        return readout.v_seq, spikes

    return TorchPeer(task, weights, [second.weight], forward)
