"""Samples and labels in memory, with a hash that identifies them."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hxtrain.backends.intake import as_tensor, rows

from .errors import DatasetError


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """One part of a data set, made of tensors, numpy arrays or lists.

    Attributes:
        samples: images, uint8 [N, H, W], 0 (background) to 255; or feature vectors, float32 [N, F] in 0..1.
        labels: class numbers from 0, int64 [N].

    Raises:
        DatasetError: a shape or dtype is wrong, a feature is out of range, or the counts disagree.
    """

    samples: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        try:
            samples, labels = as_tensor(self.samples, "samples"), as_tensor(self.labels, "labels")
        except (TypeError, ValueError) as error:
            raise DatasetError(str(error)) from None
        whole = not labels.is_floating_point() and labels.dtype != torch.bool
        vars(self).update(samples=samples, labels=labels.long() if whole else labels)
        kind = self.samples.dtype
        shape = list(self.samples.shape)
        if (kind, len(shape)) not in ((torch.uint8, 3), (torch.float32, 2)):
            raise DatasetError(f"images must be uint8 [N, H, W], feature vectors float32 [N, F]; got {kind} {shape}")
        if len(shape) == 2 and self.samples.numel() and not bool(((self.samples >= 0) & (self.samples <= 1)).all()):
            low, high = float(self.samples.min()), float(self.samples.max())
            raise DatasetError(f"features span {low:.4g} to {high:.4g}, expected 0 to 1; scale them")
        if self.labels.dtype != torch.int64 or self.labels.ndim != 1:
            raise DatasetError(f"labels must be int64 [N], got {self.labels.dtype} {list(self.labels.shape)}")
        if len(self.samples) != len(self.labels):
            raise DatasetError(f"{len(self.samples)} {self.kind} but {len(self.labels)} labels; they must agree")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        """Describe the samples in a line."""
        return f"Split({len(self)} {self.kind}, {'x'.join(map(str, self.samples.shape[1:]))})"

    def __getitem__(self, chosen: Any) -> "Split":
        """Return some of the samples, in the order of the index.

        Args:
            chosen: slice, indices, or mask `[N]`.

        Raises:
            TypeError: the index is none of these; a single number is written `[[number]]`.
            IndexError: an index exceeds the number of samples.
        """
        part = chosen if isinstance(chosen, slice) else rows(chosen, len(self))
        if part is None:
            raise TypeError(
                f"split[{chosen!r}]: choose samples by a slice, indices or a mask [N], such as split[[0]]; one sample "
                "as a tensor is split.samples[0]"
            )
        return Split(self.samples[part], self.labels[part])

    @property
    def kind(self) -> str:
        """Kind of the samples: `images` or `feature vectors`."""
        return "images" if self.samples.ndim == 3 else "feature vectors"

    @property
    def images(self) -> Tensor:
        """The samples if they are images, uint8 [N, H, W].

        Raises:
            DatasetError: the samples are feature vectors.
        """
        if self.kind != "images":
            raise DatasetError(
                f"these samples are feature vectors {list(self.samples.shape)}, not images; use `samples`"
            )
        return self.samples


@dataclass(frozen=True, eq=False, repr=False)
class ImageDataset:
    """A train and a test split of square images or feature vectors, with their provenance.

    Attributes:
        name: name of the data set.
        train: training samples.
        test: samples for evaluation.
        classes: class names, indexed by label.
        size: side of the images in pixels, or number of features.
        origin: source of the data.
        licence: terms of use.
        note: remarks that a reader of results needs about this copy, above all about its partition.
        sha256: hash of all training and test samples and labels, see `content_sha256`; results record it.
        evaluated_on: kind of the samples in `test`: `test` or `validation`, see `hold_out`.
        validation: part for the choice of settings; None if the data set has no such part.
        plane: for data in the unit square, function that returns the points of a grid of S x S, row by row (y, then x
            ascending), as samples with their true class, or -1 outside all classes; None for other data.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    size: int
    origin: str
    licence: str
    note: str
    sha256: str
    evaluated_on: str = "test"
    validation: Split | None = None
    plane: Callable[[int], Split] | None = None

    def __post_init__(self) -> None:
        for part, split in (("train", self.train), ("test", self.test), ("validation", self.validation)):
            if split is None:
                continue
            if tuple(split.samples.shape[1:]) != self.shape:
                raise DatasetError(
                    f"{self.name} {part}: {split.kind} are {list(split.samples.shape[1:])}, expected {list(self.shape)}"
                )
            if len(split) and not 0 <= int(split.labels.min()) <= int(split.labels.max()) < len(self.classes):
                raise DatasetError(
                    f"{self.name} {part}: labels run from {int(split.labels.min())} to "
                    f"{int(split.labels.max())}, expected 0 to {len(self.classes) - 1}"
                )

    def __repr__(self) -> str:
        """Describe the data set in a line."""
        parts = f"{len(self.train)} training and {len(self.test)} {self.evaluated_on} samples"
        return f"ImageDataset({self.title}, {parts}, {len(self.classes)} classes)"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a sample, (H, W) or (F,)."""
        return (self.size,) * (self.train.samples.ndim - 1)

    @property
    def inputs(self) -> int:
        """Number of values of a sample."""
        return math.prod(self.shape)

    @property
    def title(self) -> str:
        """Name and shape, such as `mnist 16x16`."""
        return f"{self.name} " + ("x".join(map(str, self.shape)) if len(self.shape) > 1 else f"({self.size} features)")


def content_sha256(train: Split, test: Split) -> str:
    """Return the SHA-256 (hex) of both parts: name and shape, pixels or features, labels as int64.

    Numbers are little-endian. The hash depends on content and order only, not on the file format or compression.
    """
    digest = hashlib.sha256()
    for part, split in (("train", train), ("test", test)):
        samples = split.samples.numpy()
        digest.update(f"{part} {list(samples.shape)}\n".encode())
        digest.update(np.ascontiguousarray(samples, dtype=samples.dtype.newbyteorder("<")).data)
        digest.update(split.labels.numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def hold_out(data: ImageDataset, count: int) -> ImageDataset:
    """Return a data set whose test samples are the last `count` training samples, removed from the training part.

    If the data set has a validation part, the first `count` samples of it are used instead. Settings are chosen on held
    out samples, since they must not be chosen on test samples. The hash remains the hash of all samples.

    Raises:
        DatasetError: `count` exceeds the number of samples.
    """
    if count == 0:
        return data
    train = data.train
    validation = data.validation
    available = len(train if validation is None else validation)
    limit, part = (available - 1, "training") if validation is None else (available, "validation")
    if not 0 < count <= limit:
        raise DatasetError(
            f"validation={count} of {available} {part} {train.kind}; hold out fewer, or 0 to use the test {train.kind}"
        )
    if validation is not None:
        return replace(data, test=validation[:count], evaluated_on="validation")
    return replace(data, train=train[:-count], test=train[-count:], evaluated_on="validation")
