"""Held out groups and samples, what is reserved for the end, and shuffled times."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import hxtrain as hx
from hxtrain.datasets import DataConfig, Dataset, DatasetError, EventSplit
from hxtrain.datasets.events import HeidelbergFile, StoredEvents, write_heidelberg
from hxtrain.datasets.holdout import drawn_groups, hold_out, hold_out_groups
from hxtrain.datasets.shuffle import shuffled_times, with_shuffled_times

SPEAKERS = torch.tensor([3, 7, 3, 5, 5, 9, 7, 3])


def speech(groups: torch.Tensor | None = SPEAKERS) -> Dataset:
    """Return eight training and four test samples of two classes; sample n has its own number of events."""
    random = torch.Generator().manual_seed(0)
    parts = []
    for count in (8, 4):
        sample = torch.arange(count).repeat_interleave(torch.arange(20, 20 + count))
        unit = torch.randint(6, (len(sample),), generator=random)
        time = torch.rand(len(sample), generator=random)
        labels = torch.arange(count) % 2
        spikes = hx.Spikes(sample, unit, time, count, 6)
        parts.append(EventSplit.from_spikes(spikes, labels, groups if count == 8 else None))
    return Dataset("speech", *parts, ("a", "b"), 6, "", "", "", "hash")


def test_whole_groups_are_held_out():
    data = speech()
    held = hold_out_groups(data, [7, 3])
    assert held.train.groups.tolist() == [5, 5, 9]
    assert held.test.groups.tolist() == [3, 7, 3, 7, 3]
    assert torch.equal(held.test.labels, data.train.labels[torch.isin(SPEAKERS, torch.tensor([3, 7]))])
    assert (held.evaluated_on, held.reserved.held_out) == ("validation", "groups 3, 7")
    assert held.reserved.train is data.train
    assert held.reserved.test is data.test


def test_held_out_samples_leave_the_test_part_alone():
    data = speech()
    held = hold_out(data, 2)
    assert (len(held.train), len(held.test), held.reserved.held_out) == (6, 2, "the last 2 training samples")
    assert held.reserved.test is data.test
    published = hold_out(replace(data, validation=data.train[:3]), 2)
    assert (len(published.train), published.reserved.held_out) == (8, "2 samples of the validation part")
    assert data.reserved is hold_out(data, 0).reserved is None


def test_random_groups_follow_the_seed():
    draws = {tuple(drawn_groups(speech(), 2, seed)) for seed in range(30)}
    assert draws == {(3, 5), (3, 7), (3, 9), (5, 7), (5, 9), (7, 9)}
    assert drawn_groups(speech(), 2, 4) == drawn_groups(speech(), 2, 4)


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        ([4], r"validation_groups=\[4\]: there is no group 4; the groups of speech \(6 units\) are 3, 5, 7, 9"),
        ([3, 3], r"validation_groups=\[3, 3\]: a group is named twice"),
        ([3, 5, 7, 9], "of 4 groups leave nothing to train on; hold out fewer"),
    ],
)
def test_groups_that_are_not_there_are_refused(chosen, text):
    with pytest.raises(DatasetError, match=text):
        hold_out_groups(speech(), chosen)


@pytest.mark.parametrize("count", [-1, 4, 5])
def test_a_number_of_groups_out_of_range_is_refused(count):
    with pytest.raises(DatasetError, match=f"validation_random_groups={count} of 4 groups .* give 1 to 3"):
        drawn_groups(speech(), count, 0)


def test_samples_without_groups_are_refused():
    for hold in (lambda data: hold_out_groups(data, [3]), lambda data: drawn_groups(data, 1, 0)):
        with pytest.raises(DatasetError, match=r"does not tell the speakers, .* hold out a number of samples with"):
            hold(speech(None))
    with pytest.raises(DatasetError, match="digits 8x8 does not tell the speakers"):
        DataConfig("digits", validation_groups=[1]).load()


def test_two_ways_to_hold_out_are_refused():
    with pytest.raises(ValueError, match=r"data.validation=5 and data.validation_groups=\[1\] both hold out samples"):
        DataConfig("digits", validation=5, validation_groups=[1])


def test_shuffled_times_keep_the_counts_and_the_times_of_each_unit():
    data = speech()
    shuffled = with_shuffled_times(data)
    assert shuffled.sha256 == data.sha256
    assert "shuffled" in shuffled.note
    for name in ("train", "test"):
        plain, mixed = getattr(data, name), getattr(shuffled, name)
        assert torch.equal(mixed.offsets, plain.offsets)
        for unit in range(6):
            assert torch.equal(*(part.time[part.unit == unit].sort()[0] for part in (plain, mixed)))
        for number in range(len(plain)):
            counts = [torch.bincount(part.events([number]).unit, minlength=6) for part in (plain, mixed)]
            assert torch.equal(*counts)
            assert bool((mixed.events([number]).time.diff() >= 0).all())
        assert float((mixed.time == plain.time).float().mean()) < 0.2
    assert torch.equal(shuffled.train.time, with_shuffled_times(speech()).train.time)
    assert torch.equal(shuffled.train.groups, data.train.groups)


def test_stored_events_are_shuffled_as_those_in_memory(tmp_path):
    data = speech()
    write_heidelberg(tmp_path / "train.h5", data.train, data.classes, np.float32)
    stored = StoredEvents(HeidelbergFile(tmp_path / "train.h5"))
    assert torch.equal(shuffled_times(stored, "train").time, with_shuffled_times(data).train.time)


def test_only_events_have_times_to_shuffle():
    with pytest.raises(DatasetError, match="only events have times to shuffle, not images"):
        DataConfig("digits", shuffled_times=True).load()
