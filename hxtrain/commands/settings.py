"""All settings of a training run on data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, get_type_hints  # noqa: UP035

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
        check_parts(self)
        if self.optimizer == MISSING and self.rule != MISSING:
            self.optimizer = default_optimizer(self.rule)
        if self.regularizer != MISSING:
            listed(mapping("regularizer", self.regularizer))


def run_config(study: RunConfig, **changes: Any) -> RunConfig:
    """Return the settings of a training run of a study, whose settings are those of its runs and more.

    Args:
        study: Settings of the study.
        changes: Settings of this run, by name.
    """
    names = RunConfig.__dataclass_fields__
    return RunConfig(**{name: getattr(study, name) for name in names} | changes)


def check_parts(config: Any) -> None:
    """Check the settings of a command: numbers, flags and texts, the class of each part, and the trackers.

    Args:
        config: Settings (a dataclass); what is yet to be chosen, as in a schema, is not checked.

    Raises:
        TypeError: A part is of another class.
        ValueError: A number, a flag or a text has another type.
    """
    check_types(config, "")
    title = type(config).__name__
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if isinstance(kind, type) and kind.__module__ != "builtins" and value != MISSING:
            require_kind(value, kind, name, f"give {title}({name}={kind.__name__}(...))")
    if config.tracker != MISSING:
        check_trackers(config.tracker)
