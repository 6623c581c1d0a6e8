"""Backpropagation: the gradient of a differentiable loss of the measured pass, through `Network.gradient`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.backends.intake import as_tensor
from hxtrain.checks import require_kind
from hxtrain.network import Activity, Network
from hxtrain.objectives import Regularizer
from hxtrain.objectives.losses import read_output
from hxtrain.objectives.regularizers import listed

from .rule import Batch, LearningRule, LossFunction, Need, Objective, RuleError, Step
from .step import LossNotFiniteError, learn


@dataclass(init=False)
class Backprop(LearningRule):
    """Descent of a loss and penalties by autograd; `Network.gradient` defines the derivative of a measured pass.

    It has no settings: loss and penalties are settings of a run.

    Args:
        loss: Loss of the output, for use without a trainer.
        penalties: Regularisers, a list or a mapping by name, for use without a trainer.
    """

    needs: ClassVar[frozenset[Need]] = frozenset(
        {Need.LOSS, Need.PENALTIES, Need.TARGETS, Need.INPUT_SPIKES, Need.SPIKES}
    )
    tells_loss: ClassVar[bool] = True
    solves: ClassVar[str] = "digits, MNIST 16x16, Fashion-MNIST 16x16, Yin-Yang (docs/results)"

    def __init__(
        self,
        loss: LossFunction | None = None,
        penalties: Iterable[Regularizer] | Mapping[str, Regularizer] = (),
    ) -> None:
        super().__init__()
        listed_penalties = listed(penalties)
        if loss is not None:
            self._objective = Objective(_function(loss), listed_penalties)
        elif listed_penalties:
            raise ValueError(
                "Backprop: penalties without a loss; give both, such as Backprop(MaxOverTime(), [Burst()])"
            )

    def prepare(self, net: Network, objective: Objective | None = None) -> None:
        """Prepare for a network and an objective, see `LearningRule.prepare`.

        Raises:
            RuleError: The loss reads spike times, which have no surrogate gradient.
        """
        loss = (objective or self.objective).loss
        if getattr(loss, "reads_times", False):
            raise RuleError(
                f"rule={self.name}: {type(loss).__name__} reads spike times, which have no surrogate gradient; choose "
                "rule=eventprop or rule=spikeprop, or another loss, such as loss=spike_count"
            )
        super().prepare(net, objective)

    def run(self, net: Network, batch: Batch) -> Activity:
        """Return the activity of a batch, in the graph of the weights."""
        activity: Activity = net(batch.spikes, batch.masks)
        return activity

    def step(self, net: Network, batch: Batch) -> Step:
        """Run a batch, and leave the gradient of loss and penalties in `.grad`; errors as in `descend`."""
        return descend(net, self.objective, batch, self.run(net, batch))


def descend(
    net: Network, objective: Objective, batch: Batch, activity: Activity, addition: Tensor | None = None
) -> Step:
    """Leave the gradient of loss and penalties in `.grad` by autograd.

    Args:
        net: Network of the pass.
        objective: Loss and penalties.
        batch: Samples of the pass.
        activity: Activity of the pass, in the graph of the weights.
        addition: Further term of the sum; None: none.

    Raises:
        ValueError: The loss is not a single number that depends on the output, or gradients are switched off.
        LossNotFiniteError: The loss, or its sum with the penalties, is not finite.
    """
    loss = batch.loss or objective.loss
    output = read_output(objective.loss, activity)
    answer = loss(output, as_tensor(batch.labels, "labels").to(output.device))
    _check_answer(answer)
    value = float(answer.detach())
    if not math.isfinite(value):
        raise LossNotFiniteError(f"the loss is {value}")
    penalties = _penalties(objective.penalties, activity, net)
    total = sum((penalty for _, penalty in penalties), start=answer)
    if addition is not None:
        total = total + addition
    if not math.isfinite(float(total.detach())):
        raise LossNotFiniteError(_not_finite(penalties))
    if not any(penalty.measures_loss for penalty in objective.penalties):
        total.backward()  # type: ignore[no-untyped-call]
        return Step(activity, value)
    additions = [penalty for _, penalty in penalties] + ([] if addition is None else [addition])
    return Step(activity, value, gradients=_separate_backward(net, answer, additions))


def train_step(
    net: Network,
    loss: LossFunction,
    regularizers: Iterable[Regularizer] | Mapping[str, Regularizer],
    optimizer: torch.optim.Optimizer,
    spikes: Spikes,
    labels: Tensor,
    masks: list[Tensor | None] | None = None,
    before_step: Callable[[Step], Step | None] = lambda step: None,
) -> Step:
    """Run a batch, and change the weights by backpropagation through the measured pass, see `Backprop` and `learn`.

    Args:
        net: Network, attached to a device or in software.
        loss: Function of the output `[T, B, classes]`, see `Activity.output`, and the labels `[B]`, such as
            `MaxOverTime()`.
        regularizers: Penalties to minimise in addition: a list, or a mapping by name as in `RunConfig`. Each is
            prepared in its first step, and keeps its state from then on.
        optimizer: Optimiser over `net.parameters()`; existing gradients are cleared.
        spikes: Input events of `B` samples.
        labels: True classes `[B]`.
        masks: Active neurons of each layer; None keeps all.
        before_step: Called with the step once the gradients exist, before the optimiser uses them.

    Raises:
        DeviceError: The device fails; no weight is changed.
        TypeError: An argument is of the wrong type.
        ValueError: The loss is not a single number that depends on the output, or gradients are switched off.
        LossNotFiniteError: The loss, its sum with the penalties, or a gradient is not finite; no weight is changed.
    """
    require_kind(net, Network, "net", "train_step(net, loss, regularizers, optimizer, spikes, labels)")
    require_kind(optimizer, torch.optim.Optimizer, "optimizer", "give torch.optim.Adam(net.parameters())")
    rule = Backprop(loss, regularizers)
    rule.objective.check(net)
    for penalty in rule.objective.penalties:
        if not penalty.is_prepared:
            penalty.prepare(net)
            penalty.is_prepared = True
    rule.collect_watchers()
    return learn(net, rule, optimizer, Batch(spikes, labels, masks), before_step=before_step)


def _function(loss: LossFunction) -> LossFunction:
    """Return a loss after a check of its type."""
    if isinstance(loss, type) or not callable(loss):
        raise TypeError(f"loss: expected a function of output and labels, got {loss!r:.60}; give MaxOverTime()")
    return loss


def _penalties(
    regularizers: Sequence[Regularizer], activity: Activity, net: Network
) -> list[tuple[Regularizer, Tensor]]:
    """Return the active regularisers with their penalties."""
    active = [regularizer for regularizer in regularizers if regularizer.strength > 0]
    if not active:
        return []
    weights = net.effective_weights()
    return [(regularizer, regularizer(activity, weights)) for regularizer in active]


def _separate_backward(net: Network, answer: Tensor, additions: Sequence[Tensor]) -> list[Tensor | None]:
    """Leave the gradient of loss and additions in `.grad`; returns that of the loss alone, see `Write.gradients`."""
    answer.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    gradients = [p.synapses.weight.grad for p in net.projections]
    copies = [None if gradient is None else gradient.clone() for gradient in gradients]
    learned = [addition for addition in additions if addition.requires_grad]
    if learned:
        torch.autograd.backward(learned)
    return copies


def _check_answer(answer: Tensor) -> None:
    """Raise an error unless the result of a loss function is a single number with a gradient."""
    if not torch.is_grad_enabled():
        raise ValueError("gradients are switched off; call train_step outside torch.no_grad()")
    if not isinstance(answer, Tensor) or answer.numel() != 1 or not answer.requires_grad:
        shape = f" {list(answer.shape)}" if isinstance(answer, Tensor) else ""
        raise ValueError(
            f"the loss function gave {type(answer).__name__}{shape}, expected a tensor of one number with a gradient; "
            "compute it from the output [T, B, classes] by torch's functions, without .detach() or .item()"
        )


def _not_finite(penalties: Sequence[tuple[Regularizer, Tensor]]) -> str:
    """Return a text that names the penalty that is not finite, or the sum of loss and penalties."""
    for regularizer, penalty in penalties:
        value = float(penalty.detach())
        if not math.isfinite(value):
            return f"the penalty of {type(regularizer).__name__} is {value}"
    return "the sum of loss and penalties is not finite"
