"""Activations of the hidden layers of an artificial neural network, watched while it answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hxtrain.conversion.softlif import SoftLIF


@contextmanager
def watched_activations(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the outputs of all activations of a network within a block, in the order of their layers.

    Args:
        model: Network with modules `ReLU` or `SoftLIF`.
    """
    outputs: list[Tensor] = []

    def collect(module: nn.Module, inputs: object, output: Tensor) -> None:
        outputs.append(output)

    activations = [module for module in model.modules() if isinstance(module, nn.ReLU | SoftLIF)]
    hooks = [module.register_forward_hook(collect) for module in activations]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def mean_square(activations: list[Tensor]) -> Tensor:
    """Return the mean square of activations `[B, ...]` over neurons and samples, summed over layers."""
    return torch.stack([values.square().mean() for values in activations]).sum()
