"""A learning task: a network, its data, and how it is to learn from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hxtrain.checks import mapping, require_kind
from hxtrain.datasets import Dataset, Samples, Source
from hxtrain.datasets.augment import Augmentation, ImageAugmentation
from hxtrain.datasets.encoders import Encoder
from hxtrain.network import Network
from hxtrain.objectives import Loss, Regularizer
from hxtrain.objectives.distillation import Teacher
from hxtrain.objectives.regularizers import listed
from hxtrain.rules import Backprop, Clamp, Constraint, LearningRule, Objective, Optimizer


@dataclass
class Task:
    """A learning task.

    Attributes:
        net: Network to train.
        encoder: Code from samples to input events.
        loss: Loss function, which also turns outputs into answers.
        regularizers: Regularisers by name.
        data: Data set with training and test part.
        augment: Distortion of training samples.
        teacher: Artificial neural networks to distil from; None without distillation.
        rule: Learning rule; each training prepares a copy of it, for loss and regularisers of this task.
        optimizer: Settings of the optimiser; None: that of the rule, see `default_optimizer`.
        constraints: Restrictions of the weights by name, applied in order after the optimiser.
    """

    net: Network
    encoder: Encoder
    loss: Loss
    regularizers: Mapping[str, Regularizer]
    data: Dataset
    augment: Augmentation = field(default_factory=ImageAugmentation)
    teacher: Teacher | None = None
    rule: LearningRule = field(default_factory=Backprop)
    optimizer: Optimizer | None = None
    constraints: Mapping[str, Constraint] = field(default_factory=lambda: {"clamp": Clamp()})

    def __post_init__(self) -> None:
        kinds = {
            "net": Network,
            "encoder": Encoder,
            "loss": Loss,
            "data": Dataset,
            "augment": Augmentation,
            "rule": LearningRule,
        }
        for name, kind in kinds.items():
            require_kind(getattr(self, name), kind, name, "Task(net, encoder, loss, {'burst': Burst()}, data)")
        if self.optimizer is not None:
            require_kind(self.optimizer, Optimizer, "optimizer", "give Adam(), or leave it out")
        penalties = listed(mapping("regularizers", self.regularizers))
        for name, constraint in mapping("constraints", self.constraints).items():
            require_kind(constraint, Constraint, f"constraints[{name!r}]", "give {'clamp': Clamp()}")
        Objective(self.loss, penalties).check(self.net)
        self.loss.prepare(len(self.data.classes), self.data.targets)
        self.source(self.data.train, self.augment)

    def source(self, samples: Samples, augment: Augmentation | None = None) -> Source:
        """Return the source of a part of the data, which encodes where the network computes.

        Raises:
            DatasetError: The encoder, or the distortion, does not take samples of this kind.
        """
        return self.data.source(samples, self.encoder, augment, self.net.torch_device)
