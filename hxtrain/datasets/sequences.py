"""Sequences of tasks, for continual learning: each task shows other samples, and earlier tasks are not shown again.

What a network is told about the task of a sample is the scenario (van de Ven, Tuytelaars and Tolias 2022), for T tasks
of K classes each:

- `task`: the task is known. The output has K neurons for each task, and only those of the sample's task count.
- `domain`: the task is not known, and need not be. The output has K neurons, which all tasks share.
- `class`: the task is not known, and has to be told. The output has T K neurons, of which all count.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hxtrain.backends import Registry
from hxtrain.checks import check_types

from .dataset import Dataset, Reserved
from .errors import DatasetError
from .split import Samples, Split

TASK = "task"
DOMAIN = "domain"
CLASS = "class"
SCENARIOS = (TASK, DOMAIN, CLASS)


@dataclass
class TaskSequence(ABC):
    """Base: tasks made of a data set. A field is a setting, `tasks.<field>`."""

    def __post_init__(self) -> None:
        check_types(self, "tasks.")

    @property
    def total(self) -> int:
        """Number of tasks."""
        return 1

    @property
    def phases(self) -> int:
        """Number of trainings one after the other, each of `trainer.epochs` epochs."""
        return 1

    @property
    def heads(self) -> int:
        """Number of groups of output neurons, of which one counts for a sample; 1 if all count."""
        return 1

    @property
    def idle_time(self) -> float:
        """Chip time between two tasks (s), in which an emulated device drifts."""
        return 0.0

    def steps(self, data: Dataset, batch_size: int, samples: int = 0) -> int:
        """Return the number of steps in which each training sample of all tasks is shown once.

        Args:
            data: Data set of which the tasks are made.
            batch_size: Samples of a step.
            samples: Training samples of each task; 0 for all.
        """
        sizes = [samples or len(self.dataset(data, number).train) for number in range(self.total)]
        sizes = sizes if self.phases == self.total else [sum(sizes)]
        return sum(-(-size // batch_size) for size in sizes)

    @abstractmethod
    def dataset(self, data: Dataset, number: int) -> Dataset:
        """Return the data of a task.

        Args:
            data: Data set of which the tasks are made.
            number: Number of the task, from 0.

        Raises:
            DatasetError: The tasks cannot be made of these data.
        """


@dataclass
class SingleTask(TaskSequence):
    """One task: the data as they are."""

    def dataset(self, data: Dataset, number: int) -> Dataset:
        """Return the data set."""
        return data


@dataclass
class SeveralTasks(TaskSequence):
    """Base of sequences of several tasks.

    Attributes:
        count: Number of tasks.
        scenario: What is told of the task: `task` (only the output neurons of the sample's task count), `domain` (all
            tasks share the output neurons) or `class` (all classes of all tasks are told apart).
        joint: Whether to train on all tasks at once, as the upper baseline; else one after the other.
        reset_optimizer: Whether the optimiser forgets its state at the start of a task.
    """

    count: int = 5
    scenario: str = DOMAIN
    joint: bool = False
    reset_optimizer: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 2:
            raise ValueError(f"tasks.count={self.count} must be at least 2; a single task is tasks=none")
        if self.scenario not in SCENARIOS:
            raise ValueError(f"tasks.scenario={self.scenario!r} is not known; choose one of {', '.join(SCENARIOS)}")

    @property
    def total(self) -> int:
        """Number of tasks."""
        return self.count

    @property
    def phases(self) -> int:
        """Number of trainings one after the other."""
        return 1 if self.joint else self.count

    @property
    def heads(self) -> int:
        """Number of groups of output neurons, see `TaskSequence.heads`."""
        return self.count if self.scenario == TASK else 1

    @abstractmethod
    def names(self, data: Dataset) -> list[tuple[str, ...]]:
        """Return the names of the classes of each task; each task has as many."""

    @abstractmethod
    def part(self, data: Dataset, samples: Samples, number: int) -> Samples:
        """Return the samples of a task, with labels within the task."""

    def dataset(self, data: Dataset, number: int) -> Dataset:
        """Return the data of a task; see `TaskSequence.dataset`."""
        if data.targets is not None:
            raise DatasetError(f"tasks: {data.name} has target spike trains of its classes; choose data with classes")
        names = self.names(data)
        classes = self._class_names(names)
        offset = number * len(names[0]) if self.scenario == CLASS else 0

        def part_of(samples: Samples, kind: str) -> Samples:
            part = self.part(data, samples, number)
            if not len(part):
                raise DatasetError(f"tasks: task {number + 1} of {data.title} has no {kind} samples")
            return part.relabelled(part.labels + offset)

        train = part_of(data.train, "training")
        test = part_of(data.test, data.evaluated_on)
        reserved = data.reserved
        if reserved is not None:
            reserved = Reserved(part_of(reserved.train, "training"), part_of(reserved.test, "test"), reserved.held_out)
        return replace(data, train=train, test=test, classes=classes, validation=None, plane=None, reserved=reserved)

    def _class_names(self, names: list[tuple[str, ...]]) -> tuple[str, ...]:
        """Return the names of the classes that a sample of any task is told apart by."""
        if self.scenario != CLASS:
            return tuple("/".join(dict.fromkeys(alternatives)) for alternatives in zip(*names, strict=True))
        flat = [name for task in names for name in task]
        if len(set(flat)) == len(flat):
            return tuple(flat)
        return tuple(f"{number}: {name}" for number, task in enumerate(names, 1) for name in task)


@dataclass
class PermutedTasks(SeveralTasks):
    """All classes in each task, with the pixels of all images, or the features, in another order.

    The first task has the order of the data.

    Attributes:
        seed: Seed of the orders.
    """

    count: int = 10
    seed: int = 0

    def names(self, data: Dataset) -> list[tuple[str, ...]]:
        """Return the classes of the data for each task."""
        return [data.classes] * self.count

    def part(self, data: Dataset, samples: Samples, number: int) -> Samples:
        """Return all samples, permuted."""
        if not isinstance(samples, Split):
            raise DatasetError(f"tasks=permuted takes images or features, {data.title} has {samples.kind}; use split")
        if number == 0:
            return samples
        order = self.order(data.inputs, number)
        values = samples.samples.flatten(1)[:, order].view_as(samples.samples)
        return replace(samples, samples=values)

    def order(self, inputs: int, number: int) -> Tensor:
        """Return the order of the inputs in a task `[inputs]`."""
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.arange(inputs)
        for _ in range(number):
            order = torch.randperm(inputs, generator=generator)
        return order


@dataclass
class SplitTasks(SeveralTasks):
    """Some of the classes in each task, in their order: of ten classes in five tasks 0 and 1, then 2 and 3, ..."""

    def names(self, data: Dataset) -> list[tuple[str, ...]]:
        """Return the classes of each task."""
        size, rest = divmod(len(data.classes), self.count)
        if rest or size == 0:
            raise DatasetError(
                f"tasks.count={self.count} does not divide the {len(data.classes)} classes of {data.title} into equal "
                "parts"
            )
        return [data.classes[number * size : (number + 1) * size] for number in range(self.count)]

    def part(self, data: Dataset, samples: Samples, number: int) -> Samples:
        """Return the samples of the classes of a task."""
        size = len(data.classes) // self.count
        first = number * size
        part = samples[(samples.labels >= first) & (samples.labels < first + size)]
        return part.relabelled(part.labels - first)


@dataclass
class DriftTasks(SeveralTasks):
    """The same samples in each task: what changes is the emulated device, which drifts between the tasks.

    The accuracy of an earlier task is that on the device as it was when the training of this task ended.

    Attributes:
        pause: Chip time between two tasks (s), in which the device drifts; it needs `chip.changes='{drift_sd: ...}'`.
    """

    count: int = 2
    pause: float = 3600.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.pause < math.inf:
            raise ValueError(f"tasks.pause={self.pause} s must be positive and finite")
        if self.joint:
            raise ValueError("tasks.joint=true: a device has one state at a time; leave it out with tasks=drift")

    @property
    def idle_time(self) -> float:
        """Chip time between two tasks (s)."""
        return self.pause

    def names(self, data: Dataset) -> list[tuple[str, ...]]:
        """Return the classes of the data for each task."""
        return [data.classes] * self.count

    def part(self, data: Dataset, samples: Samples, number: int) -> Samples:
        """Return all samples."""
        return samples


def joint(parts: list[Samples]) -> Samples:
    """Return the samples of several tasks as one part of a data set.

    Raises:
        DatasetError: The samples are no images or features.
    """
    splits = [part for part in parts if isinstance(part, Split)]
    if len(splits) < len(parts):
        raise DatasetError(f"tasks.joint=true takes images or features, not {parts[0].kind}")
    return Split(torch.cat([split.samples for split in splits]), torch.cat([split.labels for split in splits]))


SEQUENCES: Registry[type[TaskSequence]] = Registry("sequences", "tasks", TaskSequence)
"""Sequences of tasks by name."""
