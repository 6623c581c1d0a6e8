"""Training: the loop, its settings, evaluation and diagnosis."""

from .config import AnnTrainerConfig, TrainerConfig
from .diagnosis import diagnose
from .evaluation import Evaluation, evaluate
from .fitting import Fit, fit
from .loop import CHECKPOINT, METRICS, TrainingInterrupt
from .network_loop import DeviceLostError
from .task import Task
from .trainer import Trainer

__all__ = [
    "CHECKPOINT",
    "METRICS",
    "AnnTrainerConfig",
    "DeviceLostError",
    "Evaluation",
    "Fit",
    "Task",
    "Trainer",
    "TrainerConfig",
    "TrainingInterrupt",
    "diagnose",
    "evaluate",
    "fit",
]
