"""Artificial neural networks of torch's modules: fully connected like a spiking network, or convolutional.

They take intensities in 0..1 of images `[B, H, W]` or features `[B, F]`, and return logits `[B, classes]`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import List  # noqa: UP035 - OmegaConf resolves these on every Python

from torch import nn

from hxtrain.backends import Registry


@dataclass
class ModelConfig(ABC):
    """Base: checked settings.

    Attributes:
        dropout: share of the hidden units in fully connected layers that is silenced in training.
    """

    dropout: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout={self.dropout} must be in 0 <= x < 1")
        for name, sizes in self.sizes().items():
            if any(size < 1 for size in sizes):
                raise ValueError(f"model.{name}={getattr(self, name)} must be positive")

    @abstractmethod
    def sizes(self) -> Mapping[str, Sequence[int]]:
        """Return the sizes of layers by setting."""

    @abstractmethod
    def build(self, shape: Sequence[int], classes: int) -> nn.Sequential:
        """Return the network, with torch's initial weights from its global generator (see `randomness.seeded`).

        Args:
            shape: shape of one sample, `(H, W)` or `(F,)`.
            classes: number of classes.

        Raises:
            ValueError: the network cannot take samples of this shape.
        """


@dataclass
class MLPConfig(ModelConfig):
    """Fully connected layers with ReLU and biases; 256-246-10 is the published baseline (Cramer et al. 2022, Table 1).

    Attributes:
        hidden: size of each hidden layer.
        dropout: share of the hidden units silenced in training.
    """

    hidden: List[int] = field(default_factory=lambda: [246])  # noqa: UP006

    def sizes(self) -> Mapping[str, Sequence[int]]:
        """Return the sizes of layers."""
        return {"hidden": self.hidden}

    def build(self, shape: Sequence[int], classes: int) -> nn.Sequential:
        """Return the network; see `ModelConfig.build` for the arguments."""
        modules: list[nn.Module] = [nn.Flatten()]
        inputs = math.prod(shape)
        for size in self.hidden:
            modules += [nn.Linear(inputs, size), nn.ReLU(), nn.Dropout(self.dropout)]
            inputs = size
        return nn.Sequential(*modules, nn.Linear(inputs, classes))


@dataclass
class CNNConfig(ModelConfig):
    """Two blocks of two 3x3 convolutions with batch normalisation, ReLU and pooling; one hidden layer.

    Attributes:
        channels: number of channels of the first block; the second block has twice as many.
        hidden: size of the fully connected hidden layer.
        dropout: share of the hidden layer's inputs and outputs silenced in training.
    """

    channels: int = 16
    hidden: int = 128
    dropout: float = field(default=0.3, kw_only=True)

    def sizes(self) -> Mapping[str, Sequence[int]]:
        """Return the sizes of layers."""
        return {"channels": [self.channels], "hidden": [self.hidden]}

    def build(self, shape: Sequence[int], classes: int) -> nn.Sequential:
        """Return the network; see `ModelConfig.build` for the arguments."""
        if len(shape) != 2 or min(shape) < 4:
            raise ValueError(
                f"model=cnn takes images of 4x4 pixels or more, the data's samples are {list(shape)}; take model=mlp"
            )
        height, width = shape
        last = 2 * self.channels
        return nn.Sequential(
            nn.Unflatten(1, (1, height)),
            *_block(1, self.channels),
            *_block(self.channels, last),
            nn.Flatten(),
            nn.Dropout(self.dropout),
            nn.Linear(last * (height // 4) * (width // 4), self.hidden),
            nn.ReLU(),
            nn.Dropout(self.dropout),
            nn.Linear(self.hidden, classes),
        )


def _block(inputs: int, channels: int) -> list[nn.Module]:
    """Return two convolutions with normalisation and ReLU, and a pooling that halves both sides."""
    modules: list[nn.Module] = []
    for previous in (inputs, channels):
        modules += [nn.Conv2d(previous, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
    return [*modules, nn.MaxPool2d(2)]


def model_name(kind: type[ModelConfig]) -> str:
    """Return the name of a kind of network for a reader, such as `CNN`."""
    return kind.__name__.removesuffix("Config")


MODELS: Registry[type[ModelConfig]] = Registry("models", "model", ModelConfig)
"""Models by name."""
