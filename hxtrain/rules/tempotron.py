r"""The tempotron: neurons learn to fire, or to stay silent (Gütig and Sompolinsky 2006).

The membrane of a neuron without reset is `V(t) = sum_i w_i sum_k K(t - t_ik)`, with the post-synaptic potential K of a
unit weight. Only trials with a wrong answer change weights, by descent of the distance from the threshold theta::

    E    = theta - V(t*)    for a neuron that stays silent, but should fire;   t*: time of the largest V
    E    = V(t*) - theta    for a neuron that fires, but should be silent;     t*: time of its first spike
    dE/dw_i = -+ sum over input spikes before t* of K(t* - t_ik)

The authors take the largest V of the membrane without reset in both cases. A device shows no membrane without reset:
at its first spike V has reached the threshold, and what follows is no cause of the wrong answer (the authors, too, cut
off inputs after the spike). Their K has a maximum of 1; here it is the potential of a unit weight of the network, which
devices share with the twin on the time grid (`neurons/psp.py`)::

    K(s) = (exp(-s / tau_mem) - exp(-s / tau_syn)) / (exp(-dt / tau_mem) - exp(-dt / tau_syn))

A batch without a wrong answer has no gradient, so that an optimiser makes no step. Momentum is then, as published, a
memory of the last wrong answers; with steps after right ones, too, a load of 2 was not learned in 200 cycles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.gradients.spike_times import first_times
from hxtrain.network import Activity, Network
from hxtrain.neurons import decay
from hxtrain.objectives.firing import Firing

from .output import OutputRule, upstream_spikes
from .rule import Batch, Need, Objective, RuleError, Step
from .traces import pair_correlation

SPLIT = 1e-4
"""Relative distance that equal time constants are given, so that one formula serves both; its error is `SPLIT^2`."""


@dataclass
class Tempotron(OutputRule):
    """Error-driven learning of decisions: each output neuron fires for its class, and is silent for all others.

    `loss=firing` says which neurons should fire. The learning rate is lambda for weights in units of the threshold.

    Attributes:
        margin: Distance below the threshold that the membrane of a silent neuron should keep, in thresholds; above it a
            right answer counts as wrong. It guards decisions against the noise of a device; published: 0, where spikes
            alone decide.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUT_SPIKES, Need.SPIKES, Need.MEMBRANES, Need.TARGETS})
    is_local: ClassVar[bool] = True
    choice: ClassVar[str] = "loss=firing"
    solves: ClassVar[str] = "remembers random classes of 100 spike patterns (experiment=tempotron_patterns)"
    margin: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.margin < 1:
            raise ValueError(f"rule.margin={self.margin} must be in 0 <= x < 1, thresholds above the leak")

    def prepare(self, net: Network, objective: Objective | None = None) -> None:
        """Take the loss; see `LearningRule.prepare` for the arguments.

        Raises:
            RuleError: The loss does not say which neurons should fire.
        """
        super().prepare(net, objective)
        self._firing.classes(net.layers[-1].neurons.size)

    @property
    def _firing(self) -> Firing:
        """Loss that says which neurons should fire."""
        loss = self.objective.loss
        if not isinstance(loss, Firing):
            raise RuleError(
                f"rule={self.name} needs to know which neurons should fire, but {type(loss).__name__} does not say so; "
                "choose loss=firing (in Python: Firing())"
            )
        return loss

    def step(self, net: Network, batch: Batch) -> Step:
        """Run a batch, see `OutputRule.step`; without a wrong answer there is no gradient, and no step of momentum."""
        step = super().step(net, batch)
        weight = net.layers[-1].linear.weight
        if weight.grad is not None and not weight.grad.any():
            weight.grad = None
        return step

    def gradient(self, net: Network, batch: Batch, activity: Activity) -> Tensor:
        """Return the gradient of the sum of E over samples; see `OutputRule.gradient`."""
        output = activity.layers[-1]
        first = first_times(output.times(net.dt), torch.inf)
        goals = self._firing.goals(batch.labels, first.shape[1]).to(first.device)
        peaks = output.trace.max(0)
        is_late = goals & first.isinf()
        is_near = (peaks.values > 1 - self.margin) & (self.margin > 0)  # without a margin, spikes alone decide
        is_early = ~goals & (first.isfinite() | is_near)
        times = torch.where(first.isfinite(), first, (peaks.indices.double() * net.dt).float())
        sample, unit = (is_late | is_early).nonzero(as_tuple=True)
        moments = Spikes.trusted(sample, unit, times[sample, unit], *first.shape)
        signs = torch.where(is_late, -1.0, 1.0)[sample, unit]
        return responses(net, upstream_spikes(net, batch, activity), moments, signs)


def responses(net: Network, upstream: Spikes, moments: Spikes, factors: Tensor) -> Tensor:
    """Return the sum over moments of the output's potentials by unit weights `[N, J]`.

    Args:
        net: Network; the response is that of its output neurons.
        upstream: Spikes that arrive at the output.
        moments: Times at which the potential of a neuron is taken.
        factors: Factor of each moment in the sum `[E]`.
    """
    neurons = net.layers[-1].neurons
    is_equal = abs(neurons.tau_mem / neurons.tau_syn - 1) < SPLIT
    tau_mem = neurons.tau_mem * (1 + SPLIT / 2) if is_equal else neurons.tau_mem
    tau_syn = neurons.tau_mem * (1 - SPLIT / 2) if is_equal else neurons.tau_syn
    scale = decay(net.dt, tau_mem) - decay(net.dt, tau_syn)
    all_factors = (torch.ones(len(upstream)), factors)
    slow, fast = (
        pair_correlation(upstream, moments, tau, tau, factors=all_factors).causal for tau in (tau_mem, tau_syn)
    )
    return (slow - fast) / scale
