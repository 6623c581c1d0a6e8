"""The base of augmentations: which samples they take, and whether they change any."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass, fields
from typing import ClassVar

from hxtrain.datasets.split import Samples


@dataclass
class Augmentation(ABC):
    """Base: distortion of training samples of one kind. Settings of 0 or false change nothing.

    Attributes:
        TAKES: kind of the samples, plural: `images`, `event samples`.
    """

    TAKES: ClassVar[str]

    @property
    def active(self) -> bool:
        """Whether samples are changed at all."""
        return any(getattr(self, item.name) for item in fields(self))

    def check(self, samples: Samples, title: str = "") -> None:
        """Check that samples can be distorted.

        Args:
            samples: Samples to distort.
            title: Name of the data, for the error.

        Raises:
            ValueError: The samples are of another kind.
        """
        if self.active and samples.kind != self.TAKES:
            values = {item.name: getattr(self, item.name) for item in fields(self)}
            distortions = ", ".join(f"augment.{name}={value}" for name, value in values.items() if value)
            raise ValueError(f"{distortions}: this distorts {self.TAKES}, not {title or samples.kind}; leave it out")
