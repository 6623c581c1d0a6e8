"""Training: the loop, checkpoints, metrics, evaluation, diagnosis."""

from hxtrain.commands.train import RunConfig, attached, build_network, complete, run
from hxtrain.datasets.augment import Augmentation
from hxtrain.objectives.distillation import Distillation, Teacher
from hxtrain.rules import LossNotFiniteError, Step, train_step
from hxtrain.runs.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from hxtrain.runs.progress import Progress, device_work_shown
from hxtrain.runs.randomness import epoch_order, generator
from hxtrain.runs.versions import versions

from .config import AnnTrainerConfig, TrainerConfig
from .diagnosis import diagnose
from .evaluation import Evaluation, evaluate, intensities
from .loop import CHECKPOINT, METRICS, Interrupted
from .trainer import DeviceLostError, Task, Trainer

__all__ = [
    "CHECKPOINT",
    "METRICS",
    "AnnTrainerConfig",
    "Augmentation",
    "CheckpointError",
    "DeviceLostError",
    "Distillation",
    "Evaluation",
    "Interrupted",
    "LossNotFiniteError",
    "Progress",
    "RunConfig",
    "Step",
    "Task",
    "Teacher",
    "Trainer",
    "TrainerConfig",
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
