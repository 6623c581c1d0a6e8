"""The intermediate representation of conversion: layers of rates with dense weights, whatever they came from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .softlif import LIFCurve

RELU = "relu"
LINEAR = "linear"
SOFTLIF = "softlif"
ACTIVATIONS = (RELU, LINEAR, SOFTLIF)
IDENTITY = "identity"
ABSOLUTE = "absolute"
RECTIFIED = "rectified"
PAIRS = "pairs"
INPUT_MAPS = (IDENTITY, ABSOLUTE, RECTIFIED, PAIRS)


class ConversionError(ValueError):
    """A network, or a layer of it, that cannot be converted; the text names the layer and a remedy."""


@dataclass(frozen=True, eq=False)
class RateLayer:
    """A layer of rates: `activation(weight @ sources + bias)`.

    Convolutions and average pooling are unrolled: their weights are dense, and `mask` has the synapses that exist.

    Attributes:
        name: Name for errors and tables.
        weight: Weights `[targets, sources]`, 0 where `mask` is False.
        bias: Biases `[targets]`; None: no bias.
        mask: Synapses that exist, boolean `[targets, sources]`; None: all.
        activation: `relu`, `linear` or `softlif`.
        curve: Rate of a neuron of a `softlif` layer, else None.
        scale: Activation of the original network that the activation 1 of this layer stands for.
        shape: Shape of the activations of a sample, such as `(channels, height, width)`; if empty, `(targets,)`.
    """

    name: str
    weight: Tensor
    bias: Tensor | None = None
    mask: Tensor | None = None
    activation: str = RELU
    curve: LIFCurve | None = None
    scale: float = 1.0
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or not self.weight.is_floating_point():
            raise ConversionError(f"{self.name}: weight must be a matrix of floats [targets, sources]")
        size = tuple(self.weight.shape)
        if self.bias is not None and tuple(self.bias.shape) != size[:1]:
            raise ConversionError(f"{self.name}: bias has shape {list(self.bias.shape)}, expected [{size[0]}]")
        if self.mask is not None:
            if tuple(self.mask.shape) != size or self.mask.dtype != torch.bool:
                raise ConversionError(f"{self.name}: mask must be boolean {list(size)}")
            if bool((self.weight * ~self.mask).any()):
                raise ConversionError(f"{self.name}: a weight outside the mask is not 0; multiply weight by mask")
        for label, values in (("weight", self.weight), ("bias", self.bias)):
            if values is not None and not bool(torch.isfinite(values).all()):
                raise ConversionError(f"{self.name}: {label} is not finite; train the network anew")
        if self.activation not in ACTIVATIONS:
            raise ConversionError(f"{self.name}: activation={self.activation!r} is none of {', '.join(ACTIVATIONS)}")
        if (self.curve is not None) != (self.activation == SOFTLIF):
            raise ConversionError(f"{self.name}: a curve belongs to activation=softlif, and to no other")
        if not self.shape:
            object.__setattr__(self, "shape", (size[0],))
        _check_shape(self.name, self.shape, size[0])

    @property
    def targets(self) -> int:
        """Number of neurons of the layer."""
        return self.weight.shape[0]

    @property
    def sources(self) -> int:
        """Number of neurons of the layer upstream."""
        return self.weight.shape[1]

    @property
    def synapses(self) -> Tensor:
        """Synapses that exist, boolean `[targets, sources]`."""
        return torch.ones_like(self.weight, dtype=torch.bool) if self.mask is None else self.mask

    def __call__(self, rates: Tensor) -> Tensor:
        """Return the activations `[B, targets]` of rates `[B, sources]`."""
        potential = self.currents(rates)
        if self.activation == RELU:
            return potential.relu()
        return potential if self.curve is None else self.curve(potential)

    def currents(self, rates: Tensor) -> Tensor:
        """Return the weighted inputs with the bias, `[B, targets]`, of rates `[B, sources]`."""
        return torch.nn.functional.linear(rates, self.weight, self.bias)


@dataclass(frozen=True, eq=False)
class ScalingLayer:
    """One factor and shift per neuron, as batch normalisation has in evaluation: `activation(factor x + shift)`.

    `fold_batch_norm` moves it into the layers beside.

    Attributes:
        name: Name for errors and tables.
        factor: Factors `[N]`.
        shift: Shifts `[N]`.
        activation: `relu`, `linear` or `softlif`.
        curve: Rate of a neuron of a `softlif` layer, else None.
        shape: Shape of the activations of a sample.
        scale: Activation of the original network that the activation 1 of this layer stands for.
    """

    name: str
    factor: Tensor
    shift: Tensor
    activation: str = LINEAR
    curve: LIFCurve | None = None
    shape: tuple[int, ...] = ()
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.shape:
            object.__setattr__(self, "shape", tuple(self.factor.shape))
        _check_shape(self.name, self.shape, len(self.factor))

    @property
    def targets(self) -> int:
        """Number of neurons of the layer."""
        return len(self.factor)

    @property
    def sources(self) -> int:
        """Number of neurons of the layer upstream."""
        return len(self.factor)

    def __call__(self, rates: Tensor) -> Tensor:
        """Return the activations `[B, N]` of rates `[B, N]`."""
        potential = rates * self.factor + self.shift
        if self.activation == RELU:
            return potential.relu()
        return potential if self.curve is None else self.curve(potential)


@dataclass(frozen=True, eq=False)
class MaxLayer:
    """Maximum over windows of neurons upstream, as max-pooling has it; it has no weights.

    Attributes:
        name: Name for errors and tables.
        mask: Windows, boolean `[targets, sources]`; each has at least one source.
        shape: Shape of the activations of a sample.
        scale: Activation of the original network that the activation 1 of this layer stands for.
    """

    name: str
    mask: Tensor
    shape: tuple[int, ...] = ()
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.mask.ndim != 2 or self.mask.dtype != torch.bool or not bool(self.mask.any(1).all()):
            raise ConversionError(f"{self.name}: mask must be boolean [targets, sources], with a source in each row")
        if not self.shape:
            object.__setattr__(self, "shape", (self.mask.shape[0],))
        _check_shape(self.name, self.shape, self.mask.shape[0])

    @property
    def targets(self) -> int:
        """Number of outputs."""
        return self.mask.shape[0]

    @property
    def sources(self) -> int:
        """Number of neurons of the layer upstream."""
        return self.mask.shape[1]

    @cached_property
    def windows(self) -> Tensor:
        """Sources of each output, int64 `[targets, widest window]`; a smaller window repeats its first source."""
        width = int(self.mask.sum(1).max())
        order = self.mask.to(torch.int8).sort(dim=1, descending=True, stable=True)
        rows = order.indices[:, :width]
        return torch.where(order.values[:, :width].bool(), rows, rows[:, :1])

    def __call__(self, rates: Tensor) -> Tensor:
        """Return the maxima `[B, targets]` of rates `[B, sources]`."""
        return rates[:, self.windows].amax(2)


Layer = RateLayer | ScalingLayer | MaxLayer


def _check_shape(name: str, shape: Sequence[int], targets: int) -> None:
    if math.prod(shape) != targets:
        raise ConversionError(f"{name}: shape={list(shape)} has {math.prod(shape)} values, the layer has {targets}")


@dataclass(frozen=True, eq=False)
class RateNetwork:
    """A feed-forward network of rates.

    Attributes:
        layers: Layers from the input to the output; the output is usually linear.
        input_shape: Shape of one sample.
        input_map: What enters the first layer: the values (`identity`), their magnitudes (`absolute`), their positive
            parts (`rectified`), or positive parts followed by negative parts (`pairs`).
        has_constant: Whether a last input follows that is always 1, see `encode_bias`.
    """

    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...]
    input_map: str = IDENTITY
    has_constant: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        if not self.layers:
            raise ConversionError("a network needs a layer; give one with a Linear or Conv2d module")
        if self.input_map not in INPUT_MAPS:
            raise ConversionError(f"input_map={self.input_map!r} is none of {', '.join(INPUT_MAPS)}")
        size = self.inputs
        for layer in self.layers:
            if layer.sources != size:
                raise ConversionError(f"{layer.name}: takes {layer.sources} rates, the layer upstream has {size}")
            size = layer.targets

    @property
    def inputs(self) -> int:
        """Number of values that enter the first layer."""
        values = math.prod(self.input_shape) * (2 if self.input_map == PAIRS else 1)
        return values + self.has_constant

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        weights = (layer.weight for layer in self.layers if isinstance(layer, RateLayer))
        return next((weight.dtype for weight in weights), torch.get_default_dtype())

    @property
    def rate_layers(self) -> tuple[RateLayer, ...]:
        """All layers, after a check that all have weights.

        Raises:
            ConversionError: A layer is a normalisation or a maximum.
        """
        for layer in self.layers:
            if isinstance(layer, ScalingLayer):
                raise ConversionError(f"{layer.name} is a batch normalisation; call fold_batch_norm")
            if isinstance(layer, MaxLayer):
                raise ConversionError(
                    f"{layer.name} is a max-pooling, which has no weights; call average_pooling, and train on"
                )
        return tuple(layer for layer in self.layers if isinstance(layer, RateLayer))

    def input_rates(self, x: Tensor) -> Tensor:
        """Return what enters the first layer, `[B, inputs]`, of samples `[B, ...]`.

        Raises:
            ConversionError: The samples have another number of values.
        """
        size = math.prod(self.input_shape)
        if x.ndim < 2 or math.prod(x.shape[1:]) != size:
            raise ConversionError(f"samples have shape {list(x.shape)}, expected [B, ...] with {size} values each")
        values = x.flatten(1).to(self.dtype)
        if self.input_map == ABSOLUTE:
            values = values.abs()
        elif self.input_map == RECTIFIED:
            values = values.relu()
        elif self.input_map == PAIRS:
            values = torch.cat((values.relu(), (-values).relu()), 1)
        return torch.cat((values, torch.ones_like(values[:, :1])), 1) if self.has_constant else values

    @torch.no_grad()
    def activations(self, x: Tensor) -> list[Tensor]:
        """Return the activations `[B, targets]` of all layers for samples `[B, ...]`, the output last."""
        rates = self.input_rates(x)
        results = []
        for layer in self.layers:
            rates = layer(rates)
            results.append(rates)
        return results

    def output(self, x: Tensor) -> Tensor:
        """Return the activations `[B, classes]` of the last layer for samples `[B, ...]`."""
        return self.activations(x)[-1]

    def accuracy(self, x: Tensor, labels: Tensor) -> float:
        """Return the share of samples `[B, ...]` whose largest output is that of their label, int64 `[B]`."""
        return float((self.output(x).argmax(1) == labels).double().mean())

    def with_layers(self, layers: Sequence[Layer]) -> RateNetwork:
        """Return the network with other layers."""
        return replace(self, layers=tuple(layers))
