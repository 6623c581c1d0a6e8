"""Where a training is logged besides its run directory: JSON lines, TensorBoard, Weights & Biases, MLflow, others."""

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

__all__ = [
    "TRACKERS",
    "Node",
    "TrackedRun",
    "Tracker",
    "TrackerError",
    "Tracking",
    "check_trackers",
    "named_trackers",
    "require_trackers",
    "tracked",
]
