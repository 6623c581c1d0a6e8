"""The learning window of a local rule, measured: the change of a synapse by a pair of spikes, over their delay.

The protocol is that of pairing experiments. A neuron has two inputs. One evokes a single spike of the neuron; the other
one is the synapse under study, whose weight is too small to move this spike. Each trial of a delay is shown to a
fresh copy of the rule.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.network import LIF, Activity, Linear, Network
from hxtrain.objectives import SpikeCount

from .rule import Batch, LearningRule, Need, Objective

PAIRED = frozenset({Need.INPUT_SPIKES, Need.SPIKES, Need.MEMBRANES, Need.REWARD})
"""What a rule may read, for a pair of spikes to determine its change."""
LONGEST = 30
"""Largest delay in time steps."""
MARGIN = 8
"""Time steps before the first and after the last spike."""
CENTRE = MARGIN + LONGEST
"""Time step of the input that evokes a spike."""
IN_STEP = 1e-3
"""Time of an input within its step, as a share: a time on the border could be rounded to the step before."""
SILENT_TRIALS = 20
"""Trials without reward, from which a rule learns what to expect."""
LABEL = torch.zeros(1, dtype=torch.long)
SHARE = 0.02
"""Weight of the synapse under study, as a share of the one that evokes a spike."""


class LearningWindow(NamedTuple):
    """Changes of a weight over the delay of a pair of spikes.

    Attributes:
        delays: Time of the neuron's spike less that of the input's `[D]` (s), ascending.
        changes: Change of the weight by a trial at learning rate 1 `[D]`.
    """

    delays: Tensor
    changes: Tensor


@torch.no_grad()
def learning_window(rule: LearningRule, net: Network) -> LearningWindow | None:
    """Measure the learning window of a rule in software.

    Args:
        rule: Learning rule; copies of it are prepared.
        net: Network whose time grid and time constants the neuron has.

    Returns:
        The window; None for a rule whose change a pair of spikes does not determine.
    """
    population = next((layer.neurons for layer in net.layers if isinstance(layer.neurons, LIF)), None)
    if population is None or not rule.is_local or not _is_paired(rule):
        return None
    neuron = _neuron(population, net)
    if rule.check(neuron, None):
        return None
    spike = _evoke(neuron)
    if spike is None:
        return None
    pairs = [_pair(neuron, CENTRE + lag) for lag in range(LONGEST, -LONGEST - 1, -1)]
    inputs = torch.stack([pair.time[pair.unit == 0][0] for pair in pairs])
    settled = _settled(rule, neuron)
    return LearningWindow(
        spike - inputs, torch.tensor([_change(copy.deepcopy(settled), neuron, pair) for pair in pairs])
    )


def _is_paired(rule: LearningRule) -> bool:
    """Return whether a pair of spikes determines the change of a rule; labels matter for the reward alone."""
    labels = {Need.TARGETS} if Need.REWARD in rule.needs else set()
    return rule.needs <= PAIRED | labels


def _neuron(population: LIF, net: Network) -> Network:
    """Return a neuron with two inputs: the synapse under study, and the one that evokes a spike."""
    cell = LIF(1, population.tau_mem, population.tau_syn, refractory=population.refractory)
    return Network(Linear(2, 1), cell, dt=net.dt, steps=2 * CENTRE + 1)


def _evoke(neuron: Network) -> float | None:
    """Set the weights so that the second input evokes a single early spike; returns its time (s), None without one."""
    weight = neuron.projections[0].synapses.weight
    evoked = None
    for strength in torch.logspace(-1, 2, 60):
        previous = weight.clone()
        weight.copy_(torch.stack([SHARE * strength, strength])[None])
        activity: Activity = neuron(_pair(neuron, CENTRE))
        times = activity.layers[0].times(neuron.dt).time
        if len(times) > 1:
            weight.copy_(previous)
            break
        evoked = float(times[0]) if len(times) else None
    return evoked


def _pair(neuron: Network, step: int) -> Spikes:
    """Return a trial: the input under study in a time step, the one that evokes a spike in the middle."""
    return Spikes.from_times((torch.tensor([[step, CENTRE]]) + IN_STEP) * neuron.dt)


def _settled(rule: LearningRule, neuron: Network) -> LearningRule:
    """Return a prepared copy of a rule; after silent trials without reward, one with a pair is rewarded by 1.

    Homeostasis is off: it follows numbers of spikes, and would move the whole window up or down.
    """
    rule = copy.deepcopy(rule)
    if hasattr(rule, "homeostasis"):
        rule.homeostasis = 0.0
    rewards = iter([0.0] * SILENT_TRIALS)
    rule.prepare(neuron, Objective(SpikeCount(), reward=lambda scores, labels: torch.full([1], next(rewards, 1.0))))
    if Need.REWARD in rule.needs:
        for _ in range(SILENT_TRIALS):
            rule.step(neuron, Batch(Spikes.from_times(torch.full([1, 2], torch.inf)), LABEL))
    return rule


def _change(rule: LearningRule, neuron: Network, pair: Spikes) -> float:
    """Return the change of the synapse under study by a trial."""
    weight = neuron.projections[0].synapses.weight
    weight.grad = None
    rule.step(neuron, Batch(pair, LABEL))
    return 0.0 if weight.grad is None else -float(weight.grad[0, 0])
