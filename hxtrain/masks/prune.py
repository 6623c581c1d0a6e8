"""A network with masks: found by a method, set, and weights that fit them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hxtrain.checks import require_kind
from hxtrain.datasets import Source
from hxtrain.execution import device_of
from hxtrain.network import Network
from hxtrain.objectives import Loss
from hxtrain.objectives.losses import default_loss

from .methods import BudgetedMask, MaskMethod, Material


def find_masks(
    net: Network, method: MaskMethod, source: Source, loss: Loss | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """Return the masks that a method finds for a network, True in `[N, J]`, by name of the projection.

    Args:
        net: Network, attached to a device or in software; methods that measure run it. Neural Tangent Transfer
            changes its weights.
        method: Method with its budget.
        source: Training samples with their labels, such as `data.source(data.train, encoder)`.
        loss: Loss of the output; None: the default one of the network's output.
        seed: Seed of all random numbers.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: The method cannot mask this network, or cannot read these samples.
    """
    require_kind(net, Network, "net", "find_masks(net, method, source)")
    require_kind(method, MaskMethod, "method", "give masks.SnipMask(fan_in=64)")
    require_kind(source, Source, "source", "give data.source(data.train, encoder)")
    method.check(net)
    return method.find(Material(net, source, loss or default_loss(net), seed))


def set_masks(net: Network, masks: Mapping[str, Tensor], rescale: bool = False) -> None:
    """Set masks, and place the network again on the device that it is attached to.

    Args:
        net: Network.
        masks: Existing synapses, True in `[N, J]`, by name of the projection.
        rescale: Whether remaining weights are multiplied by sqrt(sources / synapses) of their neuron.

    Raises:
        PlacementError: The network does not fit the device.
        ValueError: There is no such projection, or a mask has another shape.
    """
    for name, mask in masks.items():
        net.set_mask(name, mask)
    with torch.no_grad():
        for projection in net.projections:
            synapses = projection.synapses
            if projection.name in masks:
                synapses.apply_mask()
            if projection.name in masks and rescale and synapses.mask is not None:
                counts = synapses.mask.sum(1, keepdim=True).clamp(min=1)
                synapses.weight.mul_((synapses.inputs / counts).sqrt())
    device = device_of(net)
    if masks and device is not None:
        net.attach(device)


def prune(
    net: Network, method: MaskMethod, source: Source, loss: Loss | None = None, seed: int = 0, trained: bool = False
) -> dict[str, Tensor]:
    """Find masks, set them, and place the network again; returns the masks by name of the projection.

    Args:
        net: Network, attached to a device or in software.
        method: Method with its budget.
        source: Training samples with their labels.
        loss: Loss of the output; None: the default one of the network's output.
        seed: Seed of all random numbers.
        trained: Whether the weights are trained, so that they are not multiplied unless the method says so.

    Raises:
        PlacementError: The network does not fit the device.
        TypeError: An argument is of the wrong type.
        ValueError: The method cannot mask this network, or cannot read these samples.
    """
    masks = find_masks(net, method, source, loss, seed)
    rescale = isinstance(method, BudgetedMask) and rescales(method, trained)
    set_masks(net, masks, rescale)
    return masks


def rescales(method: BudgetedMask, trained: bool) -> bool:
    """Return whether remaining weights are multiplied: not those of a transfer, which were trained under the mask."""
    if method.rescale is not None:
        return method.rescale
    return not (trained or method.trains_weights)
