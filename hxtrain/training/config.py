"""Settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass
class TrainerConfig:
    """How to train.

    Attributes:
        epochs: passes over the training data.
        batch_size: samples per step.
        learning_rate: Adam's step size in the first epoch.
        learning_rate_decay: factor on it per epoch.
        rotation: largest angle of random rotations (degrees); 0 for none.
        evaluation_batch_size: samples per batch of evaluation.
        checkpoint_steps: steps between two checkpoints (another one follows each epoch).
        resume: continue the run in the run directory from its checkpoint.
        progress: show a progress bar.
        plots: draw plots at the end.
        threads: torch threads on the host (an emulated chip and the host's compiled loops use all cores in addition).
        torch_device: where the host's maths runs, `cpu` or e.g. `cuda`; the network's device is `backend`.
        train_samples, test_samples: use only the first so many samples; 0 for all.
        initial: start from the weights of this checkpoint; None: from new ones.
    """

    epochs: int = 5
    batch_size: int = 100
    learning_rate: float = 1.5e-3
    learning_rate_decay: float = 0.7
    rotation: float = 0.0
    evaluation_batch_size: int = 500
    checkpoint_steps: int = 200
    resume: bool = False
    progress: bool = True
    plots: bool = True
    threads: int = 1
    torch_device: str = "cpu"
    train_samples: int = 0
    test_samples: int = 0
    initial: Optional[str] = None  # noqa: UP045 - OmegaConf resolves these on every Python

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("evaluation_batch_size", 1),
            ("checkpoint_steps", 1),
            ("threads", 1),
            ("train_samples", 0),
            ("test_samples", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"trainer.{name}={getattr(self, name)} must be at least {least}")
        if not self.learning_rate > 0:
            raise ValueError(f"trainer.learning_rate={self.learning_rate} must be positive")
        if not 0 < self.learning_rate_decay <= 1:
            raise ValueError(f"trainer.learning_rate_decay={self.learning_rate_decay} must be in 0 < x <= 1")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"trainer.rotation={self.rotation} degrees must be in 0..180")
