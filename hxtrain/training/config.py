"""Settings of training runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Optional

from hxtrain.checks import check_types

SCHEDULES = ("exponential", "cosine")


LEAST = {
    "epochs": 1,
    "batch_size": 1,
    "evaluation_batch_size": 1,
    "checkpoint_steps": 1,
    "threads": 1,
    "train_samples": 0,
    "test_samples": 0,
    "weight_decay": 0,
}
"""Least value of settings."""


@dataclass
class LoopConfig:
    """What any training loop needs to know.

    Attributes:
        epochs: passes over the training data.
        batch_size: samples per step.
        learning_rate: Adam's step size at the beginning.
        schedule: how it falls, `exponential` or `cosine` (to 0 at the end of the last epoch), see `learning_rate`.
        learning_rate_decay: factor on it per epoch of the exponential schedule.
        warmup: epochs in which it rises linearly from 0.
        evaluation_batch_size: samples per batch of evaluation.
        resume: continue the run in the run directory from its checkpoint.
        progress: show a progress bar.
        threads: torch threads on the host (an emulated chip and the host's compiled loops use all cores in addition).
        torch_device: where the host's maths runs, `cpu` or e.g. `cuda`; a spiking network's device is `backend`.
        train_samples, test_samples: use only the first so many samples; 0 for all.
    """

    epochs: int = 5
    batch_size: int = 100
    learning_rate: float = 1.5e-3
    schedule: str = "exponential"
    learning_rate_decay: float = 0.7
    warmup: float = 0.0
    evaluation_batch_size: int = 500
    resume: bool = False
    progress: bool = True
    threads: int = 1
    torch_device: str = "cpu"
    train_samples: int = 0
    test_samples: int = 0

    def __post_init__(self) -> None:
        check_types(self, "trainer.")
        for item in fields(self):
            if item.name in LEAST and not LEAST[item.name] <= getattr(self, item.name) < math.inf:
                raise ValueError(f"trainer.{item.name}={getattr(self, item.name)} must be at least {LEAST[item.name]}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"trainer.learning_rate={self.learning_rate} must be positive and finite")
        if not 0 < self.learning_rate_decay <= 1:
            raise ValueError(f"trainer.learning_rate_decay={self.learning_rate_decay} must be in 0 < x <= 1")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"trainer.schedule={self.schedule!r} is not known; choose one of {', '.join(SCHEDULES)}")
        if not 0 <= self.warmup <= self.epochs:
            raise ValueError(f"trainer.warmup={self.warmup} epochs must be in 0..{self.epochs} (trainer.epochs)")


@dataclass
class TrainerConfig(LoopConfig):
    """How to train a spiking network; for all else see `LoopConfig`.

    Attributes:
        checkpoint_steps: steps between two checkpoints (another one follows each epoch).
        plots: draw plots at the end.
        initial: start from the weights of this checkpoint; None: from new ones.
        software_epochs: so many epochs first run in software, within the device's range of weights, which saves time
            on the device; the others run on the device.
    """

    checkpoint_steps: int = 200
    plots: bool = True
    initial: Optional[str] = None  # noqa: UP045 - OmegaConf resolves these on every Python
    software_epochs: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.software_epochs < self.epochs:
            raise ValueError(
                f"trainer.software_epochs={self.software_epochs} must be less than trainer.epochs={self.epochs}, so "
                "that the device is trained on; for training in software alone: backend=software"
            )


@dataclass
class AnnTrainerConfig(LoopConfig):
    """How to train an artificial neural network with AdamW; for all else see `LoopConfig`.

    Attributes:
        weight_decay: of AdamW, per unit of learning rate (Loshchilov and Hutter 2019).
        label_smoothing: share of probability spread over all classes.
    """

    epochs: int = 50
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    weight_decay: float = 0.01
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"trainer.label_smoothing={self.label_smoothing} must be in 0 <= x < 1")
