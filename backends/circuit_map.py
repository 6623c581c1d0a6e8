"""Which neuron circuits of a chip a network occupies, and what its calibration says of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class CircuitMap:
    """Neuron circuits of a chip.

    Attributes:
        chip: Name of the chip.
        circuits: Number of neuron circuits `C`.
        populations: Name of the population of each logical neuron, in the order of their circuits.
        places: Circuits of each logical neuron, int64 `[A, N]`; -1 for no circuit. No neurons before a circuit is
            configured.
        missed: Masks of the circuits that missed a target of the calibration, by parameter, each bool `[C]`.
        codes: Codes of the calibration, by cell, each `[C]`; those of a chip alone, not of a population of chips.
    """

    chip: str
    circuits: int
    populations: tuple[str, ...] = ()
    places: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((1, 0), np.int64))
    missed: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    codes: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    @property
    def failed(self) -> npt.NDArray[np.bool_]:
        """Mask of the circuits that missed any target, bool `[C]`."""
        masks = np.array([np.zeros(self.circuits, bool), *self.missed.values()])
        return np.asarray(masks.any(axis=0), bool)

    def spread(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return values of logical neurons `[N]` as values of their circuits `[C]`, NaN where there is no neuron.

        Raises:
            ValueError: There is not one value for each neuron.
        """
        if np.shape(values) != (self.places.shape[1],):
            raise ValueError(
                f"values of shape {list(np.shape(values))}, expected [{self.places.shape[1]}], one for each neuron "
                f"that chip {self.chip} is configured with"
            )
        result = np.full(self.circuits, np.nan)
        for row in self.places:
            result[row[row >= 0]] = np.asarray(values, float)[row >= 0]
        return result

    def spread_masks(self, masks: Mapping[str, npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
        """Return the mask of the circuits `[C]` whose neurons are in the masks of their populations.

        Args:
            masks: Mask of the neurons of each population, by its name; a population without one has no neuron in it.
        """
        values = np.zeros(self.places.shape[1])
        names = np.array(self.populations, dtype=object)
        for name, mask in masks.items():
            members = np.flatnonzero(names == name)[: len(mask)]
            values[members] = np.asarray(mask, float)[: len(members)]
        return np.nan_to_num(self.spread(values)) > 0
