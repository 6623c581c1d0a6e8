"""The seam of learning: what turns a batch into gradients of the weights.

A learning rule runs the network and leaves its result in `.grad` of the weights, as a gradient to descend. The rest is
common to all rules: processes average gradients, the optimiser changes the weights, constraints restrict them, and
whoever watches the weights learns what was written, see `learn`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple
from weakref import ReferenceType, ref

import torch
from torch import Tensor

from hxtrain.backends import Capabilities, Registry, Spikes
from hxtrain.checks import check_types
from hxtrain.gradients import Gradient
from hxtrain.network import Activity, Network, Write
from hxtrain.objectives import Loss, Regularizer
from hxtrain.objectives.losses import check_output
from hxtrain.objectives.rewards import RewardSource

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Loss of a batch, a function of the output `[T, B, classes]` and the labels `[B]`."""


class Need(str, Enum):
    """What a learning rule reads."""

    INPUT_SPIKES = "input spikes"
    SPIKES = "spikes"
    MEMBRANES = "membranes"
    TARGETS = "targets"
    TRAINS = "target spike trains"
    REWARD = "reward"
    LOSS = "loss"
    PENALTIES = "penalties"


class RuleError(ValueError):
    """A learning rule lacks what it needs; the text lists every misfit with a remedy."""


class Step(NamedTuple):
    """Measurements of a step.

    Attributes:
        activity: Activity of the network.
        loss: Loss without penalties.
        metrics: Further means over the samples, by name, see `LearningRule.metrics`.
        gradients: Gradients of the loss without penalties, see `Write.gradients`.
    """

    activity: Activity
    loss: float
    metrics: Mapping[str, float] = MappingProxyType({})
    gradients: list[Tensor | None] | None = None


class Batch(NamedTuple):
    """The samples of a step.

    Attributes:
        spikes: Input events of `B` samples.
        labels: True classes `[B]`.
        masks: Active neurons of each layer; None keeps all.
        loss: Loss of this batch, where it differs from the objective's, as with a teacher.
    """

    spikes: Spikes
    labels: Tensor
    masks: list[Tensor | None] | None = None
    loss: LossFunction | None = None


def correctness(scores: Tensor, labels: Tensor) -> Tensor:
    """Return a reward `[B]`: 1 for a right answer, else 0.

    Args:
        scores: Scores of the classes `[B, classes]`.
        labels: True classes `[B]`.
    """
    return (scores.argmax(1) == labels).to(scores.dtype)


class Objective(NamedTuple):
    """What a rule pursues.

    Attributes:
        loss: Loss of the output.
        penalties: Regularisers of activity and weights.
        reward: Reward `[B]` of scores `[B, classes]` and labels `[B]`, or rewards at times, for rules that learn from
            reward.
        targets: Target spike trains of the classes, of sample c for class c; None: the data have none.
    """

    loss: LossFunction
    penalties: Sequence[Regularizer] = ()
    reward: Callable[[Tensor, Tensor], Tensor] | RewardSource = correctness
    targets: Spikes | None = None

    def check(self, net: Network) -> None:
        """Raise an error for a network that cannot pursue this.

        Raises:
            ValueError: Nothing is learned, or the loss or a penalty reads another kind of output than the network has.
        """
        net.check_training()
        check_output(net, self.loss, *self.penalties)


