"""What learns in a training besides the weights: the rule, the loss and the regularisers, with their states."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from hxtrain.execution import device_of
from hxtrain.objectives.regularizers import default_penalties
from hxtrain.rules import Need, Objective, RuleError, require_fit
from hxtrain.runs.progress import Progress

from .parallel import Team
from .task import Task


class Learner:
    """The rule, the loss and the regularisers of a task, prepared for its network.

    Args:
        task: Learning task; its rule and its regularisers are copied.
        progress: Receiver of warnings.

    Attributes:
        rule: Learning rule.
        regularizers: Regularisers by name.

    Raises:
        RuleError: The rule cannot train the network on its device.
        TypeError: The state of rule or regularisers cannot be stored in a checkpoint.
    """

    def __init__(self, task: Task, progress: Progress) -> None:
        self.rule = copy.deepcopy(task.rule)
        self.regularizers = copy.deepcopy(dict(task.regularizers))
        self._task = task
        self._check(progress)
        task.loss.prepare(len(task.data.classes), task.data.targets)
        objective = (self.rule.pursued or Objective(task.loss))._replace(
            loss=task.loss, penalties=list(self.regularizers.values()), targets=task.data.targets
        )
        self.rule.prepare(task.net, objective)
        dict(self.tensors())
        with torch.no_grad():
            for constraint in task.constraints.values():
                constraint.prepare(task.net)

    def _check(self, progress: Progress) -> None:
        """Refuse a rule that cannot train the network or follow its teacher, and warn of penalties without effect."""
        rule = self.rule
        device = device_of(self._task.net)
        require_fit(rule, self._task.net, None if device is None else device.backend.capabilities)
        if self._task.teacher is not None and Need.LOSS not in rule.needs:
            raise RuleError(f"rule={rule.name} follows no loss, and so no teacher; leave distillation out")
        if self._task.teacher is not None and not rule.takes_teacher:
            raise RuleError(
                f"rule={rule.name} learns while a trial runs, but the loss of a teacher is known at its end "
                "alone; leave distillation out, or choose rule=backprop"
            )
        ignored = [name for name, penalty in self.regularizers.items() if penalty.strength > 0]
        is_named = self.regularizers != default_penalties()
        if ignored and is_named and Need.PENALTIES not in rule.needs:
            verb, pronoun = ("has", "it") if len(ignored) == 1 else ("have", "them")
            progress.warn(
                f"rule={rule.name} follows no penalties: regularizer {', '.join(ignored)} {verb} no effect; leave "
                f"{pronoun} out with regularizer=[]"
            )

    def require_shared_state(self, team: Team) -> None:
        """Refuse states of rule, loss or regularisers if several processes would each have another one.

        Raises:
            RuleError: There is such a state.
        """
        state = self.state_dict()
        states = {f"rule={self.rule.name}": state["rule"]} if self.rule.state_moves_weights else {}
        states |= {f"loss {type(self._task.loss).__name__}": state["loss"]}
        states |= {f"regularizer {name}": values for name, values in state["penalties"].items()}
        owners = [owner for owner, values in states.items() if values]
        if team.size > 1 and owners:
            raise RuleError(
                f"{' and '.join(owners)}: the state is learned from the samples of one process, and {team.size} "
                "processes do not share it; train in a single process, without torchrun, or without a state"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the rule, of the loss and of the regularisers, for a checkpoint."""
        penalties = {name: penalty.state_dict() for name, penalty in self.regularizers.items()}
        return {"rule": self.rule.state_dict(), "loss": self._task.loss.state_dict(), "penalties": penalties}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; old checkpoints lack it."""
        penalties = state.get("penalties", {})
        self.rule.load_state_dict(state.get("rule", {}))
        self._task.loss.load_state_dict(state.get("loss", {}))
        for name, penalty in self.regularizers.items():
            penalty.load_state_dict(penalties.get(name, {}))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors in the states, with names for an error text.

        Raises:
            TypeError: A state holds something else than tensors and plain values.
        """
        state = self.state_dict()
        for owner, values in {"the rule": state["rule"], "the loss": state["loss"], **state["penalties"]}.items():
            for name, value in values.items():
                yield from _tensors(f"{name} of {owner}", value)


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in a part of a state.

    Args:
        name: Name of the part, for errors.
        value: Tensor, plain value, or list or mapping of these.

    Raises:
        TypeError: The part holds something else, which no checkpoint could give back.
    """
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(name, part)
    elif type(value) not in (str, int, float, bool, type(None)):
        raise TypeError(f"{name} holds a {type(value).__name__}; a state consists of tensors and plain values")
