"""Training: the loop, its settings, evaluation and diagnosis."""

from hxtrain.runs.metrics import METRICS

from .config import AnnTrainerConfig, TrainerConfig
from .decisions import decision_curve
from .diagnosis import diagnose
from .evaluation import Evaluation, evaluate
from .fitting import Fit, fit
from .loop import CHECKPOINT, TrainingInterrupt
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
    "decision_curve",
    "diagnose",
    "evaluate",
    "fit",
]
