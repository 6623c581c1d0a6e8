"""Settings of training runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Optional

from hxtrain.checks import check_types

SCHEDULES = ("exponential", "cosine")
LAST = "last"
BEST = "best"
CHOICES = (LAST, BEST)
"""Rules of the choice of an epoch."""
FREE_TO_CHANGE = frozenset({"epochs", "resume", "progress", "plots", "checkpoint_steps", "checkpoint_epochs"})
"""Settings that may differ in a resumed run, since they do not change a step (with a cosine, the epochs do)."""


MINIMA = {
    "epochs": 1,
    "batch_size": 1,
    "evaluation_batch_size": 1,
    "checkpoint_steps": 1,
    "checkpoint_epochs": 1,
    "scored_epochs": 1,
    "games": 1,
    "game_moves": 1,
    "threads": 1,
    "train_samples": 0,
    "test_samples": 0,
    "weight_decay": 0,
    "activity_l2": 0,
    "pretraining_epochs": 0,
}
"""Smallest allowed value of each setting."""


@dataclass
class CourseConfig:
    """Settings of every training loop, with or without data.

    Attributes:
        epochs: Number of epochs.
        learning_rate: Initial learning rate of the optimiser.
        schedule: Decay of the learning rate, `exponential` or `cosine` (to 0 at the end of the last epoch), see
            `schedule.learning_rate`.
        learning_rate_decay: Factor of the learning rate per epoch of the exponential schedule.
        warmup: Epochs in which the learning rate rises linearly from 0.
        resume: Whether to continue the run in the run directory from its checkpoint.
        progress: Whether to show a progress bar.
        threads: Torch threads on the host (an emulated chip and the host's compiled loops use all cores in addition).
        torch_device: Device of the host's arithmetic, `cpu` or e.g. `cuda`; a spiking network runs on `backend`.
    """

    epochs: int = 5
    learning_rate: float = field(default=1.5e-3, kw_only=True)
    schedule: str = field(default="exponential", kw_only=True)
    learning_rate_decay: float = field(default=0.7, kw_only=True)
    warmup: float = field(default=0.0, kw_only=True)
    resume: bool = field(default=False, kw_only=True)
    progress: bool = field(default=True, kw_only=True)
    threads: int = field(default=1, kw_only=True)
    torch_device: str = field(default="cpu", kw_only=True)

    def __post_init__(self) -> None:
        check_types(self, "trainer.")
        for item in fields(self):
            if item.name in MINIMA and not MINIMA[item.name] <= getattr(self, item.name) < math.inf:
                raise ValueError(f"trainer.{item.name}={getattr(self, item.name)} must be at least {MINIMA[item.name]}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"trainer.learning_rate={self.learning_rate} must be positive and finite")
        if not 0 < self.learning_rate_decay <= 1:
            raise ValueError(f"trainer.learning_rate_decay={self.learning_rate_decay} must be in 0 < x <= 1")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"trainer.schedule={self.schedule!r} is not known; choose one of {', '.join(SCHEDULES)}")
        if not 0 <= self.warmup <= self.epochs:
            raise ValueError(f"trainer.warmup={self.warmup} epochs must be in 0..{self.epochs} (trainer.epochs)")


@dataclass
class LoopConfig(CourseConfig):
    """Settings of a training on data: epochs are passes over them. `CourseConfig` has the other attributes.

    Attributes:
        batch_size: Samples per step.
        evaluation_batch_size: Samples per batch of an evaluation.
        train_samples: Number of training samples in use, from the start of the data set; 0 for all.
        test_samples: Number of test samples in use, from the start of the data set; 0 for all.
    """

    batch_size: int = 100
    evaluation_batch_size: int = field(default=500, kw_only=True)
    train_samples: int = field(default=0, kw_only=True)
    test_samples: int = field(default=0, kw_only=True)


@dataclass
class PlayerConfig(CourseConfig):
    """Settings of a training in an environment. `CourseConfig` has the other attributes.

    Attributes:
        checkpoint_epochs: Epochs between two checkpoints; an interruption writes one, too.
        scored_epochs: Last epochs whose mean score is the result.
        silenced: Share of output neurons that are silenced, the weakest ones: those that fire least if all get the
            same input.
        games: Number of games that are played at the end, without noise.
        game_moves: Moves of each of these games.
        plots: Whether to draw plots at the end.
    """

    epochs: int = 500
    learning_rate: float = field(default=3e-2, kw_only=True)
    schedule: str = field(default="cosine", kw_only=True)
    checkpoint_epochs: int = 25
    scored_epochs: int = 50
    silenced: float = 0.0
    games: int = 20
    game_moves: int = 400
    plots: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.silenced < 1:
            raise ValueError(f"trainer.silenced={self.silenced} must be in 0 <= x < 1")


@dataclass
class TrainerConfig(LoopConfig):
    """Settings of the training of a spiking network. `LoopConfig` has the other attributes.

    Attributes:
        checkpoint_steps: Steps between two checkpoints (a further one follows each epoch).
        plots: Whether to draw plots at the end.
        initial: Checkpoint with the initial weights; None for random weights.
        software_epochs: Number of first epochs in software, within the device's range of weights, which saves time on
            the device; the remaining epochs run on the device.
        choose: Epoch whose weights count, `last` or `best`. The best one is chosen by the accuracy on held out samples
            (`data.validation`, `data.validation_groups`); the test samples are then evaluated once, at the end.
        retrain: Whether the training is repeated on all training samples, held out ones included, for as many epochs as
            were chosen, before the test samples are evaluated; needs `choose=best` and held out training samples.
    """

    checkpoint_steps: int = 200
    plots: bool = True
    initial: Optional[str] = None  # noqa: UP045 - OmegaConf resolves these on every Python
    software_epochs: int = 0
    choose: str = LAST
    retrain: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.choose not in CHOICES:
            raise ValueError(f"trainer.choose={self.choose!r} is not known; choose one of {', '.join(CHOICES)}")
        if self.retrain and self.choose != BEST:
            raise ValueError("trainer.retrain=true repeats the training for the best number of epochs; add choose=best")
        if not 0 <= self.software_epochs < self.epochs:
            raise ValueError(
                f"trainer.software_epochs={self.software_epochs} must be less than trainer.epochs={self.epochs}, so "
                "that the device is trained on; for training in software alone: backend=software"
            )


@dataclass
class AnnTrainerConfig(LoopConfig):
    """Settings of the training of an artificial neural network with AdamW. `LoopConfig` has the other attributes.

    Attributes:
        weight_decay: Weight decay of AdamW, per unit of learning rate (Loshchilov and Hutter 2019).
        label_smoothing: Share of probability that is spread over all classes.
        activity_l2: Factor of the mean square of the hidden activations, which is added to the loss.
        pretraining_epochs: Epochs in which each hidden layer first learns to restore its inputs, of which a share is
            set to 0, without labels.
        pretraining_zeros: Share of these inputs that is set to 0.
        pretraining_learning_rate: Learning rate of these epochs.
    """

    epochs: int = 50
    learning_rate: float = field(default=1e-3, kw_only=True)
    schedule: str = field(default="cosine", kw_only=True)
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    activity_l2: float = 0.0
    pretraining_epochs: int = 0
    pretraining_zeros: float = 0.5
    pretraining_learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"trainer.label_smoothing={self.label_smoothing} must be in 0 <= x < 1")
        if not 0 <= self.pretraining_zeros < 1:
            raise ValueError(f"trainer.pretraining_zeros={self.pretraining_zeros} must be in 0 <= x < 1")
        if not 0 < self.pretraining_learning_rate < math.inf:
            raise ValueError(
                f"trainer.pretraining_learning_rate={self.pretraining_learning_rate} must be positive and finite"
            )
