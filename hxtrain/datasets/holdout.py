"""Held out samples: settings and epochs are chosen on them, so that the test samples serve a single time.

Samples of a group, such as the recordings of a speaker, resemble each other. Held out groups tell how a network deals
with speakers that it never met, as the test part of the Heidelberg data sets does; held out samples of the training
speakers do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .dataset import Dataset, Reserved
from .errors import DatasetError

MOST_LISTED = 20
"""Number of groups that an error lists."""


def hold_out(data: Dataset, count: int) -> Dataset:
    """Return a data set whose test samples are the last `count` training samples, removed from the training part.

    If the data set has a validation part, the first `count` samples of it are used instead. The hash remains the hash
    of all samples.

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
        reserved = Reserved(train, data.test, f"{count} samples of the validation part")
        return replace(data, test=validation[:count], evaluated_on="validation", reserved=reserved)
    reserved = Reserved(train, data.test, f"the last {count} training samples")
    return replace(data, train=train[:-count], test=train[-count:], evaluated_on="validation", reserved=reserved)


def hold_out_groups(data: Dataset, chosen: Sequence[int]) -> Dataset:
    """Return a data set whose test samples are those of some groups, removed from the training part.

    Args:
        data: Data set whose training samples have groups.
        chosen: Numbers of the groups.

    Raises:
        DatasetError: the samples have no groups, there is no such group, or none remains.
    """
    groups = _groups(data)
    numbers = sorted(set(groups.tolist()))
    absent = sorted(set(chosen) - set(numbers))
    if absent or len(set(chosen)) != len(chosen):
        fault = f"there is no group {', '.join(map(str, absent))}" if absent else "a group is named twice"
        raise DatasetError(
            f"validation_groups={list(chosen)}: {fault}; the groups of {data.title} are {_text(numbers)}"
        )
    if not 0 < len(chosen) < len(numbers):
        raise DatasetError(
            f"validation_groups={list(chosen)} of {len(numbers)} groups leave nothing to train on; hold out fewer"
        )
    is_held_out = torch.isin(groups, torch.tensor(list(chosen)))
    return replace(
        data,
        train=data.train[~is_held_out],
        test=data.train[is_held_out],
        evaluated_on="validation",
        reserved=Reserved(data.train, data.test, f"groups {', '.join(map(str, sorted(chosen)))}"),
    )


def drawn_groups(data: Dataset, count: int, seed: int) -> list[int]:
    """Return `count` random groups of the training samples, ascending.

    Raises:
        DatasetError: the samples have no groups, or not so many.
    """
    numbers = sorted(set(_groups(data).tolist()))
    if not 0 < count < len(numbers):
        raise DatasetError(
            f"validation_random_groups={count} of {len(numbers)} groups of {data.title}; give 1 to {len(numbers) - 1}"
        )
    order = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(seed))
    return sorted(numbers[number] for number in order[:count])


def _groups(data: Dataset) -> Tensor:
    """Return the group of each training sample, int64 [N].

    Raises:
        DatasetError: the samples have no groups.
    """
    if data.train.groups is None:
        raise DatasetError(
            f"{data.title} does not tell the speakers, writers or subjects of its samples; hold out a number of "
            "samples with validation=N"
        )
    return data.train.groups


def _text(numbers: Sequence[int]) -> str:
    """Return a list of groups."""
    rest = "" if len(numbers) <= MOST_LISTED else f" and {len(numbers) - MOST_LISTED} more"
    return ", ".join(map(str, numbers[:MOST_LISTED])) + rest
