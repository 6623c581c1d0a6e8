"""Samples and labels in memory, as values: images or feature vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import Self

from hxtrain.backends.intake import as_tensor, rows

from .errors import DatasetError

Array = npt.NDArray[np.generic]


class Samples(ABC):
    """Base: labelled samples, one part of a data set.

    Attributes:
        labels: class numbers from 0, int64 [N].
        groups: number of the speaker, writer or subject of each sample, int64 [N]; None if unknown. Samples of one
            group resemble each other, so that a validation part holds out whole groups.
    """

    labels: Tensor
    groups: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def kind(self) -> str:
        """Kind of the samples, plural: `images`, `feature vectors`, `event samples`."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of a sample: (H, W), the number of features (F,), or the number of units (N,)."""

    @property
    @abstractmethod
    def images(self) -> Tensor:
        """The samples if they are images, uint8 [N, H, W].

        Raises:
            DatasetError: the samples are of another kind.
        """

    @abstractmethod
    def __getitem__(self, chosen: Any) -> Self:
        """Return some of the samples, in the order of the index.

        Args:
            chosen: slice, indices, or mask `[N]`.

        Raises:
            TypeError: the index is none of these; a single number is written `[[number]]`.
            IndexError: an index exceeds the number of samples.
        """

    def relabelled(self, labels: Tensor) -> Self:
        """Return the same samples with other labels, int64 `[N]`."""
        return cast(Self, replace(cast(Any, self), labels=labels))  # every kind of samples is a dataclass

    @abstractmethod
    def content(self) -> tuple[list[int], Iterable[Array]]:
        """Return all that `content_sha256` covers: the sizes, and arrays or pieces of them in turn, labels last."""


@dataclass(frozen=True, eq=False, repr=False)
class Split(Samples):
    """Images or feature vectors, made of tensors, numpy arrays or lists.

    Attributes:
        samples: images, uint8 [N, H, W], 0 (background) to 255; or feature vectors, float32 [N, F] in 0..1.
        labels: class numbers from 0, int64 [N].
        groups: number of the speaker, writer or subject of each sample, int64 [N]; None if unknown.

    Raises:
        DatasetError: a shape or dtype is wrong, a feature is out of range, or the counts disagree.
    """

    samples: Tensor
    labels: Tensor
    groups: Tensor | None = None

    def __post_init__(self) -> None:
        try:
            samples, labels = as_tensor(self.samples, "samples"), as_tensor(self.labels, "labels")
        except (TypeError, ValueError) as error:
            raise DatasetError(str(error)) from None
        vars(self).update(samples=samples, labels=labels)
        kind = samples.dtype
        shape = list(samples.shape)
        if (kind, len(shape)) not in ((torch.uint8, 3), (torch.float32, 2)):
            raise DatasetError(f"images must be uint8 [N, H, W], feature vectors float32 [N, F]; got {kind} {shape}")
        if len(shape) == 2 and samples.numel() and not bool(((samples >= 0) & (samples <= 1)).all()):
            low, high = float(samples.min()), float(samples.max())
            raise DatasetError(f"features span {low:.4g} to {high:.4g}, expected 0 to 1; scale them")
        groups = checked_groups(self.groups, len(samples), self.kind)
        vars(self).update(labels=checked_labels(labels, len(samples), self.kind), groups=groups)

    def __repr__(self) -> str:
        """Describe the samples in a line."""
        return f"Split({len(self)} {self.kind}, {'x'.join(map(str, self.shape))})"

    def __getitem__(self, chosen: Any) -> Split:
        """Return some of the samples, see `Samples`."""
        part = chosen if isinstance(chosen, slice) else rows(chosen, len(self))
        if part is None:
            raise TypeError(
                f"split[{chosen!r}]: choose samples by a slice, indices or a mask [N], such as split[[0]]; one sample "
                "as a tensor is split.samples[0]"
            )
        return Split(self.samples[part], self.labels[part], None if self.groups is None else self.groups[part])

    @property
    def kind(self) -> str:
        """Kind of the samples: `images` or `feature vectors`."""
        return "images" if self.samples.ndim == 3 else "feature vectors"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a sample, (H, W) or (F,)."""
        return tuple(self.samples.shape[1:])

    @property
    def images(self) -> Tensor:
        """The samples if they are images, see `Samples`."""
        if self.kind != "images":
            raise DatasetError(
                f"these samples are feature vectors {list(self.samples.shape)}, not images; use `samples`"
            )
        return self.samples

    def content(self) -> tuple[list[int], Iterable[Array]]:
        """Return the shape, and samples and labels."""
        return list(self.samples.shape), (self.samples.numpy(), self.labels.numpy())


def intensities(samples: Tensor) -> Tensor:
    """Return intensities in 0..1 of 8-bit images `[B, H, W]`; features `[B, F]` have them already."""
    return samples.to(torch.float32).mul_(1 / 255) if samples.dtype == torch.uint8 else samples


def values_of(samples: Samples, title: str, user: str) -> Split:
    """Return samples that have values, after a check.

    Args:
        samples: samples to check.
        title: name of the data, for the error.
        user: what needs values, for the error: `an artificial neural network`.

    Raises:
        DatasetError: the samples are events.
    """
    if not isinstance(samples, Split):
        raise DatasetError(f"{user} takes images or feature vectors; {title or 'the data'} has {samples.kind}")
    return samples


def checked_labels(labels: Tensor, count: int, kind: str) -> Tensor:
    """Return labels of `count` samples as int64 [N].

    Raises:
        DatasetError: the labels are not whole numbers, or their number differs.
    """
    if labels.is_floating_point() or labels.dtype == torch.bool or labels.ndim != 1:
        raise DatasetError(f"labels must be int64 [N], got {labels.dtype} {list(labels.shape)}")
    if len(labels) != count:
        raise DatasetError(f"{count} {kind} but {len(labels)} labels; they must agree")
    return labels.long()


def checked_groups(groups: Any, count: int, kind: str) -> Tensor | None:
    """Return groups of `count` samples as int64 [N]; None if there are none.

    Raises:
        DatasetError: the groups are not whole numbers, or their number differs.
    """
    if groups is None:
        return None
    try:
        numbers = as_tensor(groups, "groups")
    except (TypeError, ValueError) as error:
        raise DatasetError(str(error)) from None
    if numbers.is_floating_point() or numbers.dtype == torch.bool or numbers.ndim != 1:
        raise DatasetError(f"groups must be int64 [N], got {numbers.dtype} {list(numbers.shape)}")
    if len(numbers) != count:
        raise DatasetError(f"{count} {kind} but {len(numbers)} groups; they must agree")
    return numbers.long()
