"""Masks of a training run: found once, before or after the network is placed, and read again when it is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hxtrain.datasets import DataConfig, Dataset, Source
from hxtrain.datasets.augment import Augmentation
from hxtrain.datasets.encoders import Encoder
from hxtrain.datasets.sequences import TaskSequence
from hxtrain.masks import BudgetedMask, MaskMethod, NoMask, find_masks, set_masks
from hxtrain.masks.prune import rescales
from hxtrain.network import Network
from hxtrain.network.layers import Synapses
from hxtrain.objectives import Loss, Regularizer
from hxtrain.rules import LearningRule, Need
from hxtrain.runs.checkpoint import CheckpointError, read_checkpoint
from hxtrain.runs.progress import Progress
from hxtrain.runs.saved import required
from hxtrain.training.config import TrainerConfig
from hxtrain.training.loop import CHECKPOINT
from hxtrain.training.parallel import Team
from hxtrain.training.sequence import task_loss

REWIRING = "rewiring"
"""Name of the regulariser that moves synapses."""


class MaskedRun(Protocol):
    """Settings of a run with masks."""

    seed: int
    mask: MaskMethod
    rule: LearningRule
    encoder: Encoder
    augment: Augmentation
    loss: Loss
    data: DataConfig
    tasks: TaskSequence
    regularizer: dict[str, Regularizer]
    trainer: TrainerConfig


def mask_before_placement(config: MaskedRun, net: Network, data: Dataset, folder: Path) -> bool:
    """Set the masks of a network that is not placed yet, if they are known; returns whether they are.

    Masks of a resumed run are those of its checkpoint. A method that measures needs the device, see `mask_on_device`.

    Raises:
        CheckpointError: The checkpoint cannot be read, or is of another network.
        ValueError: The method cannot mask this network, or cannot read these samples.
    """
    method = config.mask
    method.check(net)
    if isinstance(method, NoMask):
        return True
    if config.trainer.resume:
        load_masks(net, folder / CHECKPOINT)
        return True
    if method.measures:
        return False
    _mask(config, net, data)
    return True


def mask_on_device(config: MaskedRun, net: Network, data: Dataset, members: Team) -> None:
    """Find and set masks by passes of the placed dense network, and place it again; the first process's masks count.

    Raises:
        PlacementError: The network does not fit the device.
        ValueError: The method cannot mask this network, or cannot read these samples.
    """
    _mask(config, net, data, members)


def warn_of_first_task(config: MaskedRun, progress: Progress) -> None:
    """Warn of masks that are found on the samples of the first of several tasks, and kept for all of them."""
    if config.tasks.total > 1 and config.mask.reads_samples:
        progress.warn(
            "mask: it is found on the samples of the first task, and kept for all; choose mask=random, mask=magnitude, "
            "mask=synflow, mask=rigl or mask=deep_r for a mask that no task is preferred by"
        )


def _mask(config: MaskedRun, net: Network, data: Dataset, members: Team | None = None) -> None:
    loss = task_loss(config.loss, config.tasks)
    masks = find_masks(net, config.mask, _samples(config, data, net), loss, config.seed)
    if members is not None and members.size > 1:
        masks = _unpacked(members.gather(_packed(masks))[0], masks)
    is_trained = config.trainer.initial is not None
    set_masks(net, masks, isinstance(config.mask, BudgetedMask) and rescales(config.mask, is_trained))


def _samples(config: MaskedRun, data: Dataset, net: Network) -> Source:
    return data.source(data.train, config.encoder, config.augment, net.torch_device)


def regularizers(config: MaskedRun, data: Dataset) -> dict[str, Regularizer]:
    """Return the regularisers of a run, with what moves synapses, if its mask does.

    Args:
        config: Settings of the run.
        data: Data set, of which a sequence makes tasks.

    Raises:
        ValueError: The rule follows no penalties, and moving synapses needs one; or a regulariser has the same name.
    """
    trainer = config.trainer
    steps = trainer.epochs * config.tasks.steps(data, trainer.batch_size, trainer.train_samples)
    rewiring = config.mask.rewiring(config.seed, steps)
    if rewiring is None:
        return config.regularizer
    if REWIRING in config.regularizer:
        raise ValueError(f"regularizer.{REWIRING}: this name is that of the mask; give the regulariser another one")
    if rewiring.strength > 0 and Need.PENALTIES not in config.rule.needs:
        raise ValueError(
            f"mask.strength={rewiring.strength} is the strength of a penalty, but rule={config.rule.name} follows "
            "none; set mask.strength=0, or choose rule=backprop"
        )
    return {**config.regularizer, REWIRING: rewiring}


def load_masks(net: Network, checkpoint: Path) -> None:
    """Set the masks of a checkpoint, so that the network is placed as it was.

    Raises:
        CheckpointError: The checkpoint cannot be read, or is of another network.
    """
    model = required(checkpoint, read_checkpoint(checkpoint).state, {"model": dict})["model"]
    for name, module in net.named_modules():
        if isinstance(module, Synapses) and f"{name}.mask" in model:
            try:
                module.mask = model[f"{name}.mask"]
            except (TypeError, ValueError) as error:
                raise CheckpointError(f"{checkpoint}: {name}: {error}") from error


def densities(net: Network) -> dict[str, float]:
    """Return the share of synapses that exist, by name of the projection."""
    return {p.name: 1.0 if p.synapses.mask is None else float(p.synapses.mask.float().mean()) for p in net.projections}


def _packed(masks: dict[str, Tensor]) -> dict[str, str]:
    """Return masks as texts, which processes can exchange."""
    return {name: np.packbits(mask.cpu().numpy()).tobytes().hex() for name, mask in masks.items()}


def _unpacked(texts: Any, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the masks of texts, in the shapes of others."""
    masks = {}
    for name, mask in like.items():
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(texts[name]), np.uint8), count=mask.numel())
        masks[name] = torch.from_numpy(bits.astype(bool)).view(mask.shape).to(mask.device)
    return masks
