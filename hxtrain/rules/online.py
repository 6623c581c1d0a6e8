"""Rules that learn while a trial runs: learning signals, surrogate derivatives and traces meet at the synapses.

`eligibility.py` has the equations. A rule says which filter of spikes its errors see, and how errors of the output
become learning signals of the hidden layers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from hxtrain.backends import Capabilities
from hxtrain.checks import one_of
from hxtrain.checks import seed as check_seed
from hxtrain.gradients import SurrogateGradient
from hxtrain.network import Activity, Network
from hxtrain.neurons import GroupedEvents, Model
from hxtrain.neurons.engines.readable import surrogate_slopes

from .eligibility import Eligibilities, Filter
from .feedback import FEEDBACKS, fixed_feedback
from .rule import Batch, Need, Objective, RuleError
from .streaming import StreamingRule, Window


class Steps(NamedTuple):
    """Consecutive time steps of all layers.

    Attributes:
        inputs: Numbers of input events `[W, B, J]`.
        spikes: Spikes of each layer `[W, B, N]`; None for a readout.
        slopes: Surrogate derivatives of each layer `[W, B, N]`; None for a readout.
    """

    inputs: Tensor
    spikes: list[Tensor | None]
    slopes: list[Tensor | None]

    def part(self, first: int | None, last: int | None) -> Steps:
        """Return the steps `first` to `last` (exclusive)."""
        return Steps(
            self.inputs[first:last],
            [None if values is None else values[first:last] for values in self.spikes],
            [None if values is None else values[first:last] for values in self.slopes],
        )

    def followed_by(self, following: Steps) -> Steps:
        """Return these steps and the ones after them."""
        return Steps(
            torch.cat([self.inputs, following.inputs]),
            [_joined(*pair) for pair in zip(self.spikes, following.spikes, strict=True)],
            [_joined(*pair) for pair in zip(self.slopes, following.slopes, strict=True)],
        )


def _joined(previous: Tensor | None, following: Tensor | None) -> Tensor | None:
    return None if previous is None or following is None else torch.cat([previous, following])


@dataclass
class OnlineRule(StreamingRule):
    """Base of rules with eligibilities.

    Attributes:
        window: Time steps at a time. Results do not depend on it; cost does: synapses are touched once per window,
            and a trial of a single window costs least.
        feedback: Way of the errors to hidden layers: `symmetric` (the transposed weights, layer by layer), or directly
            from the output by fixed weights, `random` or `uniform` (all the same).
        feedback_seed: Seed of random feedback.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUT_SPIKES, Need.SPIKES, Need.MEMBRANES, Need.PENALTIES})
    takes_teacher: ClassVar[bool] = False
    window: int = 128
    feedback: str = "symmetric"
    feedback_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(FEEDBACKS)("rule.feedback", self.feedback)
        check_seed("rule.feedback_seed", self.feedback_seed)

    def check(self, net: Network, capabilities: Capabilities | None) -> list[str]:
        """Refuse what eligibilities do not know, see `LearningRule.check`."""
        misfits = super().check(net, capabilities)
        if net.saturation is not None:
            misfits.append(
                f"network.saturation={net.saturation:g} is not known to {self.name}, whose synapses are linear; leave "
                "it out, or choose rule=backprop"
            )
        if net.torch_device.type != "cpu":
            misfits.append(
                f"{self.name} computes on the CPU, but the weights are on {net.torch_device}; call net.cpu(), or "
                "choose rule=backprop"
            )
        return misfits

    def prepare(self, net: Network, objective: Objective | None = None) -> None:
        """Make the state for a network and an objective.

        Raises:
            RuleError: A penalty is known at the end of a trial alone.
        """
        super().prepare(net, objective)
        self._penalties = [penalty for penalty in self.objective.penalties if penalty.strength > 0]
        for penalty in self._penalties:
            if penalty.online([]) is None:
                raise RuleError(
                    f"rule={self.name} learns while a trial runs, but the penalty {type(penalty).__name__} is known at "
                    "its end alone; leave it out (regularizer=[...] without it), or write `online` of your penalty"
                )

    @abstractmethod
    def start(self, net: Network, batch: Batch) -> None:
        """Set the state of the errors to the start of a trial."""

    @abstractmethod
    def responses(self, net: Network) -> list[Filter | None]:
        """Return the filter through which errors see the spikes of each layer; None where they see the membranes."""

    @abstractmethod
    def errors(self, net: Network, window: Window, is_end: bool) -> Tensor:
        """Return the next errors of the output `[W, B, C]`.

        They may lag behind the window; at the end of a trial none is left.
        """

    @abstractmethod
    def signals_upstream(self, signals: Tensor, slopes: Tensor | None, weight: Tensor) -> Tensor:
        """Return the learning signals of a layer with symmetric feedback.

        Args:
            signals: Learning signals of the layer downstream `[W, B, M]`.
            slopes: Its surrogate derivatives `[W, B, M]`; None for a readout.
            weight: Weights onto it `[M, N]`.
        """

    @abstractmethod
    def loss(self) -> float:
        """Return the mean loss of the batch."""

    def begin(self, net: Network, batch: Batch) -> None:
        """Set the state of a trial to its start."""
        self._weights = [weight.detach() for weight in net.effective_weights(batch.masks)]
        dtype = self._weights[0].dtype
        samples = batch.spikes.samples
        self._eligibilities: list[Eligibilities | None] = []
        for layer, response in zip(net.layers, self.responses(net), strict=True):
            for projection in layer.projections:
                post, pre = projection.synapses.weight.shape
                is_learned = projection.synapses.is_trainable
                eligibilities = Eligibilities((samples, pre, post), Filter(*net.decays(layer)), response, dtype)
                self._eligibilities.append(eligibilities if is_learned else None)
        sizes = [layer.neurons.size for layer in net.layers]
        self._feedback = (
            None
            if self.feedback == "symmetric"
            else fixed_feedback(self.feedback, sizes[-1], sizes[:-1], self.feedback_seed, dtype)
        )
        self._pending: Steps | None = None
        self._counts: list[Tensor] = []
        self.start(net, batch)

    def observe(self, net: Network, batch: Batch, window: Window) -> None:
        """Take the next time steps of all samples."""
        is_end = window.first + len(window.inputs) >= net.steps
        steps = Steps(window.inputs, window.spikes, _slopes(net, window))
        if self._pending is not None:
            steps = self._pending.followed_by(steps)
        errors = self.errors(net, window, is_end)
        judged = steps.part(None, len(errors))
        self._pending = None if is_end else steps.part(len(errors), None)
        if len(errors) == 0:  # all of the window waits for its errors
            return
        signals = self._signals(net, errors, judged.slopes)
        excess = [*self._excess(judged), None]
        sources: Sequence[Tensor | GroupedEvents | None] = window.events or [judged.inputs, *judged.spikes]
        queue = iter(self._eligibilities)
        for number, layer in enumerate(net.layers):
            for inputs in sources[number : number + len(layer.projections)]:
                eligibilities = next(queue)
                if eligibilities is not None:
                    assert inputs is not None
                    eligibilities.observe(inputs, judged.slopes[number], signals[number], is_end, excess[number])

    def finish(self, net: Network, batch: Batch, activity: Activity) -> float:
        """Leave the gradients in `.grad`; returns the mean loss of the batch."""
        with torch.enable_grad():
            weights = net.effective_weights(batch.masks)
            learned = [
                (weight, eligibilities.gradient.to(weight))
                for weight, eligibilities in zip(weights, self._eligibilities, strict=True)
                if eligibilities is not None
            ]
            penalties = [penalty(activity, net.effective_weights()) for penalty in self._penalties]
            penalties = [penalty for penalty in penalties if penalty.requires_grad]
            torch.autograd.backward(
                [*(weight for weight, _ in learned), *penalties],
                [*(gradient for _, gradient in learned), *(None for _ in penalties)],
            )
        return self.loss()

    def state_size(self) -> int:
        """Return how many numbers the synapses keep within a trial, whatever its length."""
        return sum(0 if eligibilities is None else eligibilities.state_size for eligibilities in self._eligibilities)

    def _excess(self, steps: Steps) -> list[Tensor | None]:
        """Return the derivative of the penalties with respect to the spikes of each hidden layer `[W, B, N]`."""
        hidden = [spikes for spikes in steps.spikes[:-1] if spikes is not None]
        sums: list[Tensor | None] = [None] * len(hidden)
        if not self._penalties:
            return sums
        counts = [spikes.cumsum(0) for spikes in hidden]
        for layer, previous in zip(counts, self._counts, strict=False):
            layer += previous
        self._counts = [layer[-1] for layer in counts]
        for penalty in self._penalties:
            for number, part in enumerate(penalty.online(counts) or []):
                present = sums[number]
                sums[number] = part if present is None else present + part
        return sums

    def _signals(self, net: Network, errors: Tensor, slopes: list[Tensor | None]) -> list[Tensor]:
        """Return the learning signals of each layer `[W, B, N]`."""
        if self._feedback is not None:
            return [*(errors @ weight for weight in self._feedback), errors]
        signals = [errors]
        forward = [weights[0] for weights in net.by_layer(self._weights)]
        for weight, downstream in zip(forward[:0:-1], slopes[:0:-1], strict=True):
            signals.insert(0, self.signals_upstream(signals[0], downstream, weight))
        return signals


def _slopes(net: Network, window: Window) -> list[Tensor | None]:
    """Return the surrogate derivatives of each layer `[W, B, N]`; None for a readout."""
    return [
        None if spikes is None or membranes is None else surrogate_slopes(_model(net, model), spikes, membranes)
        for model, spikes, membranes in zip(net.models(), window.spikes, window.membranes, strict=True)
    ]


def _model(net: Network, model: Model) -> Model:
    """Return the model of a layer, with the surrogate of the network's gradient where that has one."""
    return net.gradient.replaced(model) if isinstance(net.gradient, SurrogateGradient) else model
