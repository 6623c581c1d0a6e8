"""All settings of a training run on data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Dict  # noqa: UP035

from omegaconf import MISSING

from hxtrain.checks import check_types, mapping, require_kind
from hxtrain.datasets import DataConfig
from hxtrain.datasets.augment import Augmentation, ImageAugmentation
from hxtrain.datasets.encoders import Encoder, LatencyEncoder
from hxtrain.datasets.sequences import SingleTask, TaskSequence
from hxtrain.execution.config import BackendConfig, ChipConfig
from hxtrain.gradients import Gradient, SurrogateGradient
from hxtrain.masks import MaskMethod, NoMask
from hxtrain.network import Architecture, NetworkConfig
from hxtrain.objectives import Loss, MaxOverTime, Regularizer
from hxtrain.objectives.distillation import Distillation
from hxtrain.objectives.regularizers import default_penalties, listed
from hxtrain.rules import Backprop, Clamp, Constraint, LearningRule, Optimizer, default_optimizer
from hxtrain.trackers import Tracker, check_trackers
from hxtrain.training.config import TrainerConfig
from hxtrain.training.parallel import ParallelConfig
from hxtrain.view.config import ViewConfig


@dataclass
class RunConfig:
    """All settings of a run.

    Attributes:
        seed: Seed of initial weights, data order, dropout, augmentation and jitter.
        live: Whether to serve a page that shows the training while it runs, see `view`.
        optimizer: Optimiser of the weights; by default that of the rule.
        tracker: Where the run is logged besides its directory, by name.
    """

    seed: int = 0
    live: bool = False
    backend: BackendConfig = field(default_factory=BackendConfig)
    chip: ChipConfig = field(default_factory=ChipConfig)
    network: Architecture = field(default_factory=NetworkConfig)
    encoder: Encoder = field(default_factory=LatencyEncoder)
    loss: Loss = field(default_factory=MaxOverTime)
    regularizer: Dict[str, Regularizer] = field(default_factory=default_penalties)  # noqa: UP006
    gradient: Gradient = field(default_factory=SurrogateGradient)
    rule: LearningRule = field(default_factory=Backprop)
    optimizer: Optimizer = MISSING
    constraint: Dict[str, Constraint] = field(default_factory=lambda: {"clamp": Clamp()})  # noqa: UP006
    mask: MaskMethod = field(default_factory=NoMask)
    data: DataConfig = field(default_factory=DataConfig)
    tasks: TaskSequence = field(default_factory=SingleTask)
    augment: Augmentation = field(default_factory=ImageAugmentation)
    distillation: Distillation = field(default_factory=Distillation)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    view: ViewConfig = field(default_factory=ViewConfig)
    tracker: Dict[str, Tracker] = field(default_factory=dict)  # noqa: UP006

    def __post_init__(self) -> None:
        check_types(self, "")
        if self.optimizer == MISSING and self.rule != MISSING:
            self.optimizer = default_optimizer(self.rule)
        for name, kind in PARTS.items():
            if getattr(self, name) != MISSING:  # a schema, in which groups are yet to be chosen
                require_kind(getattr(self, name), kind, name, f"give RunConfig({name}={kind.__name__}(...))")
        if self.regularizer != MISSING:
            listed(mapping("regularizer", self.regularizer))
        if self.tracker != MISSING:
            check_trackers(self.tracker)


PARTS: Mapping[str, type] = {
    "backend": BackendConfig,
    "chip": ChipConfig,
    "network": Architecture,
    "encoder": Encoder,
    "loss": Loss,
    "gradient": Gradient,
    "rule": LearningRule,
    "optimizer": Optimizer,
    "mask": MaskMethod,
    "data": DataConfig,
    "tasks": TaskSequence,
    "augment": Augmentation,
    "distillation": Distillation,
    "trainer": TrainerConfig,
    "parallel": ParallelConfig,
    "view": ViewConfig,
}
"""Type of each part of the settings of a run."""
