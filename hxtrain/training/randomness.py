"""All randomness of a training run, as pure functions of seed, epoch and step.

Nothing has to be stored to resume, and no global generator is used.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def generator(seed: int, *place: object) -> torch.Generator:
    """Return the CPU generator for a place in the run, such as `("dropout", epoch, step)`."""
    text = "/".join(map(str, (seed, *place)))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
    return torch.Generator().manual_seed(number)


def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """Return the order `[count]` in which an epoch visits the training samples."""
    return torch.randperm(count, generator=generator(seed, "order", epoch))
