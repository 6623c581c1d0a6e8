"""Training in a call, for Python: a network, data, and as many words as differ from the defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from hxtrain.checks import require_kind, text
from hxtrain.console import html_table
from hxtrain.datasets import Dataset
from hxtrain.datasets.augment import Augmentation, ImageAugmentation
from hxtrain.datasets.encoders import Encoder, LatencyEncoder
from hxtrain.datasets.sequences import SingleTask, TaskSequence
from hxtrain.execution import device_of
from hxtrain.network import Network
from hxtrain.objectives import Loss
from hxtrain.objectives.functions import as_loss, named_penalties
from hxtrain.objectives.heads import Heads
from hxtrain.objectives.losses import default_loss
from hxtrain.rules import Backprop, Clamp, Constraint, LearningRule, Optimizer, default_optimizer
from hxtrain.runs.progress import Progress, Warnings
from hxtrain.trackers import TrackedRun, Tracker, named_trackers, require_trackers, tracked

from .config import FREE_TO_CHANGE, TrainerConfig
from .evaluation import Evaluation
from .retraining import steps_done, train
from .sequence import task_loss, trainer_of
from .task import Task

REMEDY = "fit(net, data, epochs=5)"
SHOWN = ("train_loss", "train_accuracy", "test_accuracy", "seconds")
"""Entries of the records that a notebook shows."""
SHOWN_EPOCHS = 10
"""Largest number of epochs that a notebook shows, the last ones."""


class Fit(NamedTuple):
    """What a training gave.

    Attributes:
        evaluation: Evaluation that counts: after the last epoch; with `choose="best"`, of the chosen weights, on the
            test samples if training samples were held out.
        records: One record per epoch: loss, accuracies, spikes, time.
        selection: What the epoch was chosen on (`selected_on`), its number (`selected_epoch`), its accuracy on held out
            samples (`validation_accuracy`), and whether the network was `retrained`; of a sequence of tasks also the
            `accuracy_matrix`, its `mean_accuracy`, `forgetting` and the like, see `AccuracyMatrix`.
    """

    evaluation: Evaluation
    records: list[dict[str, Any]]
    selection: Mapping[str, Any] = MappingProxyType({})

    @property
    def accuracy(self) -> float:
        """Share of right answers of the evaluation."""
        return self.evaluation.accuracy

    def __repr__(self) -> str:
        """Return a line, since a notebook shows the last value of a cell."""
        return f"Fit(accuracy={self.accuracy:.4g}, {len(self.records)} epochs)"

    def _repr_html_(self) -> str:
        """Return a table of the last epochs for a notebook."""
        rows = [
            [record["epoch"], *("-" if record[name] is None else f"{record[name]:.4g}" for name in SHOWN)]
            for record in self.records[-SHOWN_EPOCHS:]
        ]
        return html_table(["epoch", *(name.replace("_", " ") for name in SHOWN)], rows, repr(self))


def fit(
    net: Network,
    data: Dataset,
    rule: LearningRule | None = None,
    *,
    encoder: Encoder | None = None,
    loss: Loss | Callable[[Tensor, Tensor], Tensor] | None = None,
    penalties: Iterable[Any] | Mapping[str, Any] = (),
    optimizer: Optimizer | None = None,
    constraints: Mapping[str, Constraint] | None = None,
    augment: Augmentation | None = None,
    tasks: TaskSequence | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool | Progress = True,
    trackers: Iterable[Tracker] | Mapping[str, Tracker] = (),
    **settings: Any,
) -> Fit:
    """Train a network on the training part of a data set, and evaluate it on the test part after each epoch.

    With held out samples (`hx.load_dataset` and `hold_out_groups`, or `DataConfig`), each epoch is evaluated on these.
    `choose="best"` then takes the best epoch, and evaluates the test part once.

    Args:
        net: Network, attached to a device or in software.
        data: Data set with training and test part.
        rule: Learning rule; None: `Backprop`. A rule with an objective, such as `Backprop(loss, penalties)`, takes the
            place of `loss` and `penalties`.
        encoder: Code from samples to input events; None: `LatencyEncoder()`.
        loss: Loss, which also turns outputs into answers, or a function of output and labels; None: `MaxOverTime()`,
            for a spiking output `SpikeCount()`.
        penalties: Regularisers, or functions of activity and weights: a list, or a mapping by name.
        optimizer: Settings of the optimiser; None: that of the rule, `Adam()` for a gradient, `SGD()` for a local rule.
        constraints: Restrictions of the weights by name; None: the clamp to the range of the device.
        augment: Distortion of training samples; None for none.
        tasks: Sequence of tasks made of the data, such as `PermutedTasks(3)`, each trained for `epochs`; None: the data
            are one task.
        seed: Seed of data order, dropout, augmentation and jitter.
        folder: Run directory for checkpoints and metrics, with `resume=True` to continue; None: nothing stays but the
            weights.
        progress: Whether to show epochs and a bar besides warnings, or the receiver of reports.
        trackers: Where the training is logged besides: a list, such as `[TensorBoard(folder="logs")]`, or a mapping by
            name. One that fails is left out, with a warning.
        settings: Settings of the training loop, see `TrainerConfig`: `epochs=5, batch_size=50, learning_rate=3e-3`.

    Raises:
        TypeError: An argument is of the wrong type, or a setting is not known.
        ValueError: A setting is out of range, loss or penalties are given twice, or the training diverges.
        RuleError: The rule cannot train the network on its device.
        TrackerError: A tracker cannot be used at all, since its library or a folder is missing.
        DeviceError: The device fails permanently; with a folder the state before is saved there.
    """
    require_kind(net, Network, "net", REMEDY)
    require_kind(data, Dataset, "data", "give hx.load_dataset('digits'), or a Dataset of your own")
    rule = Backprop() if rule is None else rule
    require_kind(rule, LearningRule, "rule", "give Backprop()")
    config = _loop_settings({"progress": bool(progress), "plots": False, **settings})
    if folder is None and config.resume:
        raise ValueError("resume=True needs the run directory: give folder=...")
    pursued = rule.pursued
    if pursued is not None and (loss is not None or penalties):
        raise ValueError(
            f"loss and penalties are given twice: rule={rule.name} has its own; give them to the rule, or to fit"
        )
    named = named_trackers(trackers)
    require_trackers(named, None if folder is None else Path(text("folder", folder)), config.resume)
    tasks = SingleTask() if tasks is None else tasks
    require_kind(tasks, TaskSequence, "tasks", "give PermutedTasks(3)")
    chosen_loss = (default_loss(net) if loss is None else loss) if pursued is None else pursued.loss
    task = Task(
        net,
        encoder or LatencyEncoder(),
        task_loss(as_loss(chosen_loss, net.output_kind), tasks),
        named_penalties(penalties if pursued is None else pursued.penalties),
        tasks.dataset(data, 0),
        augment or ImageAugmentation(),
        rule=rule,
        optimizer=optimizer or default_optimizer(rule),
        constraints={"clamp": Clamp()} if constraints is None else constraints,
    )
    if folder is not None:
        Path(text("folder", folder)).mkdir(parents=True, exist_ok=True)
    reports = progress if isinstance(progress, Progress) else (Progress() if progress else Warnings())
    trainer = trainer_of(task, tasks, data, config, seed, folder, _identity(task, tasks, config, seed), reports)
    trainer.prepare()
    run = TrackedRun(
        "fit" if trainer.folder is None else trainer.folder.resolve().name,
        config=trainer.settings,
        folder=trainer.folder,
        step=steps_done(trainer),
        is_resumed=config.resume,
    )
    with tracked(run, named, reports, net):
        evaluation = train(trainer)
    return Fit(evaluation, trainer.records, trainer.summary())


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


def _identity(task: Task, tasks: TaskSequence, config: TrainerConfig, seed: int) -> dict[str, Any]:
    """Return the plain values that identify a training; a resumed one must have the same."""
    free = FREE_TO_CHANGE - ({"epochs"} if config.schedule == "cosine" or tasks.total > 1 else set())
    loop = {f"trainer.{name}": value for name, value in asdict(config).items() if name not in free}
    components: dict[str, Any] = {
        "encoder": task.encoder,
        "loss": task.loss,
        "augment": task.augment,
        "rule": task.rule,
        "optimizer": task.optimizer,
        "gradient": task.net.gradient,
        **{f"regularizer.{name}": penalty for name, penalty in task.regularizers.items()},
        **{f"constraint.{name}": constraint for name, constraint in task.constraints.items()},
    }
    if isinstance(task.loss, Heads):
        components["loss"] = task.loss.loss
    if tasks.total > 1:
        components["tasks"] = tasks
    texts = {name: _described(component) for name, component in components.items()}
    device = device_of(task.net)
    chip = {"chip": "none"} if device is None else {"chip": str(device.backend.identity.get("chip_hash"))}
    network = {"network": _described(task.net, task.net.RULES.keys() - {"gradient"})}
    for number, module in enumerate(task.net.stack):
        network[f"network.{number}"] = f"{module}: {_described(module, signature(type(module)).parameters.keys())}"
    held_out = {} if task.data.reserved is None else {"data.held_out": task.data.reserved.held_out}
    return {**loop, **texts, **chip, **network, "seed": seed, "data.sha256": task.data.sha256, **held_out}


def _described(component: Any, names: Iterable[str] | None = None) -> str:
    """Return a component as text; a function of the user is described by its name.

    Args:
        component: Component of a training.
        names: Names of its settings; None: the fields of a dataclass.
    """
    names = [item.name for item in fields(component)] if names is None else sorted(set(names) - {"mask"})
    values = {name: getattr(component, name) for name in names}
    named = {name: getattr(value, "__name__", value) for name, value in values.items()}
    return f"{type(component).__name__}({', '.join(f'{name}={value!r}' for name, value in named.items())})"
