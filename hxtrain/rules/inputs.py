"""The input events of a pass as the network sees them.

A device gets input events at their own times. A network in software computes on the time grid: it sees an event at the
start of its time step, as its own spikes are at the starts of theirs. A rule that took other times would see causes
after their effects.
"""

from __future__ import annotations

from hxtrain.backends import Spikes
from hxtrain.network import Network
from hxtrain.neurons.conversion import on_grid

from .rule import Batch


def input_events(net: Network, batch: Batch) -> Spikes:
    """Return the events that reach the first projection, delays of inputs included.

    On a device they have their own times, in software those of the starts of their time steps. Times are in the graph
    of the delays, if any.
    """
    return network_times(net, net.arrivals(batch.spikes.to(net.torch_device)))


def network_times(net: Network, spikes: Spikes) -> Spikes:
    """Return events with the times that the network knows: on a device their own, in software those of the grid."""
    return on_grid(spikes, net.dt) if net.runner is net.twin else spikes
