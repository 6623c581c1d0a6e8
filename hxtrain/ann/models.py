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
from hxtrain.checks import flag, not_negative
from hxtrain.conversion.softlif import LIFCurve, SoftLIF

RELU = "relu"
SOFTLIF = "softlif"
ACTIVATIONS = (RELU, SOFTLIF)


@dataclass
class ModelConfig(ABC):
    """Base: checked settings.

    Attributes:
        dropout: share of the hidden units in fully connected layers that is silenced in training.
        activation: `relu`, or `softlif`, the smoothed rate of a leaky neuron (`conversion.softlif`).
        noise: standard deviation of the noise on the rates of `softlif` in training, as share of the largest rate.
        tau_mem: time constant of the membrane of `softlif` (s).
        tau_ref: refractory period of `softlif` (s).
        gamma: width of the smoothed threshold of `softlif`, as share of the threshold.
    """

    dropout: float = field(default=0.0, kw_only=True)
    activation: str = field(default=RELU, kw_only=True)
    noise: float = field(default=0.0, kw_only=True)
    tau_mem: float = field(default=20e-3, kw_only=True)
    tau_ref: float = field(default=2e-3, kw_only=True)
    gamma: float = field(default=0.03, kw_only=True)

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"model.activation={self.activation!r} is not known; choose one of {', '.join(ACTIVATIONS)}"
            )
        not_negative("model.noise", self.noise)
        if self.noise > 0 and self.activation != SOFTLIF:
            raise ValueError(f"model.noise={self.noise} is noise on rates; add model.activation=softlif")
        self.curve()
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout={self.dropout} must be in 0 <= x < 1")
        for name, sizes in self.sizes().items():
            if any(size < 1 for size in sizes):
                raise ValueError(f"model.{name}={getattr(self, name)} must be positive")

    @abstractmethod
    def sizes(self) -> Mapping[str, Sequence[int]]:
        """Return the sizes of layers by setting."""

    def curve(self) -> LIFCurve:
        """Return the rate of a `softlif` neuron."""
        return LIFCurve(self.tau_mem, self.tau_ref, gamma=self.gamma)

    def nonlinearity(self) -> nn.Module:
        """Return the activation of a hidden layer."""
        return nn.ReLU() if self.activation == RELU else SoftLIF(self.curve(), self.noise)

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
        bias: whether layers have biases; without them a conversion has none to encode.
    """

    hidden: List[int] = field(default_factory=lambda: [246])  # noqa: UP006
    bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        flag("model.bias", self.bias)

    def sizes(self) -> Mapping[str, Sequence[int]]:
        """Return the sizes of layers."""
        return {"hidden": self.hidden}

    def build(self, shape: Sequence[int], classes: int) -> nn.Sequential:
        """Return the network; see `ModelConfig.build` for the arguments."""
        modules: list[nn.Module] = [nn.Flatten()]
        inputs = math.prod(shape)
        for size in self.hidden:
            modules += [nn.Linear(inputs, size, bias=self.bias), self.nonlinearity(), nn.Dropout(self.dropout)]
            inputs = size
        return nn.Sequential(*modules, nn.Linear(inputs, classes, bias=self.bias))


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
            *self._block(1, self.channels),
            *self._block(self.channels, last),
            nn.Flatten(),
            nn.Dropout(self.dropout),
            nn.Linear(last * (height // 4) * (width // 4), self.hidden),
            self.nonlinearity(),
            nn.Dropout(self.dropout),
            nn.Linear(self.hidden, classes),
        )

    def _block(self, inputs: int, channels: int) -> list[nn.Module]:
        """Return two convolutions with normalisation and activation, and a pooling that halves both sides."""
        modules: list[nn.Module] = []
        for previous in (inputs, channels):
            convolution = nn.Conv2d(previous, channels, 3, padding=1)
            modules += [convolution, nn.BatchNorm2d(channels), self.nonlinearity()]
        return [*modules, nn.MaxPool2d(2)]


@dataclass
class LeNetConfig(ModelConfig):
    """A convolution of 5x5 and one of 3x3, each with batch normalisation and average-pooling, and one linear layer.

    It is small enough to be converted for a chip, where every neuron of a map is one of its own (docs/conversion.md).

    Attributes:
        channels: number of channels of the first convolution; the second one has twice as many.
        dropout: share of the inputs of the linear layer silenced in training.
    """

    channels: int = 4

    def sizes(self) -> Mapping[str, Sequence[int]]:
        """Return the sizes of layers."""
        return {"channels": [self.channels]}

    def build(self, shape: Sequence[int], classes: int) -> nn.Sequential:
        """Return the network; see `ModelConfig.build` for the arguments."""
        if len(shape) != 2 or min(shape) < 12:
            raise ValueError(
                f"model=lenet takes images of 12x12 pixels or more, the data's samples are {list(shape)}; take "
                "model=mlp"
            )
        last = 2 * self.channels
        height, width = (((side - 4) // 2 - 2) // 2 for side in shape)
        return nn.Sequential(
            nn.Unflatten(1, (1, shape[0])),
            nn.Conv2d(1, self.channels, 5),
            nn.BatchNorm2d(self.channels),
            self.nonlinearity(),
            nn.AvgPool2d(2),
            nn.Conv2d(self.channels, last, 3),
            nn.BatchNorm2d(last),
            self.nonlinearity(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(self.dropout),
            nn.Linear(last * height * width, classes),
        )


def model_name(kind: type[ModelConfig]) -> str:
    """Return the name of a kind of network for a reader, such as `CNN`."""
    return kind.__name__.removesuffix("Config")


MODELS: Registry[type[ModelConfig]] = Registry("models", "model", ModelConfig)
"""Models by name."""
