"""The base of samples of events: what a source, an evaluation and a plot need of them, wherever the events are."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.backends.intake import rows

from ..errors import DatasetError
from ..split import Samples

KIND = "event samples"


class EventSamples(Samples):
    """Base: labelled samples of events, any number of them per unit.

    Attributes:
        units: number of units.
        labels: class numbers from 0, int64 [N].
        groups: number of the speaker or subject of each sample, int64 [N]; None if unknown.
    """

    units: int

    @abstractmethod
    def events(self, chosen: Any) -> Spikes:
        """Return the events of some samples, at recorded times (s), renumbered from 0 in the order of the index.

        Args:
            chosen: slice, indices, or mask `[N]`.

        Raises:
            TypeError: the index is none of these; a single number is written `[number]`.
            IndexError: an index exceeds the number of samples.
        """

    @property
    def kind(self) -> str:
        """Kind of the samples."""
        return KIND

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of units, as a shape (N,)."""
        return (self.units,)

    @property
    def images(self) -> Tensor:
        """No images: always an error, see `Samples`."""
        raise DatasetError(f"these samples are events of {self.units} units, not images; use `events([0])`")

    def _rows(self, chosen: Any) -> Tensor:
        """Return the samples that an index chooses, int64 [S]."""
        numbers = torch.arange(len(self))[chosen] if isinstance(chosen, slice) else rows(chosen, len(self))
        if numbers is None:
            raise TypeError(
                f"split[{chosen!r}]: choose samples by a slice, indices or a mask [N], such as split[[0]]; one sample "
                "as events is split.events([0])"
            )
        return numbers
