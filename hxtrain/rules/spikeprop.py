r"""SpikeProp: descent of the times of first spikes (Bohte, Kok and La Poutré, Neurocomputing 48, 2002).

The membrane of neuron j is x_j(t) = sum_i,k w_ij^k eps(t - t_i - d^k), with several terminals k per input that delay
its spike by d^k. The first crossing of the threshold is t_j, and::

    dt_j/dw_ij^k = -eps(t_j - t_i - d^k) / slope_j        slope_j = sum_i,k w_ij^k eps'(t_j - t_i - d^k)

Each neuron has one spike: later ones have no gradient, neither as outputs nor as inputs. For neurons that fire once,
SpikeProp and `eventprop` are the same. The slope is at least `slope_floor / tau_mem`, where the published rule has
0.1 / ms; neurons that do not fire are pushed by the firing floor, where the published rule raises all weights.

Terminals are inputs of the network that get the same spike at different times: `network=delayed`, whose delays learn
by dL/dd^k = sum dL/dt_i^k over the spikes that they delay, or `encoder=delayed_events`, whose delays are fixed. The
loss of target times is `spike_time_targets`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hxtrain.backends import Spikes
from hxtrain.gradients.spike_times import first_of_each

from .eventprop import EventProp


@dataclass
class SpikeProp(EventProp):
    """Gradients of the times of first spikes alone (Bohte, Kok and La Poutré 2002).

    Attributes:
        slope: Slope of the membrane at a spike, `model` or `measured`, see `EventProp`.
        slope_floor: Smallest slope (threshold / tau_mem); a smaller one is replaced by this.
        firing_floor: Mean number of spikes per sample and neuron below which a neuron is pushed to fire; each neuron
            should fire once.
        floor_strength: Strength of the push; 0: none.
    """

    solves: ClassVar[str] = "XOR of spike times with delayed terminals (experiment=spikeprop_xor)"

    slope_floor: float = 0.7
    firing_floor: float = 1.0

    def chosen(self, spikes: Spikes) -> Spikes:
        """Return the first spike of each neuron in each sample."""
        return first_of_each(spikes)
