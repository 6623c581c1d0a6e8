"""Training: the loop, its settings, evaluation and diagnosis."""

from .config import AnnTrainerConfig, TrainerConfig
from .diagnosis import diagnose
from .evaluation import Evaluation, evaluate
from .loop import CHECKPOINT, METRICS, TrainingInterrupt
from .trainer import DeviceLostError, Task, Trainer

__all__ = [
    "CHECKPOINT",
    "METRICS",
    "AnnTrainerConfig",
    "DeviceLostError",
    "Evaluation",
    "Task",
    "Trainer",
    "TrainerConfig",
    "TrainingInterrupt",
    "diagnose",
    "evaluate",
]
