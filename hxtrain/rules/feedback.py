"""Feedback: how errors of the output reach hidden neurons while a trial runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

FEEDBACKS = ("symmetric", "random", "uniform")
"""Feedback by name: transposed weights, fixed random weights, or one weight for all (Zenke and Ganguli 2018)."""


def fixed_feedback(kind: str, outputs: int, sizes: Sequence[int], seed: int, dtype: torch.dtype) -> list[Tensor]:
    """Return the fixed weights from the output to each hidden layer `[C, N]`, of mean square `1 / C`.

    Args:
        kind: `random` or `uniform`.
        outputs: Number C of output neurons.
        sizes: Number N of neurons of each hidden layer.
        seed: Seed of random weights; those of a layer do not depend on the layers downstream.
        dtype: Type of the weights.
    """
    scale = 1 / math.sqrt(outputs)
    if kind == "uniform":
        return [torch.full((outputs, size), scale, dtype=dtype) for size in sizes]
    generator = torch.Generator().manual_seed(seed)
    return [(scale * torch.randn(outputs, size, generator=generator)).to(dtype) for size in sizes]
