"""Samples and labels in memory, with the hash that names them."""

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
    """One part of a data set.

    Tensors, numpy arrays or lists.

    samples: images, uint8 [N, H, W], 0 (background) to 255; or feature vectors, float32 [N, F] in 0..1.
    labels: int64 [N], class numbers from 0.

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
        kind, shape = self.samples.dtype, list(self.samples.shape)
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
        """Return some of the samples, in the order given: a slice, indices, or a mask `[N]`.

        Raises:
            TypeError: these are no indices, such as a single number: take `[[number]]`.
            IndexError: there is no such sample.
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
        """What the samples are: `images` or `feature vectors`."""
        return "images" if self.samples.ndim == 3 else "feature vectors"

    @property
    def images(self) -> Tensor:
        """The samples, uint8 [N, H, W], where they are images.

        Raises:
            DatasetError: they are not.
        """
        if self.kind != "images":
            raise DatasetError(
                f"these samples are feature vectors {list(self.samples.shape)}, not images; use `samples`"
            )
        return self.samples


@dataclass(frozen=True, eq=False, repr=False)
class ImageDataset:
    """A train and a test split with their provenance; of square images, or of feature vectors.

    size: side of the images in pixels, or number of features.
    classes: class names, indexed by label.
    origin, licence: where the data come from and under which terms.
    note: what a reader of results must know about this copy (its partition above all).
    sha256: hash of all training and test samples and labels, see `content_sha256`; write it next to results.
    evaluated_on: which samples `test` holds: `test`, or `validation`, see `hold_out`.
    validation: a part for choices of settings, where the data have one of their own.
    plane: for data that lie in the unit square: returns the points of a grid of S x S, row by row (y, then x
        ascending), as samples, with their true class or -1 where there is none.
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
    """SHA-256 (hex) of both parts: name and shape, pixels or little-endian features, labels as little-endian int64.

    It depends on content and order only, not on the file format or compression.
    """
    digest = hashlib.sha256()
    for part, split in (("train", train), ("test", test)):
        samples = split.samples.numpy()
        digest.update(f"{part} {list(samples.shape)}\n".encode())
        digest.update(np.ascontiguousarray(samples, dtype=samples.dtype.newbyteorder("<")).data)
        digest.update(split.labels.numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def hold_out(data: ImageDataset, count: int) -> ImageDataset:
    """Return a data set whose test samples are the last `count` training samples, which are then not trained on.

    Where the data have a validation part of their own, it is the first `count` samples of that instead. For choices of
    settings, which must not be made on test samples. The hash stays that of all samples.

    Raises:
        DatasetError: there are not so many.
    """
    if count == 0:
        return data
    own, train = data.validation, data.train
    most, part = (len(train) - 1, "training") if own is None else (len(own), "validation")
    if not 0 < count <= most:
        raise DatasetError(
            f"validation={count} of {len(train if own is None else own)} {part} {train.kind}; hold out fewer, or 0 to "
            f"use the test {train.kind}"
        )
    if own is not None:
        return replace(data, test=own[:count], evaluated_on="validation")
    return replace(data, train=train[:-count], test=train[-count:], evaluated_on="validation")