@dataclass
class LearningRule(ABC):
    """Base of learning rules; a subclass is a dataclass whose fields are its settings.

    A rule is prepared for one network at a time. Its state consists of tensors and plain values outside the fields,
    made by `prepare`.

    Attributes:
        needs: What the rule reads; a network or a device that lacks it is refused before anything runs. Penalties and
            the teacher of a rule that does not read them have no effect, which the trainer says.
        is_local: Whether `.grad` holds the negative change of the weights rather than a gradient; such a rule goes with
            plain descent, `optimizer=sgd`.
        optimizer: Registered name of the optimiser that a run takes unless it names another. An empty one stands for
            `sgd` of a local rule, else `adam`.
        solves: Task that the rule was shown to solve, in a few words.
        gradient_kind: Gradient by which the rule differentiates passes; a run takes it instead of the gradient that its
            settings name, so that a device records what it reads. None: that of the settings.
        takes_teacher: Whether a rule that reads the loss can follow that of a teacher, which is known at the end of a
            trial alone.
        metrics: Names of the metrics that each step returns; the records of a run hold their means per epoch.
        state_moves_weights: Whether the state enters the changes of weights. Processes that share a batch have states
            of their own; they are refused if the state enters.
        watches_writes: Whether `after_write` is called; without a watcher no copy of the weights is made.
        tells_loss: Whether a step tells the gradients of the loss without penalties, for penalties that read them.
        watchers: What watches writes, of the rule and its penalties; made by `prepare`.
    """

    needs: ClassVar[frozenset[Need]]
    is_local: ClassVar[bool] = False
    optimizer: ClassVar[str] = ""
    solves: ClassVar[str] = ""
    gradient_kind: ClassVar[type[Gradient] | None] = None
    takes_teacher: ClassVar[bool] = True
    metrics: ClassVar[tuple[str, ...]] = ()
    state_moves_weights: ClassVar[bool] = True
    watches_writes: ClassVar[bool] = False
    tells_loss: ClassVar[bool] = False

    def __post_init__(self) -> None:
        try:
            check_types(self, "rule.")
        except ValueError as error:
            raise self._without_loss() or error from None
        self._objective: Objective | None = None
        self._net: ReferenceType[Network] | None = None
        self.is_prepared = False
        self.watchers: list[LearningRule | Regularizer] = []

    def _without_loss(self) -> RuleError | None:
        """Return the error for a loss or a penalty in the place of a setting; None if there is none."""
        name = type(self).__name__
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Loss | Regularizer):
                part = type(value).__name__
                word = f"loss={part}()" if isinstance(value, Loss) else f"penalties=[{part}()]"
                return RuleError(
                    f"{name}({part}()): {name} takes settings, no loss and no penalties; give them to the training: "
                    f"hx.fit(net, data, {name}(), {word}), or rule.prepare(net, Objective(loss, penalties))"
                )
        return None

    @property
    def pursued(self) -> Objective | None:
        """Objective that the rule has already; None if it has none yet."""
        return self._objective

    @property
    def objective(self) -> Objective:
        """What the rule pursues.

        Raises:
            ValueError: The rule has none yet.
        """
        if self._objective is None:
            raise ValueError(f"rule={self.name} pursues nothing yet; call rule.prepare(net, Objective(loss))")
        return self._objective

    def prepare(self, net: Network, objective: Objective | None = None) -> None:
        """Make the state for a network and an objective; a subclass that has state extends this.

        Args:
            net: Network to train.
            objective: Loss and penalties; None: those that the rule has already.

        Raises:
            ValueError: The network cannot pursue the objective, see `Objective.check`; or the rule has none.
            RuleError: A penalty reads gradients of the loss, which the rule does not tell.
        """
        self._objective = objective = objective or self.objective
        objective.check(net)
        for penalty in objective.penalties:
            if penalty.measures_loss and Need.PENALTIES in self.needs and not self.tells_loss:
                raise RuleError(
                    f"rule={self.name} does not tell the gradient of the loss alone, which {type(penalty).__name__} "
                    "reads; choose rule=backprop, adm or eventprop, or another penalty, such as regularizer=ewc"
                )
        self._net = ref(net)
        for penalty in objective.penalties:
            penalty.prepare(net)
            penalty.is_prepared = True
        self.collect_watchers()

    def collect_watchers(self) -> None:
        """Collect the watchers; `prepare` calls this once every state is made."""
        candidates: list[LearningRule | Regularizer] = [self, *self.objective.penalties]
        self.watchers = [candidate for candidate in candidates if candidate.watches_writes]
        self.is_prepared = True

    def require_net(self, net: Network) -> None:
        """Refuse a network for which the rule was not prepared; its state belongs to another one.

        Raises:
            RuleError: The rule was prepared for another network.
        """
        if self._net is not None and self._net() is not net:
            raise RuleError(
                f"rule={self.name} was prepared for another network; call rule.prepare(net, objective), or take "
                "another instance of the rule"
            )

    def check(self, net: Network, capabilities: Capabilities | None) -> list[str]:
        """Return a text with a remedy for each misfit; empty if the rule can train the network.

        Args:
            net: Network to train.
            capabilities: Capabilities of its device; None in software.
        """
        if Need.MEMBRANES not in self.needs or capabilities is None:
            return []
        if not capabilities.traces:
            return [
                f"{self.name} reads membranes, but the device {capabilities.name!r} records none; choose a rule that "
                "reads spikes alone, or a device with traces"
            ]
        return []

    @property
    def name(self) -> str:
        """Registered name of the rule."""
        return RULES.name_of(type(self))

    @abstractmethod
    def step(self, net: Network, batch: Batch) -> Step:
        """Run a batch, and leave the gradient of each learned weight in its `.grad`.

        Gradients are None at the start. A rule that does not use autograd runs the network in `torch.no_grad()`.
        """

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """Return warnings with a remedy at the end of an epoch; each kind, its first three words, is shown once.

        Args:
            metrics: Means of the epoch, by the names of `metrics`.
        """
        return []

    def after_write(self, net: Network, write: Write) -> None:  # noqa: B027 - a hook
        """Take note of a change of the weights; called after each step if `watches_writes`."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint: tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned, after `prepare`.

        Raises:
            ValueError: The state belongs to another rule.
        """
        if state:
            raise ValueError(f"the checkpoint has a state of {', '.join(state)}, but {self.name} has none")


RULES: Registry[type[LearningRule]] = Registry("rules", "rule", LearningRule)
"""Learning rules by name."""


def require_fit(rule: LearningRule, net: Network, capabilities: Capabilities | None) -> None:
    """Raise an error that lists every reason for which a rule cannot train a network on a device.

    Raises:
        RuleError: There is at least one misfit.
    """
    misfits = rule.check(net, capabilities)
    if misfits:
        lines = "\n".join(f"  {number}. {text}" for number, text in enumerate(misfits, 1))
        raise RuleError(f"rule={rule.name} cannot train this network:\n{lines}")


@torch.no_grad()
def weights_of(net: Network) -> list[Tensor]:
    """Return copies of the weights as the network's device represents them, see `Write`."""
    return [weight.clone() for weight in net.representable_weights()]
