"""All randomness of a training run, as pure functions of seed, epoch and step.

Nothing has to be stored to resume, and the state of a global generator never matters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def generator(seed: int, *place: object) -> torch.Generator:
    """Return the CPU generator for a place in the run, such as `("dropout", epoch, step)`."""
    return torch.Generator().manual_seed(_number(seed, *place))


@contextmanager
def seeded(seed: int, *place: object) -> Iterator[None]:
    """Seed torch's global generators within a block, for modules that take no generator; the state is restored."""
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(_number(seed, *place))
        yield


def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """Return the order `[count]` in which an epoch visits the training samples."""
    return torch.randperm(count, generator=generator(seed, "order", epoch))


def _number(seed: int, *place: object) -> int:
    """Return the seed of a generator for a place."""
    text = "/".join(map(str, (seed, *place)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
