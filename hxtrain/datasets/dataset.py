"""A data set: its parts with their provenance, and a hash that identifies them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from hxtrain.backends import Spikes
from hxtrain.console import html_table

from .augment import Augmentation
from .encoders import Encoder
from .errors import DatasetError
from .source import CPU, Source, source
from .split import Samples, Split

MOST_CLASSES = 20
"""Number of classes that a notebook shows by name."""


class Reserved(NamedTuple):
    """What a training with held out samples leaves alone until its end.

    Attributes:
        train: all training samples, held out ones included.
        test: test samples.
        held_out: description of the held out samples: `groups 3, 7`.
    """

    train: Samples
    test: Samples
    held_out: str


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A training and a test part, of square images, feature vectors or events, with their provenance.

    Attributes:
        name: name of the data set.
        train: training samples.
        test: samples for evaluation.
        classes: class names, indexed by label.
        size: side of the images in pixels, number of features, or number of units of events.
        origin: source of the data.
        licence: terms of use.
        note: remarks that a reader of results needs about this copy, above all about its partition.
        sha256: hash of all training and test samples and labels, see `content_sha256`; results record it.
        evaluated_on: kind of the samples in `test`: `test` or `validation`, see `hold_out`.
        validation: part for the choice of settings; None if the data set has no such part.
        plane: for data in the unit square, function that returns the points of a grid of S x S, row by row (y, then x
            ascending), as samples with their true class, or -1 outside all classes; None for other data.
        targets: spike trains that the output neurons should fire, of sample c for class c; None for data with classes
            alone.
        reserved: parts as they were before samples were held out; None if `test` has the test samples.
    """

    name: str
    train: Samples
    test: Samples
    classes: tuple[str, ...]
    size: int
    origin: str
    licence: str
    note: str
    sha256: str
    evaluated_on: str = "test"
    validation: Samples | None = None
    plane: Callable[[int], Split] | None = None
    targets: Spikes | None = None
    reserved: Reserved | None = None

    def __post_init__(self) -> None:
        if self.targets is not None and self.targets.samples != len(self.classes):
            raise DatasetError(
                f"{self.name}: targets of {self.targets.samples} samples, expected {len(self.classes)}, one per class"
            )
        for part, split in (("train", self.train), ("test", self.test), ("validation", self.validation)):
            if split is None:
                continue
            if split.shape != self.shape:
                raise DatasetError(
                    f"{self.name} {part}: {split.kind} are {list(split.shape)}, expected {list(self.shape)}"
                )
            if split.kind != self.train.kind:
                raise DatasetError(f"{self.name} {part}: {split.kind}, expected {self.train.kind} as in its train part")
            if len(split) and not 0 <= int(split.labels.min()) <= int(split.labels.max()) < len(self.classes):
                raise DatasetError(
                    f"{self.name} {part}: labels run from {int(split.labels.min())} to "
                    f"{int(split.labels.max())}, expected 0 to {len(self.classes) - 1}"
                )

    def __repr__(self) -> str:
        """Describe the data set in a line."""
        parts = f"{len(self.train)} training and {len(self.test)} {self.evaluated_on} samples"
        return f"Dataset({self.title}, {parts}, {len(self.classes)} classes)"

    def _repr_html_(self) -> str:
        """Return parts and provenance as a table of a notebook."""
        rows = [
            ("training samples", repr(self.train)),
            (f"{self.evaluated_on} samples", repr(self.test)),
            ("classes", f"{len(self.classes)}: {', '.join(self.classes[:MOST_CLASSES])}"),
            ("origin", self.origin),
            ("licence", self.licence),
            ("note", self.note),
            ("sha256", self.sha256),
        ]
        return html_table((), [row for row in rows if row[1]], repr(self))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a sample, (H, W), (F,), or (N,) for events of N units."""
        return (self.size,) * len(self.train.shape)

    @property
    def inputs(self) -> int:
        """Number of values of a sample, or of units of events."""
        return math.prod(self.shape)

    @property
    def title(self) -> str:
        """Name and shape, such as `mnist 16x16`."""
        unit = {"images": "x".join(map(str, self.shape)), "event samples": f"({self.size} units)"}
        return f"{self.name} {unit.get(self.train.kind, f'({self.size} features)')}"

    def source(
        self,
        samples: Samples,
        encoder: Encoder,
        augment: Augmentation | None = None,
        torch_device: torch.device = CPU,
    ) -> Source:
        """Return the source of input spikes of a part of these data.

        Args:
            samples: part of the data, such as `data.test`.
            encoder: code from samples to input events.
            augment: distortion of training samples; None for none.
            torch_device: device on which samples are encoded.

        Raises:
            DatasetError: the encoder, or the distortion, does not take samples of this kind.
        """
        return source(samples, encoder, augment, torch_device, self.title)


def content_sha256(train: Samples, test: Samples) -> str:
    """Return the SHA-256 (hex) of both parts: name and sizes, pixels, features or events, labels as int64.

    Numbers are little-endian. The hash depends on content and order only, not on the file format or compression.
    """
    digest = hashlib.sha256()
    for part, samples in (("train", train), ("test", test)):
        sizes, arrays = samples.content()
        digest.update(f"{part} {sizes}\n".encode())
        for array in arrays:
            digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
    return digest.hexdigest()
