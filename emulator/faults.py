"""Faults of the die as composable objects, each of which changes the parameters of some circuits or synapses.

The affected circuits and synapses follow from the chip's name and the seed of the fault alone. For faults of the link
between host and chip see `hxtrain.backends.faults`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from numbers import Real
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from .layout import CIRCUITS, ROWS_PER_CIRCUIT
from .names import did_you_mean
from .rng import derive_key, fixed_uniform
from .silicon import SILENT_THRESHOLD, Values

FIRING_MARGIN = 30.0
"""Distance of the rest of an always-firing neuron above its threshold (LSB)."""
WEIGHT_BITS = 6


@dataclass(frozen=True)
class Fault(ABC):
    """A fault that affects a share of the circuits or synapse bits.

    Attributes:
        share: probability of the fault for each circuit (or bit).
        seed: seed of the draw of affected circuits.
        name: name of the fault in `FAULTS`.
    """

    share: float
    seed: int = 0
    name: ClassVar[str]

    def __post_init__(self) -> None:
        if not isinstance(self.share, Real) or not 0 <= self.share <= 1:
            raise ValueError(f"fault {self.name}={self.share!r} must be a share in 0..1")

    @abstractmethod
    def apply(self, chip: str, values: Values) -> Values:
        """Return the parameters of the chip named `chip` with the fault."""

    def mask(self, chip: str, *shape: int) -> npt.NDArray[np.bool_]:
        """Return the mask of `shape` with the fault."""
        return fixed_uniform(derive_key("fault", chip, self.name, self.seed), *shape) < self.share


@dataclass(frozen=True)
class DeadNeurons(Fault):
    """Circuits that never fire."""

    name: ClassVar[str] = "dead_neurons"

    def apply(self, chip: str, values: Values) -> Values:
        """Put the threshold out of reach."""
        return replace(values, threshold=np.where(self.mask(chip, CIRCUITS), SILENT_THRESHOLD, values.threshold))


@dataclass(frozen=True)
class FiringNeurons(Fault):
    """Circuits that always fire: their rest lies above the threshold."""

    name: ClassVar[str] = "firing_neurons"

    def apply(self, chip: str, values: Values) -> Values:
        """Lift the rest above the threshold."""
        is_affected = self.mask(chip, CIRCUITS)
        return replace(
            values, leak=np.where(is_affected, values.threshold + FIRING_MARGIN - values.rest_shift, values.leak)
        )


@dataclass(frozen=True)
class StuckBits(Fault):
    """Bits of synaptic weights that ignore the written value; half of them read as 0, half as 1.

    A bit that reads as 1 in the row of the other sign counts against the weight.
    """

    name: ClassVar[str] = "stuck_bits"

    def apply(self, chip: str, values: Values) -> Values:
        """Mark the bits."""
        shape = (CIRCUITS, ROWS_PER_CIRCUIT, 2, WEIGHT_BITS)
        is_affected = self.mask(chip, *shape)
        high = fixed_uniform(derive_key("fault", chip, self.name, self.seed, "value"), *shape) < 0.5
        bit = 1 << np.arange(WEIGHT_BITS)

        def pack(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
            return (mask * bit).sum(-1).astype(np.uint8)

        return replace(values, stuck_low=pack(is_affected & ~high), stuck_high=pack(is_affected & high))


FAULTS: dict[str, type[Fault]] = {kind.name: kind for kind in (DeadNeurons, FiringNeurons, StuckBits)}


def make_faults(shares: dict[str, float], seed: int = 0) -> tuple[Fault, ...]:
    """Return faults from their names and shares; a ValueError for unknown names lists the valid ones."""
    unknown = sorted(map(str, set(shares) - set(FAULTS)))
    if unknown:
        hint = did_you_mean(unknown, FAULTS)
        raise ValueError(f"faults of the die: {', '.join(unknown)} not known; choose from {', '.join(FAULTS)}{hint}")
    return tuple(FAULTS[name](share, seed) for name, share in shares.items() if share != 0)
