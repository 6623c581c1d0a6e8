"""Training: the loop, checkpoints, metrics, evaluation, diagnosis."""

from .checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from .config import TrainerConfig
from .diagnosis import diagnose
from .evaluation import Evaluation, evaluate, intensities
from .progress import Progress
from .randomness import epoch_order, generator
from .run import RunConfig, attached, build_network, run
from .step import LossNotFiniteError, Step, train_step
from .trainer import CHECKPOINT, METRICS, DeviceLostError, Interrupted, Task, Trainer
from .versions import versions

__all__ = [
    "CHECKPOINT",
    "METRICS",
    "CheckpointError",
    "DeviceLostError",
    "Evaluation",
    "Interrupted",
    "LossNotFiniteError",
    "Progress",
    "RunConfig",
    "Step",
    "Task",
    "Trainer",
    "TrainerConfig",
    "attached",
    "build_network",
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
