"""Training in a call, for Python: a network, data, and as many words as differ from the defaults."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from hxtrain.checks import mapping, require_kind, text
from hxtrain.datasets import Dataset
from hxtrain.datasets.augment import Augmentation
from hxtrain.datasets.encoders import Encoder, LatencyEncoder
from hxtrain.network import Activity, Network
from hxtrain.objectives import Loss, MaxOverTime, Regularizer
from hxtrain.rules import Adam, Backprop, Clamp, Constraint, LearningRule, Optimizer
from hxtrain.runs.progress import Progress

from .config import TrainerConfig
from .evaluation import Evaluation
from .trainer import Task, Trainer

REMEDY = "fit(net, data, epochs=5)"


class Fit(NamedTuple):
    """What a training gave.

    Attributes:
        evaluation: Evaluation after the last epoch.
        records: One record per epoch: loss, accuracies, spikes, time.
    """

    evaluation: Evaluation
    records: list[dict[str, Any]]

    @property
    def accuracy(self) -> float:
        """Share of right answers on the test data after the last epoch."""
        return self.evaluation.accuracy


@dataclass
class FunctionPenalty(Regularizer):
    """A penalty that is a function of the user.

    Attributes:
        function: Function of the activity of a pass and the weights of each projection; returns one number.
    """

    strength: float = 1.0
    function: Callable[[Activity, list[Tensor]], Tensor] = field(kw_only=True)

    def penalty(self, activity: Activity, weights: list[Tensor]) -> Tensor:
        """Return what the function gives."""
        return self.function(activity, weights)


def fit(
    net: Network,
    data: Dataset,
    rule: LearningRule | None = None,
    *,
    encoder: Encoder | None = None,
    loss: Loss | None = None,
    penalties: Iterable[Any] | Mapping[str, Any] = (),
    optimizer: Optimizer | None = None,
    constraints: Mapping[str, Constraint] | None = None,
    augment: Augmentation | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool | Progress = True,
    **settings: Any,
) -> Fit:
    """Train a network on the training part of a data set, and evaluate it on the test part after each epoch.

    Args:
        net: Network, attached to a device or in software.
        data: Data set with training and test part.
        rule: Learning rule; None: `Backprop`. `Backprop(loss, penalties)` replaces `loss` and `penalties`.
        encoder: Code from samples to input events; None: `LatencyEncoder()`.
        loss: Loss, which also turns outputs into answers; None: `MaxOverTime()`.
        penalties: Regularisers, or functions of activity and weights: a list, or a mapping by name.
        optimizer: Settings of the optimiser; None: `Adam()`.
        constraints: Restrictions of the weights by name; None: the clamp to the range of the device.
        augment: Distortion of training images; None for none.
        seed: Seed of data order, dropout, augmentation and jitter.
        folder: Run directory for checkpoints and metrics, with `resume=True` to continue; None: nothing is kept but the
            weights.
        progress: Whether to show epochs and a bar, or the receiver of reports.
        settings: Settings of the training loop, see `TrainerConfig`: `epochs=5, batch_size=50, learning_rate=3e-3`.

    Raises:
        TypeError: An argument is of the wrong type, or a setting is not known.
        ValueError: A setting is out of range, or the training diverges.
        RuleError: The rule cannot train the network on its device.
        DeviceError: The device fails permanently; with a folder the state before is saved there.
    """
    require_kind(net, Network, "net", REMEDY)
    rule = Backprop() if rule is None else rule
    require_kind(rule, LearningRule, "rule", "give Backprop()")
    config = _loop_settings({"progress": bool(progress), "plots": False, **settings})
    if folder is None and config.resume:
        raise ValueError("resume=True needs the run directory: give folder=...")
    pursued = rule.pursued
    loss = loss or (MaxOverTime() if pursued is None else pursued.loss)  # type: ignore[assignment]
    chosen = penalties if pursued is None else pursued.penalties
    task = Task(
        net,
        encoder or LatencyEncoder(),
        loss,  # type: ignore[arg-type]
        _by_name(chosen),
        data,
        augment or Augmentation(),
        rule=rule,
        optimizer=optimizer or Adam(),
        constraints={"clamp": Clamp()} if constraints is None else constraints,
    )
    reports = progress if isinstance(progress, Progress) else Progress(bool(progress))
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(text("folder", folder)) as place:
        Path(place).mkdir(parents=True, exist_ok=True)
        trainer = Trainer(task, config, seed, place, {}, reports)
        return Fit(trainer.fit(), trainer.records)


def _loop_settings(settings: dict[str, Any]) -> TrainerConfig:
    """Return the settings of the training loop.

    Raises:
        TypeError: A name is not known; the text names the nearest one.
    """
    names = [item.name for item in fields(TrainerConfig)]
    for name in settings:
        if name not in names:
            nearest = get_close_matches(name, names, 1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(names)}"
            raise TypeError(f"fit has no argument {name!r}; {hint}")
    return TrainerConfig(**settings)


def _by_name(penalties: Iterable[Any] | Mapping[str, Any]) -> dict[str, Regularizer]:
    """Return regularisers by name; functions become regularisers."""
    if isinstance(penalties, Mapping):
        named = dict(mapping("penalties", penalties))
    else:
        named = {f"{number}_{_name(penalty)}": penalty for number, penalty in enumerate(penalties)}
    return {name: _regularizer(penalty) for name, penalty in named.items()}


def _name(penalty: Any) -> str:
    return str(getattr(penalty, "__name__", type(penalty).__name__)).lower()


def _regularizer(penalty: Any) -> Regularizer:
    if isinstance(penalty, Regularizer | type) or not callable(penalty):
        require_kind(penalty, Regularizer, "penalties", "give instances, such as [Burst()], or functions")
        return penalty  # type: ignore[no-any-return]
    return FunctionPenalty(function=penalty)
