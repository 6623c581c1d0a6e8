"""What a sequence of tasks leaves: the accuracies of all tasks after each of them, and their summary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

TASK_ACCURACIES = "task_accuracies"
"""Entry of the records of epochs with a row of the matrix."""
INITIAL_ACCURACY = "initial_accuracy"
"""Entry of the records with the accuracy of the current task before its training; None for the first task."""


class AccuracyMatrix(NamedTuple):
    """Accuracies of the tasks so far, after each task.

    Attributes:
        rows: Row i has the accuracies of tasks 0 to i after the training of task i. Joint training has one row of all.
    """

    rows: Sequence[Sequence[float]]

    @classmethod
    def of(cls, records: Sequence[Mapping[str, Any]]) -> AccuracyMatrix:
        """Return the matrix from the records of a training."""
        return cls([record[TASK_ACCURACIES] for record in records if record.get(TASK_ACCURACIES) is not None])

    @property
    def is_joint(self) -> bool:
        """Whether all tasks were learnt at once, so that nothing could be forgotten."""
        return len(self.rows) == 1 and len(self.rows[0]) > 1

    @property
    def mean(self) -> float:
        """Mean accuracy of all tasks at the end (ACC of Lopez-Paz and Ranzato 2017)."""
        return fmean(self.rows[-1])

    @property
    def learning(self) -> float | None:
        """Mean accuracy of each task just after its training; None of joint training."""
        return None if self.is_joint else fmean(row[-1] for row in self.rows)

    @property
    def backward_transfer(self) -> float | None:
        """Mean change of the accuracy of all tasks but the last since they were learnt (BWT of Lopez-Paz et al.)."""
        if self.is_joint or len(self.rows) < 2:
            return None
        return fmean(self.rows[-1][task] - self.rows[task][task] for task in range(len(self.rows) - 1))

    @property
    def forgetting(self) -> float | None:
        """Mean loss of accuracy of all tasks but the last since each was at its best (Chaudhry et al. 2018)."""
        if self.is_joint or len(self.rows) < 2:
            return None
        losses = [
            max(row[task] for row in self.rows[task:-1]) - self.rows[-1][task] for task in range(len(self.rows) - 1)
        ]
        return fmean(losses)

    def _steps(self) -> Iterator[tuple[int, Sequence[float]]]:
        """Yield the number of tasks so far, with their accuracies."""
        if not self.is_joint:
            yield from enumerate(self.rows, 1)

    def summary(self) -> dict[str, Any]:
        """Return what a result tells about the tasks."""
        return {
            "mean_accuracy": self.mean,
            "learning_accuracy": self.learning,
            "backward_transfer": self.backward_transfer,
            "forgetting": self.forgetting,
            **{f"mean_accuracy_after_{number}": fmean(row) for number, row in self._steps()},
            TASK_ACCURACIES: list(self.rows[-1]),
            "accuracy_matrix": [list(row) for row in self.rows],
        }

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the heads and the rows of a table, in percent."""
        count = len(self.rows[-1])
        heads = ("after", *(f"task {number + 1}" for number in range(count)), "mean")
        body = []
        for number, row in enumerate(self.rows, 1):
            cells = [*(f"{100 * accuracy:.2f}" for accuracy in row), *[""] * (count - len(row))]
            name = "all tasks" if self.is_joint else f"task {number}"
            body.append((name, *cells, f"{100 * fmean(row):.2f}"))
        return heads, body
