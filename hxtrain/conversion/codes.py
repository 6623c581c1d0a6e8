"""Input codes of the simulation in steps: what enters the first layer in a step."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .graph import ConversionError


class InputCode(ABC):
    """Base: input of each step, with mean x over the steps for a rate x."""

    @abstractmethod
    def inputs(self, rates: Tensor, step: int, generator: torch.Generator | None) -> Tensor:
        """Return the input `[B, N]` of a step.

        Args:
            rates: Rates `[B, N]`; for spikes in 0..1.
            step: Number of the step, from 0.
            generator: Source of random spikes.
        """

    def check(self, rates: Tensor, generator: torch.Generator | None) -> None:  # noqa: B027 - most codes take all
        """Check the rates of a simulation.

        Raises:
            ConversionError: The code cannot stand for them.
        """


class ConstantCode(InputCode):
    """A constant current: the rate itself, in each step, as analog input (Rueckauer et al. 2017)."""

    def inputs(self, rates: Tensor, step: int, generator: torch.Generator | None) -> Tensor:
        """Return the rates."""
        return rates


class RegularCode(InputCode):
    """Regular spikes: a spike in each step in which the sum of the rate passes a whole number plus one half."""

    def inputs(self, rates: Tensor, step: int, generator: torch.Generator | None) -> Tensor:
        """Return spikes, 0 or 1."""
        return ((step + 1) * rates + 0.5).floor() - (step * rates + 0.5).floor()

    def check(self, rates: Tensor, generator: torch.Generator | None) -> None:
        """Check that rates are in 0..1."""
        check_range(type(self).__name__, rates)


class PoissonCode(InputCode):
    """Random spikes: independent draws with the rate as probability, as in Diehl et al. 2015."""

    def inputs(self, rates: Tensor, step: int, generator: torch.Generator | None) -> Tensor:
        """Return spikes, 0 or 1."""
        draws = torch.rand(rates.shape, generator=generator, dtype=rates.dtype)
        return (draws < rates).to(rates.dtype)

    def check(self, rates: Tensor, generator: torch.Generator | None) -> None:
        """Check that rates are in 0..1, and that there is a generator."""
        check_range(type(self).__name__, rates)
        if generator is None:
            raise ConversionError("PoissonCode needs a generator; pass torch.Generator().manual_seed(0)")


def check_range(name: str, rates: Tensor) -> None:
    """Check that rates are in 0..1.

    Args:
        name: Name of the code, for the error.
        rates: Rates of any shape.

    Raises:
        ConversionError: A rate is below 0 or above 1.
    """
    low, high = torch.stack(torch.aminmax(rates)).tolist()
    if not (low >= 0 and high <= 1):
        raise ConversionError(
            f"{name} takes rates in 0..1, the inputs span {low:.4g}..{high:.4g}; scale them, call signed_inputs or "
            "rectified_inputs, or take ConstantCode"
        )
