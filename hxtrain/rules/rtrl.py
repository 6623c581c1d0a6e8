r"""Real-time recurrent learning of the part within neurons (Zenke and Neftci 2021, arXiv:2010.11931), and e-prop.

Real-time recurrent learning carries the derivative of the state with respect to every weight forward in time. Here it
keeps the derivative of a neuron's own state with respect to its own synapses: the blocks on the diagonal. With the
error of the output `e[t]`, a derivative with respect to its membranes or spikes, see `objectives/online.py`::

    gradient_ij = sum over t of L_i[t] e_ij[t]                     e_ij: eligibility, see `eligibility.py`
    output          L_k[t] = e_k[t] (membranes), e_k[t] sigma'(U_k[t] - 1) (spikes); unfiltered eligibility
    layer upstream  L_i[t] = sum over k of W_ki L_k[t];            eligibility filtered by the potential of layer k
    layers further  L_i[t] = sum over k of W_ki sigma'(U_k[t] - 1) L_k[t];   the same

Without recurrence and with one hidden layer this is the derivative of the errors' sum, equal to backpropagation with
the reset detached: no other path leads from a weight to the output. What is left out elsewhere: the path of a spike
through recurrent weights, those of the neuron onto itself included (the recurrent weights still learn, by their own
eligibilities); and beyond the last hidden layer the time that a spike takes through the layers between.

E-prop (Bellec et al. 2020) is the same factorisation, found from the other side. For neurons without adaptation its
eligibility trace is `sigma' p_j`, filtered as the readout filters; symmetric e-prop is this rule, and random e-prop has
fixed random weights in place of W. `rule=eprop` is `rule=rtrl` with `feedback=random`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hxtrain.network import Network
from hxtrain.objectives import LOSSES, Loss
from hxtrain.objectives.online import Grid

from .eligibility import Filter
from .online import OnlineRule
from .rule import Batch, Need, Objective, RuleError
from .streaming import Window


@dataclass
class RTRL(OnlineRule):
    """Real-time recurrent learning within neurons, with the errors of a loss while the trial runs.

    See `OnlineRule` for the settings.
    """

    needs: ClassVar[frozenset[Need]] = OnlineRule.needs | {Need.TARGETS, Need.LOSS}
    solves: ClassVar[str] = "digits and random manifolds (experiment=rtrl_digits, rtrl_manifolds)"

    def prepare(self, net: Network, objective: Objective | None = None) -> None:
        """Make the state for a network and an objective.

        Raises:
            RuleError: The loss has no errors while a trial runs.
        """
        super().prepare(net, objective)
        self._check_loss(self.objective.loss)

    def _check_loss(self, loss: object) -> Loss:
        """Return a loss after a check."""
        if not isinstance(loss, Loss) or type(loss).online is Loss.online:
            online = [name for name in LOSSES if LOSSES.load(name).online is not Loss.online]
            name = type(loss).__name__ if isinstance(loss, Loss) else getattr(loss, "__name__", str(loss))
            raise RuleError(
                f"rule={self.name} learns while a trial runs, but {name} is known at its end alone; choose "
                f"loss= one of {', '.join(online)}, or write `online` of your loss; leave distillation out"
            )
        return loss

    def start(self, net: Network, batch: Batch) -> None:
        """Set the state of the errors to the start of a trial."""
        loss = self._check_loss(self.objective.loss if batch.loss is None else batch.loss)
        errors = loss.online(batch.labels, net.layers[-1].neurons.size, Grid(net.steps, net.dt))
        assert errors is not None
        self._errors = errors

    def responses(self, net: Network) -> list[Filter | None]:
        """Return the filter of the layer downstream for each layer; None for the output."""
        return [*(Filter(*net.decays(layer)) for layer in net.layers[1:]), None]

    def errors(self, net: Network, window: Window, is_end: bool) -> Tensor:
        """Return the next errors of the output `[W, B, C]`."""
        spikes = window.spikes[-1]
        output = window.membranes[-1] if spikes is None else spikes
        assert output is not None
        return self._errors.observe(output, is_end)

    def signals_upstream(self, signals: Tensor, slopes: Tensor | None, weight: Tensor) -> Tensor:
        """Return the learning signals of a layer with symmetric feedback, see `OnlineRule`."""
        return (signals if slopes is None else signals * slopes) @ weight

    def loss(self) -> float:
        """Return the mean loss of the batch."""
        return self._errors.loss()


@dataclass
class EProp(RTRL):
    """E-prop with fixed random feedback from the output to every hidden layer (Bellec et al. 2020).

    See `OnlineRule` for the settings.
    """

    solves: ClassVar[str] = "digits with a readout, by random feedback (experiment=eprop_digits)"
    feedback: str = "random"
