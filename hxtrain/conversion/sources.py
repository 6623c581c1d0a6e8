"""From `torch.nn.Sequential` to layers of rates; convolutions and poolings are unrolled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .graph import (
    IDENTITY,
    LINEAR,
    RECTIFIED,
    RELU,
    SOFTLIF,
    ConversionError,
    Layer,
    MaxLayer,
    RateLayer,
    RateNetwork,
    ScalingLayer,
)
from .softlif import SoftLIF

CHUNK = 1024
"""Number of unit vectors that go through a convolution at once."""
CONVERTIBLE = (
    "Linear, Conv2d, BatchNorm1d, BatchNorm2d, ReLU, SoftLIF, AvgPool2d, MaxPool2d, Dropout, Flatten, Unflatten"
)
REMEDIES: dict[type[nn.Module], str] = {
    nn.Softmax: "leave it out: the largest output is the same without it",
    nn.LogSoftmax: "leave it out: the largest output is the same without it",
    nn.Sigmoid: "train the network with ReLU, whose outputs a firing rate can stand for",
    nn.Tanh: "train the network with ReLU, whose outputs a firing rate can stand for",
    nn.LeakyReLU: "train the network with ReLU, whose outputs a firing rate can stand for",
    nn.GELU: "train the network with ReLU, whose outputs a firing rate can stand for",
    nn.ELU: "train the network with ReLU, whose outputs a firing rate can stand for",
    nn.SiLU: "train the network with ReLU, whose outputs a firing rate can stand for",
    nn.LayerNorm: "train the network with BatchNorm1d, which is constant in evaluation",
    nn.GroupNorm: "train the network with BatchNorm2d, which is constant in evaluation",
    nn.Conv1d: "write it as Conv2d with a kernel of height 1",
    nn.AdaptiveAvgPool2d: "write it as AvgPool2d with the kernel that the image size gives",
    nn.AdaptiveMaxPool2d: "write it as MaxPool2d with the kernel that the image size gives",
}
IGNORED = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity)
KNOWN = (
    *IGNORED, nn.Flatten, nn.Unflatten, nn.ReLU, SoftLIF, nn.BatchNorm1d, nn.BatchNorm2d, nn.MaxPool2d, nn.Linear,
    nn.Conv2d, nn.AvgPool2d,
)  # fmt: skip
"""Classes that can be converted, as far as `forward` is theirs."""


def from_sequential(module: nn.Module, sample_shape: Sequence[int]) -> RateNetwork:
    """Return the layers of rates of a module in evaluation: its activations are equal up to rounding.

    Args:
        module: `nn.Sequential`, nested or not; its weights are copied.
        sample_shape: Shape of one sample, `(features,)`, `(height, width)` or `(channels, height, width)`.

    Raises:
        ConversionError: A module cannot be converted; the text has its place, its class and a remedy.
    """
    shape = tuple(int(side) for side in sample_shape)
    if not shape or min(shape) < 1:
        raise ConversionError(f"sample_shape={list(sample_shape)} must be positive sizes, such as (28, 28)")
    source = Source([], shape, IDENTITY, _dtype(module))
    for path, part in _parts(module, ""):
        source.add(path, part)
    return RateNetwork(tuple(source.layers), shape, source.input_map)


@dataclass
class Source:
    """The layers up to a module of a sequence.

    Attributes:
        layers: Layers so far.
        shape: Shape of a sample after these layers.
        input_map: What enters the first layer.
        dtype: Type of the weights.
    """

    layers: list[Layer]
    shape: tuple[int, ...]
    input_map: str
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Number of values of a sample after these layers."""
        return math.prod(self.shape)

    @property
    def is_rectified(self) -> bool:
        """Whether no value after these layers is negative."""
        for layer in reversed(self.layers):
            if not isinstance(layer, MaxLayer):
                return layer.activation != LINEAR
        return self.input_map == RECTIFIED

    def add(self, path: str, module: nn.Module) -> None:
        """Add a module in evaluation.

        Args:
            path: Place of the module, for names and errors.
            module: Module to add.

        Raises:
            ConversionError: The module cannot be converted, or does not take the samples there.
        """
        try:
            _add(self, path, module)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ConversionError(
                f"{_label(path, module)} does not take samples of shape {list(self.shape)}: {reason}; check the shapes"
            ) from error


