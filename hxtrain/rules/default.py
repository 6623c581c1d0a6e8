"""The optimiser that goes with a rule, unless a run names another."""

from __future__ import annotations

from .optimizers import OPTIMIZERS, Optimizer
from .rule import LearningRule


def default_optimizer(rule: LearningRule | type[LearningRule]) -> Optimizer:
    """Return the optimiser of a rule with its default settings.

    Args:
        rule: Learning rule, or its class. `LearningRule.optimizer` names the optimiser; else it is plain descent for a
            local rule, whose `.grad` holds the change itself, and Adam for a gradient.
    """
    return OPTIMIZERS[optimizer_name(rule)]()


def optimizer_name(rule: LearningRule | type[LearningRule]) -> str:
    """Return the registered name of the optimiser of a rule, see `default_optimizer`."""
    return rule.optimizer or ("sgd" if rule.is_local else "adam")


def optimizer_warnings(rule: LearningRule, optimizer: Optimizer) -> list[str]:
    """Return a warning of an optimiser that turns the change of a local rule into another one; empty if it does not."""
    name = OPTIMIZERS.name_of(type(optimizer))
    if not rule.is_local or not optimizer.is_adaptive or name == optimizer_name(rule):
        return []
    return [
        f"optimizer={name} chooses steps of its own, so that the weights do not change as rule={rule.name} says: leave "
        f"it out, or choose optimizer={optimizer_name(rule)}"
    ]
