r"""SuperSpike, an online rule of three factors for spike trains (Zenke and Ganguli 2018, arXiv:1705.11146).

It descends the van Rossum distance of the output's spike trains S from target trains, with the filter a of the loss::

    e_k[t]      = (a * (S_target - S))_k[t]                                   error, a filter of differences
    dw_ij       = sum over t of L_i[t] (a * (sigma'(U_i - 1) p_j))[t]          p_j: trace of source j
    output        L_k = e_k
    hidden layer  L_i = sum over k of B_ik e_k                                B: feedback

`.grad` is the mean of `-dw` over the samples. `a` has unit energy, as the error of the authors' code is normalised:
the loss of a single superfluous or lacking spike is 1/2. Their code averages `dw` over the steps between two changes;
in trials of one length this is a factor, which their optimiser RMaxProp cancels. It takes the same time constants for
`a` as for currents and membranes, and a surrogate derivative of 0 far below the leak.

For the output this is the gradient of the loss, with the reset detached. Hidden layers take the errors as if their
spikes were output spikes: neither the potential nor the surrogate derivative of the layer downstream is a part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hxtrain.network import Network
from hxtrain.neurons import GridEvents
from hxtrain.objectives.van_rossum import DifferenceTraces, VanRossum

from .eligibility import Filter
from .online import OnlineRule
from .rule import Batch, Need, Objective, RuleError
from .streaming import Window


@dataclass
class SuperSpike(OnlineRule):
    """SuperSpike: online descent of the van Rossum distance of output spikes from target trains.

    See `OnlineRule` for the settings.
    """

    needs: ClassVar[frozenset[Need]] = OnlineRule.needs | {Need.TARGETS, Need.LOSS}
    solves: ClassVar[str] = "target spike trains; digits by a train per class (experiment=superspike_digits)"

    def prepare(self, net: Network, objective: Objective | None = None) -> None:
        """Make the state for a network and an objective.

        Raises:
            RuleError: The loss is not the van Rossum distance.
        """
        super().prepare(net, objective)
        self._distance()

    def _distance(self) -> VanRossum:
        """Return the loss after a check."""
        loss = self.objective.loss
        if not isinstance(loss, VanRossum):
            raise RuleError(
                f"rule={self.name} descends the van Rossum distance, not {type(loss).__name__}; choose loss=van_rossum "
                "and network.output=spikes"
            )
        return loss

    def start(self, net: Network, batch: Batch) -> None:
        """Set the state of the errors to the start of a trial."""
        distance = self._distance()
        self._labels = batch.labels
        self._targets = GridEvents(distance.trains(net.dt * net.steps), net.dt, net.steps)
        self._traces = DifferenceTraces(distance, net.dt)
        self._sum = 0.0

    def responses(self, net: Network) -> list[Filter | None]:
        """Return the filter of the distance for each layer."""
        rise, decay, _ = self._distance().kernel(net.dt)
        return [Filter(rise, decay)] * len(net.layers)

    def errors(self, net: Network, window: Window, is_end: bool) -> Tensor:
        """Return the derivatives of the loss with respect to the output's filtered trains `[W, B, C]`."""
        spikes = window.spikes[-1]
        assert spikes is not None
        targets = self._targets.counts(window.first, window.first + len(spikes)).to(spikes)[:, self._labels]
        traces = self._traces.observe(spikes - targets)
        samples = traces.shape[1]
        self._sum += float(traces.square().sum()) / (2 * samples)
        _, _, scale = self._distance().kernel(net.dt)
        return traces.mul_(scale / samples)

    def signals_upstream(self, signals: Tensor, slopes: Tensor | None, weight: Tensor) -> Tensor:
        """Return the learning signals of a layer with symmetric feedback, see `OnlineRule`."""
        return signals @ weight

    def loss(self) -> float:
        """Return the mean loss of the batch."""
        return self._sum
