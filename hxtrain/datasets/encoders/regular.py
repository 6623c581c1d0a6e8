"""Inputs that fire in the same way for every sample: the biases of a network without biases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import List  # noqa: UP035 - OmegaConf resolves these on every Python

import torch
from torch import Tensor

from hxtrain.backends import Spikes

from .base import Encoder, Limit


@dataclass
class RegularEncoder(Encoder):
    """Base of encoders some of whose inputs can be regular.

    Attributes:
        regular: indices of inputs that fire as for x = 1 in every sample, and so act as biases; from the number of
            values on they are additional inputs.
    """

    regular: List[int] = field(default_factory=list, kw_only=True)  # noqa: UP006

    def limits(self) -> Sequence[Limit]:
        """Return the condition on the regular inputs; subclasses add theirs."""
        return (Limit("regular", all(index >= 0 for index in self.regular), "regular >= 0"),)

    def units(self, features: int) -> int:
        """Return the number of network inputs: one for each value of a sample, and the additional regular ones."""
        return units_with_regular(features, self.regular)


def of_trains(events: Spikes, length: int) -> Spikes:
    """Return the spikes of inputs whose trains of `length` times each were encoded as units of their own."""
    units = events.units // length
    return Spikes.trusted(events.sample, events.unit // length, events.time, events.samples, units)


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
