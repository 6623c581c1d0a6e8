"""What a network refuses: modules, input, masks and settings that do not fit, each with a remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hxtrain.backends import Spikes

from .chain import GRAMMAR
from .description import Description
from .layers import Incoming
from .program import Program

MAX_WINDOWS = 100.0
"""Longest time constant, in windows of a pass; longer ones have no visible effect within a window."""
PRECISIONS = (torch.float32, torch.float64)
"""Types of weights and of computations with them."""


def require_modules(modules: tuple[Any, ...]) -> tuple[nn.Module, ...]:
    """Return the modules of a network, after a check of their types.

    Raises:
        ValueError: an argument is not a module.
    """
    if len(modules) == 1 and isinstance(modules[0], list | tuple | nn.Sequential | nn.ModuleList):
        raise ValueError(f"Network takes its modules one by one, not as {type(modules[0]).__name__}: Network(*modules)")
    for module in modules:
        if not isinstance(module, nn.Module):
            hint = "; make one, such as LIF(100)" if isinstance(module, type) else ""
            raise ValueError(f"Network takes modules, not {module!r:.60}{hint}; {GRAMMAR}")
    return modules


def require_differentiable(program: Program) -> None:
    """Refuse a network of properties that its gradient does not support.

    Raises:
        ValueError: There is at least one.
    """
    if program.misfits:
        raise ValueError(f"Network: {'; '.join(program.misfits)}")


def require_short(description: Description, window: float) -> None:
    """Refuse time constants that are too long for the window (s).

    Raises:
        ValueError: There is at least one; the text names the layer.
    """
    for layer in description.layers:
        for name, tau in (("tau_mem", layer.tau_mem), ("tau_syn", layer.tau_syn)):
            if tau > MAX_WINDOWS * window:
                raise ValueError(
                    f"{layer.name}: {name}={tau:g} s is more than {MAX_WINDOWS:g} times the window of "
                    f"{window:.3g} s (steps dt); time constants are those of the device in seconds (6e-6), so "
                    "biological ones are divided by its speed-up"
                )


def require_learning(projections: Sequence[Incoming]) -> None:
    """Refuse a network of which nothing is learned.

    Raises:
        ValueError: No projection is learned.
    """
    if not any(projection.synapses.is_trainable for projection in projections):
        raise ValueError(
            "nothing is learned: all projections are fixed (learned=False), or their weights require no gradient; "
            "make one with learned=True, or call net.requires_grad_()"
        )


def refuse_bits(**bits: int | None) -> None:
    """Refuse fewer bits of weights or membranes, which need a device.

    Raises:
        ValueError: A number of bits is set.
    """
    settings = [f"network.{name}={value}" for name, value in bits.items() if value is not None]
    if settings:
        raise ValueError(
            f"{' and '.join(settings)}: in software (backend=software) weights and membranes are floats; choose a "
            "device, or leave this out (hxtrain evaluate: weight_bits=0, trace_bits=0)"
        )


def require_spikes(values: object, inputs: int) -> None:
    """Refuse an input that is not `Spikes`, or of another number of inputs.

    Raises:
        TypeError: It is not `Spikes`.
        ValueError: It has another number of inputs.
    """
    if not isinstance(values, Spikes):
        shape = getattr(values, "shape", None)
        described = type(values).__name__ + ("" if shape is None else f" {list(shape)}")
        raise TypeError(
            f"expected Spikes, got {described}; give net(encode(images)), or of a grid of spikes [T, B, N]: "
            "net(Spikes.from_grid(grid, net.dt))"
        )
    if values.units != inputs:
        raise ValueError(f"spikes have {values.units} inputs, the network's first projection {inputs}")


def require_precision(weights: list[Tensor]) -> None:
    """Refuse weights that are neither float32 nor float64; what runs the network checks their values.

    Raises:
        ValueError: There are others, or both.
    """
    if any(weight.dtype != weights[0].dtype for weight in weights) or weights[0].dtype not in PRECISIONS:
        kinds = ", ".join(sorted({str(weight.dtype) for weight in weights}))
        raise ValueError(
            f"weights are {kinds}; networks compute in torch.float32 or in torch.float64: call net.float() or "
            "net.double()"
        )


def require_masks(masks: object, sizes: list[int]) -> None:
    """Refuse masks that are not one tensor `[N]` or None for each layer, of these sizes.

    Raises:
        ValueError: A mask is missing, superfluous or of another shape.
    """
    if (
        not isinstance(masks, list | tuple)
        or len(masks) != len(sizes)
        or any(
            mask is not None and not (isinstance(mask, Tensor) and tuple(mask.shape) == (size,))
            for mask, size in zip(masks, sizes, strict=True)
        )
    ):
        raise ValueError(
            f"masks: expected one tensor [N] or None for each layer, N = {', '.join(map(str, sizes))}; make them "
            "with net.dropout_masks or net.silenced_masks"
        )
