r"""Knowledge distillation: a network learns from the labels and from a teacher's probability of every class.

Hinton, Vinyals and Dean 2015 (arXiv:1503.02531), with the student's and the teacher's logits s and t, temperature T::

    L = (1 - w) L_labels + w T^2 KL(softmax(t / T) || softmax(s / T))

The factor T^2 preserves the size of the gradient, which falls with 1 / T^2. Several teachers act as a single one, whose
logits are the mean of their log-probabilities. A teacher runs on the host, on the samples that the student's input
events encode.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Optional

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from hxtrain.checks import check_types
from hxtrain.datasets import DatasetError, ImageSource, Source

from .losses import Loss


@dataclass
class Distillation:
    """Teacher of a network, and its weight in the loss.

    Attributes:
        teacher: Checkpoint of an artificial neural network (`hxtrain ann`), or a list of checkpoints; None without
            a teacher.
        experiment: Experiment of `hxtrain ann` whose network is the teacher if `teacher` is None; the command line
            trains it first (`experiments/teacher.py`).
        weight: Share of the teacher in the loss.
        temperature: Divisor of the logits of teacher and student before the softmax.
    """

    teacher: Any = None  # Optional[Union[str, List[str]]], which OmegaConf cannot express
    weight: float = 0.5
    temperature: float = 2.0
    experiment: Optional[str] = None  # noqa: UP045 - spelt so for every OmegaConf

    def __post_init__(self) -> None:
        check_types(self, "distillation.")
        if not all(isinstance(path, str) and path for path in self.paths):
            raise ValueError(
                f"distillation.teacher={self.teacher!r} must be the path of a checkpoint, or a list of paths; "
                "leave it out to train without a teacher"
            )
        if not 0 < self.weight <= 1:
            raise ValueError(
                f"distillation.weight={self.weight} must be in 0 < x <= 1; to train without a teacher, give none"
            )
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"distillation.temperature={self.temperature} must be positive and finite")

    @property
    def paths(self) -> list[Any]:
        """Paths of the teachers; empty without one."""
        if self.teacher is None:
            return []
        return list(self.teacher) if isinstance(self.teacher, (list, tuple)) else [self.teacher]

    def without_effect(self) -> list[str]:
        """Return the settings that have no effect without a teacher."""
        values = {
            item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("teacher", "experiment")
        }
        default = Distillation()
        changed = [name for name, value in values.items() if value != getattr(default, name)]
        return [] if self.paths else [f"distillation.{name}={values[name]}" for name in changed]


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return `T^2 KL(teacher || student)`, mean over samples, of logits `[B, classes]`."""
    target_logs, student_logs = (log_softmax(logits / temperature, 1) for logits in (teacher, student))
    return temperature**2 * kl_div(student_logs, target_logs, reduction="batchmean", log_target=True)


@dataclass(frozen=True)
class Teacher:
    """Artificial neural networks that a network learns from.

    Attributes:
        models: Modules from intensities `[B, ...]` to logits `[B, classes]`, in evaluation mode.
        config: Share and temperature.
        names: Description of each model.
        torch_device: Device of the models.
    """

    models: tuple[nn.Module, ...]
    config: Distillation
    names: tuple[str, ...]
    torch_device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @torch.no_grad()
    def logits(self, samples: Tensor) -> Tensor:
        """Return the mean of all models' log-probabilities `[B, classes]` of intensities `[B, ...]`."""
        samples = samples.to(self.torch_device)
        return torch.stack([log_softmax(model(samples), 1) for model in self.models]).mean(0)

    def loss(self, labels_loss: Loss, logits: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the loss of a batch, a function of an output `[T, B, classes]` and labels `[B]`.

        Args:
            labels_loss: Loss without a teacher, which also turns an output into logits.
            logits: Logits of the teacher for this batch `[B, classes]`.
        """
        share = self.config.weight

        def mixture(output: Tensor, labels: Tensor) -> Tensor:
            """Return the sum of both parts of the loss, each times its share."""
            teacher_loss = distillation_loss(
                labels_loss.logits(output), logits.to(output.device), self.config.temperature
            )
            return (1 - share) * labels_loss(output, labels) + share * teacher_loss

        return mixture


class Lessons:
    """What a teacher says about the samples of a source; without distortions it is asked once about each.

    Args:
        teacher: Artificial neural networks to learn from.
        source: Source of the student's input spikes.
        batch_size: Samples that the teacher gets at a time.

    Attributes:
        source: Source of the student's input spikes.

    Raises:
        DatasetError: The samples are events, which a teacher does not take.
    """

    def __init__(self, teacher: Teacher, source: Source, batch_size: int) -> None:
        if not isinstance(source, ImageSource):
            raise DatasetError(
                f"a teacher takes images or feature vectors, not the samples of {source!r}; leave distillation out"
            )
        self.source = source
        self._teacher = teacher
        self._batch_size = batch_size
        self._logits: Tensor | None = None

    def loss(self, labels_loss: Loss, indices: Tensor, values: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the loss of a batch, see `Teacher.loss`.

        Args:
            labels_loss: Loss without a teacher.
            indices: Numbers of the samples, int64 `[B]`.
            values: Intensities that the student's spikes encode `[B, ...]`.
        """
        return self._teacher.loss(labels_loss, self.logits(indices, values))

    def logits(self, indices: Tensor, values: Tensor) -> Tensor:
        """Return the teacher's logits of a batch `[B, classes]`. The arguments are those of `loss`."""
        if self.source.augment.active:
            return self._teacher.logits(values)
        if self._logits is None:
            parts = torch.split(torch.arange(len(self.source)), self._batch_size)
            self._logits = torch.cat([self._teacher.logits(self.source.intensities(part)) for part in parts])
        return self._logits[indices.to(self._logits.device)]
