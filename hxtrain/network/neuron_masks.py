"""Masks of active neurons: those that dropout leaves in a batch, and those of a chip with silent neurons."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hxtrain.checks import number, require_kind

from .layers import Layer

REMEDY = "write torch.Generator().manual_seed(0)"


def dropout_masks(layers: Sequence[Layer], generator: torch.Generator) -> list[Tensor | None]:
    """Draw one mask `[N]` per layer, see `Network.dropout_masks`."""
    require_kind(generator, torch.Generator, "generator", REMEDY)
    masks: list[Tensor | None] = []
    for layer in layers:
        keep = torch.rand(layer.neurons.size, generator=generator) >= layer.dropout if layer.dropout else None
        masks.append(None if keep is None else keep.to(layer.linear.weight))
    return masks


def silenced_masks(layers: Sequence[Layer], share: float, generator: torch.Generator) -> list[Tensor | None]:
    """Draw one mask `[N]` per hidden layer, see `Network.silenced_masks`.

    Raises:
        ValueError: The share is not in 0..1.
    """
    require_kind(generator, torch.Generator, "generator", REMEDY)
    if not 0 <= number("share", share) <= 1:
        raise ValueError(f"share={share} of silenced neurons must be in 0..1")
    masks: list[Tensor | None] = []
    for layer in layers:
        size = layer.neurons.size
        mask = None
        if layer is not layers[-1]:
            mask = torch.ones(size)
            mask[torch.randperm(size, generator=generator)[: round(share * size)]] = 0
        masks.append(None if mask is None else mask.to(layer.linear.weight))
    return masks
