"""One training step of any rule: run, gradients, optimiser, constraints."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from hxtrain.finite import all_finite, first_not_finite
from hxtrain.network import Network, Write

from .constraints import Clamp, Constraint
from .rule import Batch, LearningRule, Step, weights_of


class LossNotFiniteError(ValueError):
    """The loss, a penalty or a gradient is NaN or infinite; no weight is changed."""


def learn(
    net: Network,
    rule: LearningRule,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    constraints: Sequence[Constraint] = (Clamp(),),
    before_step: Callable[[Step], Step | None] = lambda step: None,
) -> Step:
    """Run a batch, and change the weights by the gradients of a rule.

    Args:
        net: Network, attached to a device or in software.
        rule: Learning rule; it is prepared for the network in its first step, unless it is already.
        optimizer: Optimiser over the network's parameters; existing gradients are cleared.
        batch: Samples of the step.
        constraints: Restrictions of the weights, applied in order after the optimiser.
        before_step: Called with the step once the gradients exist, before the optimiser uses them. Processes that share
            a batch return the step of all of them.

    Raises:
        DeviceError: The device fails; no weight is changed.
        RuleError: The rule was prepared for another network.
        LossNotFiniteError: The loss, a penalty or a gradient is not finite; no weight is changed.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in parameters:
        parameter.grad = None  # as optimizer.zero_grad does, without its bookkeeping for torch's profiler
    if not rule.is_prepared:
        rule.prepare(net)
    rule.require_net(net)
    step = rule.step(net, batch)
    step = before_step(step) or step
    if not all_finite([parameter.grad for parameter in parameters if parameter.grad is not None]):
        raise _not_finite(net)
    previous = weights_of(net) if rule.watchers else []
    optimizer.step(lambda: step.loss)
    with torch.no_grad():
        for constraint in constraints:
            constraint.apply(net)
    if rule.watchers:
        write = Write(previous, weights_of(net), step.gradients)
        for watcher in rule.watchers:
            watcher.after_write(net, write)
    return step


def _not_finite(net: Network) -> LossNotFiniteError:
    """Return the error for a gradient that is not finite; an optimiser would spread it over all weights."""
    name = first_not_finite((name, p.grad) for name, p in net.named_parameters() if p.grad is not None)
    return LossNotFiniteError(f"the gradient of {name or 'a parameter outside the network'} is not finite")
