r"""ReSuMe: spikes at target times, from spikes of input and output and target trains (Ponulak and Kasiński 2010).

With the spike trains S_d (target), S_o (output) and S_j (input)::

    dw_j = eta int [S_d(t) - S_o(t)] [a + A int_0^inf exp(-s / tau) S_j(t - s) ds] dt

Each target spike adds, and each output spike subtracts, a constant a and the trace of the input. An input at the very
time of the spike is no cause of it, and does not count. The authors reverse the signs of a and A at inhibitory
synapses, whose weights are magnitudes there; weights with a sign, as here, need no distinction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hxtrain.network import Activity, Network

from .inputs import network_times
from .output import OutputRule, upstream_spikes
from .plasticity import counts_of, window_of
from .rule import Batch, Need, Objective, RuleError
from .traces import pair_correlation


@dataclass
class ReSuMe(OutputRule):
    """Remote supervision: output neurons learn to fire target spike trains.

    Times are those of the device: the published time constant is 5 ms, on a chip a thousand times faster 5 us. The
    learning rate is eta for weights in units of the threshold.

    Attributes:
        constant: Change of all weights onto a neuron per spike, a; it brings the number of spikes to its target.
        amplitude: Change per spike and coincident input spike, A.
        tau: Time constant of the trace of input spikes (s).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUT_SPIKES, Need.SPIKES, Need.TRAINS})
    is_local: ClassVar[bool] = True
    choice: ClassVar[str] = "loss=correlation and data with target spike trains (data=target_trains encoder=events)"
    solves: ClassVar[str] = "fires eight spikes at their target times (experiment=resume_trains)"
    constant: float = 0.01
    amplitude: float = 1.0
    tau: float = 5e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("constant", "amplitude"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"rule.{name}={getattr(self, name)} must be finite and not negative")
        if not 0 < self.tau < math.inf:
            raise ValueError(f"rule.tau={self.tau} s must be positive and finite")

    def prepare(self, net: Network, objective: Objective | None = None) -> None:
        """Take the target spike trains; see `LearningRule.prepare` for the arguments.

        Raises:
            RuleError: There are no target spike trains, or not one for each output neuron.
        """
        super().prepare(net, objective)
        targets = self.objective.targets
        outputs = net.layers[-1].neurons.size
        if targets is None:
            raise RuleError(
                f"rule={self.name} needs target spike trains, which these data lack; choose data=target_trains, or "
                "data of your own with Dataset.targets (in Python: rule.prepare(net, Objective(loss, targets=...)))"
            )
        if targets.units != outputs:
            raise RuleError(
                f"rule={self.name}: the targets have {targets.units} trains per class, but the output {outputs} "
                "neurons; give it one for each train (loss=correlation does)"
            )

    def gradient(self, net: Network, batch: Batch, activity: Activity) -> Tensor:
        """Return the sum over samples of the negative change of the weights; see `OutputRule.gradient`."""
        output = activity.layers[-1]
        fired = output.times(net.dt)
        targets = self.objective.targets
        assert targets is not None  # checked by `prepare`
        desired = network_times(net, targets[batch.labels].to(fired.time.device))
        desired = window_of(desired, net.dt * net.steps)
        upstream = upstream_spikes(net, batch, activity)
        # one by one, so that equal trains cancel exactly
        traces, goals = (pair_correlation(upstream, train, self.tau, self.tau).causal for train in (fired, desired))
        surplus = (counts_of(fired) - counts_of(desired)).to(traces)
        return self.constant * surplus[:, None] + self.amplitude * (traces - goals)
