"""Training: training loop, checkpoints, metrics, evaluation and diagnosis."""

from .augment import Augmentation
from .checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from .config import AnnTrainerConfig, TrainerConfig
from .diagnosis import diagnose
from .distillation import Distillation, Teacher
from .evaluation import Evaluation, evaluate, intensities
from .loop import CHECKPOINT, METRICS, TrainingInterrupt
from .progress import Progress, device_work_shown
from .randomness import epoch_order, generator
from .run import RunConfig, attached, build_network, complete, run
from .step import LossNotFiniteError, Step, train_step
from .trainer import DeviceLostError, Task, Trainer
from .versions import versions

__all__ = [
    "CHECKPOINT",
    "METRICS",
    "AnnTrainerConfig",
    "Augmentation",
    "CheckpointError",
    "DeviceLostError",
    "Distillation",
    "Evaluation",
    "LossNotFiniteError",
    "Progress",
    "RunConfig",
    "Step",
    "Task",
    "Teacher",
    "Trainer",
    "TrainerConfig",
    "TrainingInterrupt",
    "attached",
    "build_network",
    "complete",
    "device_work_shown",
    "diagnose",
    "epoch_order",
    "evaluate",
    "generator",
    "intensities",
    "load_checkpoint",
    "run",
    "save_checkpoint",
    "train_step",
    "versions",
]
