"""Where a training is logged besides its run directory: JSON lines, TensorBoard, Weights & Biases, MLflow, others."""

from .json_lines import JsonLines
from .mlflow import MLflow
from .tensorboard import TensorBoard
from .tracker import (
    TRACKERS,
    Node,
    TrackedRun,
    Tracker,
    TrackerError,
    check_trackers,
    named_trackers,
    require_trackers,
)
from .tracking import Tracking, tracked
from .wandb import WandB

__all__ = [
    "TRACKERS",
    "JsonLines",
    "MLflow",
    "Node",
    "TensorBoard",
    "TrackedRun",
    "Tracker",
    "TrackerError",
    "Tracking",
    "WandB",
    "check_trackers",
    "named_trackers",
    "require_trackers",
    "tracked",
]
