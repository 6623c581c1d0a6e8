"""A readout with a head for each task: of a sample, only the output neurons of its task count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.backends.spikes import Data
from hxtrain.network import Activity

from .losses import Loss
from .online import Grid, OnlineErrors


class Heads(Loss):
    """A loss of the output neurons of a sample's task; the neurons of all other tasks are masked.

    The output has equally many neurons for each task, in the order of the tasks. Labels are those within a task.

    Args:
        loss: Loss of one task.
        count: Number of tasks.

    Attributes:
        task: Task of all samples of the next passes, or of each of them, int64 `[B]`.

    Raises:
        ValueError: The loss learns something of its own, which tasks would share.
    """

    def __init__(self, loss: Loss, count: int) -> None:
        self.loss = loss
        self.count = count
        self.task: int | Tensor = 0
        vars(self).update(reads=loss.reads, reads_times=loss.reads_times)

    def outputs(self, classes: int, targets: Spikes | None = None) -> int:
        """Return the number of output neurons: those of one task, for each task."""
        return self.count * self.loss.outputs(classes, targets)

    def classes(self, outputs: int) -> int:
        """Return the number of classes of a task."""
        return self.loss.classes(outputs // self.count)

    def prepare(self, classes: int, targets: Spikes | None = None) -> None:
        """Prepare the loss for the classes of a task, see `Loss.prepare`."""
        self.loss.prepare(classes, targets)
        state = self.loss.state_dict()
        if state:
            raise ValueError(
                f"tasks.scenario=task: {type(self.loss).__name__} learns {', '.join(state)} of the output neurons, "
                "which differ from task to task; choose another loss, or tasks.scenario=domain"
            )

    def read(self, activity: Activity) -> Tensor:
        """Return what the loss reads of the output neurons of each sample's task."""
        return _of_task(self.loss.read(activity), self.task, self.count)

    def online(self, labels: Tensor, outputs: int, grid: Grid) -> OnlineErrors | None:
        """Return the errors of the output neurons of each sample's task; those of all others are 0."""
        errors = self.loss.online(labels, outputs // self.count, grid)
        return None if errors is None else _HeadErrors(errors, self.task, self.count)

    def scores(self, output: Tensor) -> Tensor:
        """Return scores of the classes of a task `[B, classes]`."""
        return self.loss.scores(output)

    def logits(self, output: Tensor) -> Tensor:
        """Return the inputs of a softmax `[B, classes]`, see `Loss.logits`."""
        return self.loss.logits(output)

    def decision_times(self, output: Tensor, dt: float) -> Tensor:
        """Return the decision time of each sample (s) `[B]`, see `Loss.decision_times`."""
        return self.loss.decision_times(output, dt)

    def state_dict(self) -> dict[str, Any]:
        """Return no state, see `prepare`."""
        return self.loss.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Refuse a state, see `Loss.load_state_dict`."""
        self.loss.load_state_dict(state)

    def __call__(self, output: Tensor, labels: Data) -> Tensor:
        """Return the mean loss of what `read` returned; labels are those within a task."""
        return self.loss(output, labels)


class _HeadErrors(OnlineErrors):
    """Errors of the output neurons of each sample's task, as errors of all output neurons.

    Args:
        errors: Errors of one task.
        task: Task of all samples, or of each of them `[B]`.
        count: Number of tasks.
    """

    def __init__(self, errors: OnlineErrors, task: int | Tensor, count: int) -> None:
        self._errors = errors
        self._task = task
        self._count = count
        vars(self).update(lag=errors.lag)

    def observe(self, output: Tensor, is_end: bool) -> Tensor:
        """Return the errors of the next steps `[W, B, N]`, see `OnlineErrors`."""
        errors = self._errors.observe(_of_task(output, self._task, self._count), is_end)
        full = errors.new_zeros(*errors.shape[:2], self._count, errors.shape[2])
        index = _index(self._task, errors[:, :, None])
        return full.scatter_(2, index, errors[:, :, None]).flatten(2)

    def loss(self) -> float:
        """Return the mean loss of the trials up to the last step."""
        return self._errors.loss()


def _of_task(output: Tensor, task: int | Tensor, count: int) -> Tensor:
    """Return the part of an output `[..., B, N]` that belongs to each sample's task `[..., B, N / count]`."""
    heads = output.view(*output.shape[:-1], count, -1)
    if isinstance(task, int):
        return heads.select(-2, task)
    return heads.gather(-2, _index(task, heads[..., :1, :])).squeeze(-2)


def _index(task: int | Tensor, like: Tensor) -> Tensor:
    """Return the task of each sample as an index of the shape of `[..., B, 1, K]`."""
    numbers = torch.as_tensor(task, device=like.device)
    return numbers.view(-1, 1, 1).expand(like.shape)


@contextmanager
def head_of(loss: Loss, task: int) -> Iterator[None]:
    """Let the output neurons of a task count within the block, if the loss has heads."""
    if not isinstance(loss, Heads):
        yield
        return
    previous = loss.task
    loss.task = task
    try:
        yield
    finally:
        loss.task = previous
