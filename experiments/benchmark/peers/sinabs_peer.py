"""sinabs: Linear, LIF (LIFRecurrent) with reset by subtraction, Linear, LIF without spikes as readout."""

from __future__ import annotations

from typing import Any

from sinabs.activation import MembraneSubtract, SingleSpike
from sinabs.layers import LIF, LIFRecurrent
from torch import Tensor

from .common import Peer, Task, TorchPeer, linear


def build(task: Task) -> Peer:
    """Return the peer."""
    first = linear(task.hidden)
    second = linear(task.readout)
    steps = task.tau / task.dt
    times = {"tau_mem": steps, "tau_syn": steps, "norm_input": False}
    settings = {"spike_fn": SingleSpike, "reset_fn": MembraneSubtract(), **times}
    weights = [first.weight]
    hidden: Any
    if task.recurrent is None:
        hidden = LIF(**settings)
    else:
        feedback = linear(task.recurrent)
        hidden = LIFRecurrent(rec_connect=feedback, **settings)
        weights.append(feedback.weight)
    readout: Any = LIF(spike_fn=None, reset_fn=None, **times)
    for layer in (hidden, readout):
        layer.tau_mem.requires_grad_(False)
        layer.tau_syn.requires_grad_(False)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        for layer in (hidden, readout):
            if layer.is_state_initialised():
                layer.reset_states()
        spikes = hidden(first(x))
        return readout(second(spikes)), spikes

    return TorchPeer(task, weights, [second.weight], forward, batch_first=True)