def _parts(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Return the modules of a nested sequence in order, with their paths, such as `2.0`."""
    if not isinstance(module, nn.Sequential) or type(module).forward is not nn.Sequential.forward:
        yield path, module
        return
    for name, part in module.named_children():
        yield from _parts(part, f"{path}.{name}" if path else name)


def _dtype(module: nn.Module) -> torch.dtype:
    return next((weight.dtype for weight in module.parameters()), torch.get_default_dtype())


def _label(path: str, module: nn.Module) -> str:
    return f"module {path or 'of the network'} ({type(module).__name__})"


def _name(path: str, module: nn.Module) -> str:
    return f"{type(module).__name__.lower()}_{path.replace('.', '_') or '0'}"


def _add(state: Source, path: str, module: nn.Module) -> None:
    """Add a module to the layers."""
    name = _name(path, module)
    base = next((kind for kind in (nn.Sequential, *KNOWN) if isinstance(module, kind)), None)
    if base is not None and type(module).forward is not base.forward:
        raise ConversionError(
            f"{_label(path, module)} computes something else than {base.__name__}: it has a method `forward` of its "
            f"own; build the network of {CONVERTIBLE}"
        )
    if isinstance(module, nn.MaxPool2d) and module.return_indices:
        raise ConversionError(f"{_label(path, module)} returns indices, too; set return_indices=False")
    if isinstance(module, IGNORED):
        return
    if isinstance(module, nn.Flatten | nn.Unflatten):
        state.shape = _shape_after(module, state)
    elif isinstance(module, nn.ReLU | SoftLIF):
        _activate(state, path, module)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        state.layers.append(_scaling(name, path, module, state))
    elif isinstance(module, nn.MaxPool2d):
        layer = _unrolled(name, module, state, activation=LINEAR)
        state.layers.append(MaxLayer(name, layer.synapses, layer.shape))
        state.shape = layer.shape
    elif isinstance(module, nn.Linear | nn.Conv2d | nn.AvgPool2d):
        is_average = isinstance(module, nn.AvgPool2d)
        layer = _unrolled(name, module, state, activation=RELU if is_average and state.is_rectified else LINEAR)
        state.layers.append(layer)
        state.shape = layer.shape
    else:
        remedy = next((text for kind, text in REMEDIES.items() if isinstance(module, kind)), None)
        raise ConversionError(
            f"{_label(path, module)} cannot be converted; {remedy or f'build the network of {CONVERTIBLE}'}"
        )


def _shape_after(module: nn.Module, state: Source) -> tuple[int, ...]:
    return tuple(module(torch.zeros(1, *state.shape)).shape[1:])


def _activate(state: Source, path: str, module: nn.ReLU | SoftLIF) -> None:
    """Give the last layer with weights an activation. ReLU and max-pooling commute, as both are monotonic."""
    curve = module.curve if isinstance(module, SoftLIF) else None
    activation = RELU if curve is None else SOFTLIF
    for place in reversed(range(len(state.layers))):
        layer = state.layers[place]
        if isinstance(layer, MaxLayer):
            continue
        if layer.activation == LINEAR:
            state.layers[place] = replace(layer, activation=activation, curve=curve)
        elif curve is not None:
            raise ConversionError(
                f"{_label(path, module)} follows {layer.name}, which has an activation; leave one out"
            )
        return
    if curve is not None or state.layers:
        raise ConversionError(f"{_label(path, module)} follows no layer with weights; put a Linear or Conv2d first")
    state.input_map = RECTIFIED


def _scaling(name: str, path: str, module: nn.BatchNorm1d | nn.BatchNorm2d, state: Source) -> ScalingLayer:
    """Return the factor and shift per neuron that batch normalisation has in evaluation."""
    mean = module.running_mean
    variance = module.running_var
    if mean is None or variance is None:
        raise ConversionError(
            f"{_label(path, module)} has no running statistics; train it with track_running_stats=True"
        )
    factor = torch.rsqrt(variance.double() + module.eps)
    shift = -mean.double() * factor
    if module.affine:
        gain = module.weight.detach().double()
        factor = factor * gain
        shift = shift * gain + module.bias.detach().double()
    if state.shape[0] != len(factor):
        raise ConversionError(
            f"{_label(path, module)} has {len(factor)} channels, the samples there have shape {list(state.shape)}"
        )
    repeats = state.size // state.shape[0]
    return ScalingLayer(
        name,
        factor.to(state.dtype).repeat_interleave(repeats),
        shift.to(state.dtype).repeat_interleave(repeats),
        shape=state.shape,
    )


@torch.no_grad()
def _unrolled(name: str, module: nn.Module, state: Source, activation: str) -> RateLayer:
    """Return a linear module, or the windows of a max-pooling, as a matrix: its answers to unit vectors."""
    if isinstance(module, nn.Linear):
        if state.shape[-1] != module.in_features or len(state.shape) != 1:
            raise ConversionError(
                f"{name} takes {module.in_features} features, the samples there have shape {list(state.shape)}; "
                "put Flatten in front, or check sample_shape"
            )
        bias = None if module.bias is None else module.bias.detach().clone()
        return RateLayer(name, module.weight.detach().clone(), bias, activation=activation)
    if len(state.shape) != 3:
        raise ConversionError(
            f"{name} takes images of [channels, height, width], the samples there have shape {list(state.shape)}; "
            f"put Unflatten(1, (1, {state.shape[0]})) in front"
        )
    shape = tuple(module(torch.zeros(1, *state.shape, dtype=state.dtype)).shape[1:])
    kernel = _without_bias(module)
    weight = _matrix(kernel, state, math.prod(shape))
    synapses = _matrix(_with_ones(kernel), state, math.prod(shape)) != 0
    mask = None if bool(synapses.all()) else synapses
    return RateLayer(name, weight, _channel_bias(module, shape), mask, activation, shape=shape)


def _channel_bias(module: nn.Module, shape: Sequence[int]) -> Tensor | None:
    """Return the bias of each neuron of a convolution."""
    if not isinstance(module, nn.Conv2d) or module.bias is None:
        return None
    return module.bias.detach().repeat_interleave(math.prod(shape[1:]))


def _without_bias(module: nn.Module) -> nn.Module:
    """Return a module with the weights of another one and no bias."""
    if not isinstance(module, nn.Conv2d) or module.bias is None:
        return module
    return _copied(module, module.weight.detach())


def _with_ones(module: nn.Module) -> nn.Module:
    """Return a module whose answers to unit vectors are not 0 where a synapse exists, whatever the weights are."""
    return _copied(module, torch.ones_like(module.weight)) if isinstance(module, nn.Conv2d) else module


def _copied(module: nn.Conv2d, weight: Tensor) -> nn.Conv2d:
    """Return a convolution of the same geometry with other weights and no bias."""
    copy = nn.Conv2d(
        module.in_channels,
        module.out_channels,
        module.kernel_size,  # type: ignore[arg-type]
        module.stride,  # type: ignore[arg-type]
        module.padding,  # type: ignore[arg-type]
        module.dilation,  # type: ignore[arg-type]
        module.groups,
        bias=False,
        padding_mode=module.padding_mode,
        dtype=weight.dtype,
    )
    copy.weight = nn.Parameter(weight.clone())
    return copy


def _matrix(module: nn.Module, state: Source, targets: int) -> Tensor:
    """Return the answers `[targets, sources]` of a module to all unit vectors."""
    weight = torch.empty(targets, state.size, dtype=state.dtype)
    for first in range(0, state.size, CHUNK):
        sources = torch.arange(first, min(first + CHUNK, state.size))
        units = torch.zeros(len(sources), state.size, dtype=state.dtype)
        units[torch.arange(len(sources)), sources] = 1
        weight[:, sources] = module(units.reshape(-1, *state.shape)).flatten(1).T
    return weight
