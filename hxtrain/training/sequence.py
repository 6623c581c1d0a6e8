"""Training on a sequence of tasks: one after the other in the loop, with consolidation in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from hxtrain.backends import Spikes
from hxtrain.checks import require_kind
from hxtrain.datasets import Dataset, Samples, Source
from hxtrain.datasets.sequences import DriftTasks, SeveralTasks, SingleTask, TaskSequence, joint
from hxtrain.execution import device_of
from hxtrain.objectives import Loss
from hxtrain.objectives.consolidation import Consolidation, Passes
from hxtrain.objectives.heads import Heads, head_of
from hxtrain.rules import LossFunction, Need, RuleError
from hxtrain.runs.checkpoint import CheckpointError
from hxtrain.runs.progress import Progress
from hxtrain.runs.randomness import generator
from hxtrain.runs.saved import required

from .config import LAST, TrainerConfig
from .evaluation import Evaluation, EvaluationSums, combined
from .forgetting import INITIAL_ACCURACY, TASK_ACCURACIES, AccuracyMatrix
from .loop import shorten
from .parallel import ALONE, Team
from .schedule import learning_rate
from .task import Task
from .trainer import Trainer


def task_loss(loss: Loss, tasks: TaskSequence) -> Loss:
    """Return the loss of a sequence of tasks: with a head for each task if the task of a sample is known."""
    return loss if tasks.heads == 1 else Heads(loss, tasks.heads)


def output_count(loss: Loss, tasks: TaskSequence, data: Dataset) -> int:
    """Return the number of output neurons that a loss needs for a sequence of tasks.

    Args:
        loss: Loss of one task.
        tasks: Sequence of tasks.
        data: Data set of which the tasks are made.

    Raises:
        DatasetError: The tasks cannot be made of these data.
    """
    first = tasks.dataset(data, 0)
    return tasks.heads * loss.outputs(len(first.classes), first.targets)


@dataclass
class SequencedTask(Task):
    """The first of several tasks.

    Attributes:
        tasks: Sequence of tasks.
        whole: Data set of which the tasks are made.
    """

    tasks: SeveralTasks = field(kw_only=True)
    whole: Dataset = field(kw_only=True)

    @classmethod
    def of(cls, task: Task, tasks: SeveralTasks, whole: Dataset) -> Self:
        """Return a task with the sequence that it begins."""
        return cls(**{item.name: getattr(task, item.name) for item in fields(task)}, tasks=tasks, whole=whole)


class SequenceTrainer(Trainer):
    """Trains a sequence of tasks, `trainer.epochs` epochs each, and evaluates all tasks so far after each of them.

    It is built as `Trainer` is, of a `SequencedTask` with the loss that `task_loss` returns; see `trainer_of`.

    Attributes:
        tasks: Sequence of tasks.
        begun: Number of phases whose training has begun; joint training has a single phase.
    """

    task: SequencedTask

    def _set_up(self) -> None:
        """Show the samples of the first phase."""
        require_kind(self.task, SequencedTask, "task", "give SequencedTask.of(task, PermutedTasks(5), data)")
        self.tasks = self.task.tasks
        self._tests: dict[int, Source] = {}
        self._row: list[float] | None = None
        self._summary: Evaluation | None = None
        self._clocks: list[int] = []
        self._initial: float | None = None
        self.begun = 0
        self.epochs = self.tasks.phases * self.config.epochs
        self._show(0)
        self._introduce()

    @property
    def phase(self) -> int:
        """Number of finished phases, at most that of the last one."""
        return min(self.epoch // self.config.epochs, self.tasks.phases - 1)

    @property
    def steps_done(self) -> int:
        """Number of steps since the start of the training; tasks may differ in their number of samples."""
        if self.tasks.joint:
            return super().steps_done
        lengths = [
            len(self._shortened(self.tasks.dataset(self.task.whole, number).train)) for number in range(self.phase)
        ]
        previous = sum(-(-length // self.config.batch_size) for length in lengths) * self.config.epochs
        return previous + (self.epoch - self.phase * self.config.epochs) * self.steps_per_epoch + self.step

    @property
    def matrix(self) -> AccuracyMatrix:
        """Accuracies of all tasks after each finished one."""
        return AccuracyMatrix.of(self.records)

    @property
    def evaluated_samples(self) -> int:
        """Number of samples of the evaluation that counts: those of all tasks."""
        return sum(len(self._test(number)) for number in range(self.tasks.count))

    def summary(self) -> dict[str, Any]:
        """Return what a result tells about the choice of the epoch, and about the tasks."""
        ends = [record for record in self.records if record[TASK_ACCURACIES] is not None]
        initial = {"initial_accuracies": [record[INITIAL_ACCURACY] for record in ends]}
        return {**super().summary(), **self.matrix.summary(), **initial}

    def _introduce(self) -> None:
        """Warn of penalties that keep earlier tasks, but have none to keep."""
        names = [name for name, part in self.learner.regularizers.items() if isinstance(part, Consolidation)]
        if names and self.tasks.joint:
            self.progress.warn(
                f"regularizer {', '.join(names)} has no effect with tasks.joint=true: there is no earlier "
                "task; leave it out"
            )

    def _show(self, phase: int) -> None:
        """Show the samples of a phase in the following steps."""
        task = self.task
        numbers = range(self.tasks.count) if self.tasks.joint else [phase]
        parts = [self._shortened(self.tasks.dataset(self.task.whole, number).train) for number in numbers]
        self.train = joint(parts) if self.tasks.joint else parts[0]
        self.train_source = task.source(self.train, task.augment)
        self.test_source = self._test(phase)
        self._heads: int | Tensor = phase
        if self.tasks.joint:
            self._heads = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor([len(part) for part in parts]))
        if isinstance(task.loss, Heads):
            task.loss.task = phase

    def _shortened(self, samples: Samples) -> Samples:
        return shorten(samples, self.config.train_samples, "trainer.train_samples")

    def _test(self, number: int) -> Source:
        """Return the test samples of a task."""
        if number not in self._tests:
            samples = self.tasks.dataset(self.task.whole, number).test
            shortened = shorten(samples, self.config.test_samples, "trainer.test_samples")
            self._tests[number] = self.task.source(shortened)
        return self._tests[number]

    def _run_epoch(self) -> None:
        if self.begun <= self.phase:
            self._begin()
        super()._run_epoch()

    def _begin(self) -> None:
        """Begin a phase: consolidate the previous one, let the device rest, evaluate and show the next samples.

        Raises:
            DeviceLostError: The device fails permanently; the state at the end of the previous phase is saved.
        """
        if self.begun > 0:
            device = device_of(self.task.net)
            end = device.clock if device else 0
            with self._saved_on_failure():
                self._consolidate()
                if device is not None and self.tasks.idle_time:
                    device.idle(self.tasks.idle_time)
                self._initial = self._sums_of(self.phase).summary().accuracy
            self._clocks.append(end)
            if self.tasks.reset_optimizer:
                self.optimizer.state.clear()
        self._show(self.phase)
        self.begun = self.phase + 1

    def _consolidate(self) -> None:
        source = self.task.source(self.train)
        passes = Passes(source, self.task.loss, generator(self.seed, "consolidation", self.begun))
        for penalty in self.learner.regularizers.values():
            if isinstance(penalty, Consolidation):
                penalty.consolidate(self.task.net, passes)

    def _set_learning_rate(self) -> None:
        """Set the optimiser's learning rate for the next step; its schedule starts anew with each task."""
        rate = learning_rate(self.config, self.epoch % self.config.epochs, self.step, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _batch(self, indices: Tensor, first: int, last: int) -> tuple[Spikes, LossFunction]:
        """Return input events and loss of a batch, see `Trainer`; of joint tasks, each sample has its own head."""
        loss = self.task.loss
        if isinstance(loss, Heads) and isinstance(self._heads, Tensor):
            loss.task = self._heads[indices[first:last]]
        return super()._batch(indices, first, last)

    def _evaluated(self) -> Evaluation | None:
        """Return the evaluation of the current task after an epoch; of joint training, that of all tasks.

        After the last epoch of a task all tasks so far are evaluated.
        """
        is_end = (self.epoch + 1) % self.config.epochs == 0
        self._row = None
        self._summary = None
        if not (is_end or self.tasks.joint):
            return self._sums_of(self.phase).summary()
        numbers = range(self.tasks.count if self.tasks.joint else self.phase + 1)
        sums = [self._sums_of(number) for number in numbers]
        self._summary, accuracies = combined(sums)
        self._row = accuracies if is_end else None
        return self._summary if self.tasks.joint else sums[-1].summary()

    def _sums_of(self, number: int) -> EvaluationSums:
        """Evaluate a task; with drift, an earlier one on the device as it was when its training ended."""
        device = device_of(self.task.net)
        is_earlier = self.tasks.idle_time > 0 and number < len(self._clocks)
        clock = device.clock if device is not None and is_earlier else None
        if device is not None and clock is not None:
            device.clock = self._clocks[number]
        try:
            with head_of(self.task.loss, number):
                return self._observe(self._test(number))
        finally:
            if device is not None and clock is not None:
                device.clock = clock

    def _counted(self, evaluation: Evaluation | None) -> Evaluation | None:
        """Return the evaluation that counts if this epoch is the last one: of all tasks so far."""
        return evaluation if self._summary is None else self._summary

    def _entries(self) -> dict[str, Any]:
        """Return the number of the current task, its accuracy before its training, and all accuracies at its end."""
        number = None if self.tasks.joint else self.phase + 1
        return {"task": number, INITIAL_ACCURACY: self._initial, TASK_ACCURACIES: self._row}

    def _further_state(self) -> dict[str, Any]:
        return {"sequence": {"begun": self.begun, "clocks": list(self._clocks), "initial": self._initial}}

    def _take_further_state(self, state: Mapping[str, Any]) -> None:
        sequence = required(self.checkpoint, state, {"sequence": dict})["sequence"]
        kinds = {"begun": int, "clocks": list, "initial": (float, type(None))}
        values = required(self.checkpoint, sequence, kinds)
        begun, clocks = values["begun"], values["clocks"]
        if begun not in (self.phase, self.phase + 1) or [type(clock) for clock in clocks] != [int] * max(begun - 1, 0):
            raise CheckpointError(
                f"{self.checkpoint}: begun={begun} and clocks={clocks!s:.40} are none of a sequence after "
                f"{self.epoch} epochs; give an intact checkpoint"
            )
        self.begun = begun
        self._clocks = list(values["clocks"])
        self._initial = values["initial"]
        self._show(max(self.begun - 1, 0))


def _check(task: Task, tasks: SeveralTasks, config: TrainerConfig) -> None:
    """Refuse settings that contradict a sequence of tasks."""
    if task.teacher is not None:
        raise ValueError("distillation: a teacher knows the data of one task; leave it out, or choose tasks=none")
    if config.choose != LAST:
        raise ValueError(
            f"trainer.choose={config.choose} keeps one epoch, but tasks follow one another; choose "
            "trainer.choose=last, or tasks=none"
        )
    if tasks.heads > 1 and Need.LOSS not in task.rule.needs:
        raise RuleError(
            f"tasks.scenario=task masks the readout in the loss, which rule={task.rule.name} does not read; choose "
            "tasks.scenario=domain or class, or rule=backprop"
        )
    if isinstance(tasks, DriftTasks) and device_of(task.net) is None:
        raise ValueError("tasks=drift needs a device that drifts, software does not; choose backend=emulator")


def trainer_of(
    task: Task,
    tasks: TaskSequence,
    data: Dataset,
    config: TrainerConfig,
    seed: int,
    folder: str | Path | None,
    settings: Mapping[str, Any],
    progress: Progress,
    team: Team = ALONE,
) -> Trainer:
    """Return the trainer of a single task or of a sequence.

    Args:
        task: Learning task with the data of the first task of the sequence, and with its `task_loss`.
        tasks: Sequence of tasks.
        data: Data set of which the tasks are made.
        config: See `Trainer` for this and all below.
        seed: Seed of data order, dropout, augmentation and jitter.
        folder: Run directory for checkpoint and metrics; None: nothing is written.
        settings: Plain values that identify the run.
        progress: Receiver of all reports.
        team: Processes that share every batch.

    Raises:
        RuleError: The rule does not read the loss, which masks the readout.
        TypeError: `tasks` is no sequence.
        ValueError: The settings contradict a sequence.
    """
    if isinstance(tasks, SingleTask):
        names = [name for name, part in task.regularizers.items() if isinstance(part, Consolidation)]
        if names:
            progress.warn(
                f"regularizer {', '.join(names)} has no effect on a single task; name several, such as tasks=permuted"
            )
        return Trainer(task, config, seed, folder, settings, progress, team)
    if not isinstance(tasks, SeveralTasks):
        raise TypeError(f"tasks: expected SingleTask() or several, such as PermutedTasks(5), got {tasks!r:.60}")
    _check(task, tasks, config)
    sequenced = SequencedTask.of(task, tasks, data)
    return SequenceTrainer(sequenced, config, seed, folder, settings, progress, team)
