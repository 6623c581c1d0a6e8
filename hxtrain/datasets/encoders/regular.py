"""Inputs that fire in the same way for every sample: the biases of a network without biases."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def units_with_regular(features: int, regular: Sequence[int]) -> int:
    """Return the number of inputs for samples of `F` values, some of which are regular, see `with_regular`."""
    return max(features, 1 + max(regular, default=-1))


def with_regular(samples: Tensor, regular: Sequence[int]) -> Tensor:
    """Return intensities `[B, N]` that are 1 at regular inputs, of intensities `[B, F]`.

    Args:
        samples: intensities of the samples.
        regular: indices of the regular inputs: below `F` one stands in for the value of a sample, from `F` on it is
            added.
    """
    if not regular:
        return samples
    values = samples.new_zeros(len(samples), units_with_regular(samples.shape[1], regular))
    values[:, : samples.shape[1]] = samples
    values[:, torch.as_tensor(list(regular), device=samples.device)] = 1
    return values
