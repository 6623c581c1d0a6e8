r"""Knowledge distillation: a network learns from the labels, and from how sure a teacher is of every class.

Hinton, Vinyals and Dean 2015 (arXiv:1503.02531), with the student's and the teacher's logits s and t, temperature T::

    L = (1 - w) L_labels + w T^2 KL(softmax(t / T) || softmax(s / T))

T^2 keeps the gradient's size, which falls with 1 / T^2. Several teachers are one whose logits are the mean of their
log-probabilities. A teacher runs on the host and sees the samples that the student's spikes are made of.
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

from .losses import MaxOverTime


@dataclass
class Distillation:
    """From which teacher a network learns, and how much.

    Attributes:
        teacher: checkpoint of an artificial neural network (`hxtrain-ann`), or a list of such; None: no teacher.
        experiment: experiment of `hxtrain-ann` whose network is the teacher where none is named by its path; the
            command line trains it first (`experiments/teacher.py`).
        weight: share of the teacher in the loss.
        temperature: factor by which both sides' logits are divided before the softmax.
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
        """Return the settings that change nothing, since there is no teacher."""
        own = {
            item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("teacher", "experiment")
        }
        default = Distillation()
        changed = [name for name, value in own.items() if value != getattr(default, name)]
        return [] if self.paths else [f"distillation.{name}={own[name]}" for name in changed]


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return `T^2 KL(teacher || student)`, mean over samples, of logits `[B, classes]`."""
    target, answer = (log_softmax(logits / temperature, 1) for logits in (teacher, student))
    return temperature**2 * kl_div(answer, target, reduction="batchmean", log_target=True)


@dataclass(frozen=True)
class Teacher:
    """Artificial neural networks that a network learns from.

    Attributes:
        models: intensities `[B, ...]` to logits `[B, classes]`, in evaluation mode.
        config: share and temperature.
        names: what each model is, for readers.
        where: device of the models.
    """

    models: tuple[nn.Module, ...]
    config: Distillation
    names: tuple[str, ...]
    where: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @torch.no_grad()
    def logits(self, samples: Tensor) -> Tensor:
        """Return the mean of all models' log-probabilities `[B, classes]` of intensities `[B, ...]`."""
        seen = samples.to(self.where)
        return torch.stack([log_softmax(model(seen), 1) for model in self.models]).mean(0)

    def loss(self, labels_loss: MaxOverTime, logits: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the loss of a batch, a function of readout `[T, B, classes]` and labels `[B]`.

        Args:
            labels_loss: how a readout becomes logits, and the loss without a teacher.
            logits: the teacher's of this batch `[B, classes]`.
        """
        share = self.config.weight

        def mixed(readout: Tensor, labels: Tensor) -> Tensor:
            """Return both parts of the loss, each times its share."""
            taught = distillation_loss(labels_loss.logits(readout), logits.to(readout.device), self.config.temperature)
            return (1 - share) * labels_loss(readout, labels) + share * taught

        return mixed
