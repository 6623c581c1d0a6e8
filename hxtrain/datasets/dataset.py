"""Images and labels in memory, with the hash that names them."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .errors import DatasetError


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set.

    images: uint8 [N, H, W], 0 (background) to 255.
    labels: int64 [N], class numbers from 0.

    Raises:
        DatasetError: a shape or dtype is wrong, or the counts disagree.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 3:
            raise DatasetError(f"images must be uint8 [N, H, W], got {self.images.dtype} {list(self.images.shape)}")
        if self.labels.dtype != torch.int64 or self.labels.ndim != 1:
            raise DatasetError(f"labels must be int64 [N], got {self.labels.dtype} {list(self.labels.shape)}")
        if len(self.images) != len(self.labels):
            raise DatasetError(f"{len(self.images)} images but {len(self.labels)} labels; they must agree")

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """A train and a test split with their provenance.

    size: side of the square images in pixels.
    classes: class names, indexed by label.
    origin, licence: where the data come from and under which terms.
    note: what a reader of results must know about this copy (its partition above all).
    sha256: hash of all images and labels, see `content_sha256`; write it next to results.
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

    def __post_init__(self) -> None:
        for part, split in (("train", self.train), ("test", self.test)):
            if tuple(split.images.shape[1:]) != (self.size, self.size):
                raise DatasetError(
                    f"{self.name} {part}: images are {list(split.images.shape[1:])}, expected {self.size}x{self.size}"
                )
            if len(split) and not 0 <= int(split.labels.min()) <= int(split.labels.max()) < len(self.classes):
                raise DatasetError(
                    f"{self.name} {part}: labels run from {int(split.labels.min())} to "
                    f"{int(split.labels.max())}, expected 0 to {len(self.classes) - 1}"
                )


def content_sha256(train: Split, test: Split) -> str:
    """SHA-256 (hex) of both parts: name and shape, pixels, labels as little-endian int64.

    It depends on content and order only, not on the file format or compression.
    """
    digest = hashlib.sha256()
    for part, split in (("train", train), ("test", test)):
        digest.update(f"{part} {list(split.images.shape)}\n".encode())
        digest.update(np.ascontiguousarray(split.images.numpy()).data)
        digest.update(split.labels.numpy().astype("<i8").tobytes())
    return digest.hexdigest()
