"""The spoken digits of synthetic voices that come with the package."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hxtrain.datasets import DatasetError, load_dataset
from hxtrain.datasets.catalogue import SPOKEN_DIGITS
from hxtrain.datasets.events import EventSplit
from hxtrain.datasets.events.heidelberg_writer import write_heidelberg
from hxtrain.datasets.events.spoken_digits import read_shipped_digits, write_digits


@pytest.fixture(scope="module")
def parts() -> tuple[EventSplit, EventSplit]:
    return read_shipped_digits()


def test_shipped_digits_are_those_of_the_catalogue() -> None:
    data = load_dataset("spoken_digits")
    assert data.sha256 == SPOKEN_DIGITS.sha256
    assert "not the Spiking Heidelberg Digits" in data.note
    assert data.inputs == 70
    assert len(data.classes) == 20


def test_two_speakers_are_in_the_test_alone(parts: tuple[EventSplit, EventSplit]) -> None:
    train, test = parts
    assert train.groups is not None
    assert test.groups is not None
    speakers = set(train.groups.tolist())
    assert set(test.groups.tolist()) == speakers | {4, 5}
    assert not {4, 5} & speakers
    shared = test[~torch.isin(test.groups, torch.tensor([4, 5]))]
    assert len(shared) == pytest.approx(0.05 * (len(train) + len(shared)), rel=0.06)
    assert len(set(torch.bincount(train.labels).tolist())) == 1


def test_digits_have_enough_spikes_and_channels(parts: tuple[EventSplit, EventSplit]) -> None:
    for part in parts:
        counts = part.offsets.diff()
        assert int(counts.min()) > 80
        assert int(counts.max()) < 3000
        assert float((counts >= 300).float().mean()) > 0.9
        sample = torch.arange(len(part)).repeat_interleave(counts)
        active = torch.zeros(len(part), part.units, dtype=torch.bool)
        active[sample, part.unit.long()] = True
        assert float((active.sum(1) >= 40).float().mean()) > 0.95


def test_no_two_samples_are_equal(parts: tuple[EventSplit, EventSplit]) -> None:
    trains = set()
    for part in parts:
        for first, last in zip(part.offsets[:-1].tolist(), part.offsets[1:].tolist(), strict=True):
            trains.add(part.time[first:last].numpy().tobytes() + part.unit[first:last].numpy().tobytes())
    assert len(trains) == len(parts[0]) + len(parts[1])


def test_file_of_the_package_keeps_all_events(parts: tuple[EventSplit, EventSplit], tmp_path: Path) -> None:
    train, test = (part[:30] for part in parts)
    write_digits(tmp_path / "digits.npz", train, test)
    for part, copy in zip((train, test), read_shipped_digits(source=tmp_path / "digits.npz"), strict=True):
        assert part.content()[0] == copy.content()[0]
        assert all((a == b).all() for a, b in zip(part.content()[1], copy.content()[1], strict=True))
        assert part.groups is not None
        assert torch.equal(part.groups, copy.groups)


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "digits.npz").write_bytes(b"no archive")
    with pytest.raises(DatasetError, match=r"digits\.npz.*hxtrain data speech"):
        read_shipped_digits(source=tmp_path / "digits.npz")


def test_digits_of_a_folder(parts: tuple[EventSplit, EventSplit], tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"spoken_digits_train\.h5: there is no such file"):
        load_dataset("spoken_digits", folder=tmp_path)
    for name, part in zip(("train", "test"), parts, strict=True):
        write_heidelberg(tmp_path / f"spoken_digits_{name}.h5", part[:30], SPOKEN_DIGITS.classes)
    data = load_dataset("spoken_digits", folder=tmp_path)
    assert len(data.train) == 30
    assert torch.equal(data.train.time, parts[0][:30].time)
    write_heidelberg(tmp_path / "spoken_digits_test.h5", parts[1][:3], [str(number) for number in range(20)])
    with pytest.raises(DatasetError, match="expected zero, one"):
        load_dataset("spoken_digits", folder=tmp_path)


def test_samples_of_all_channels_are_not_shipped(tmp_path: Path) -> None:
    split = EventSplit.from_arrays([0.1], [650], [0, 1], [0], 700, groups=[0])
    with pytest.raises(DatasetError, match="have 700 and 700 units, the shipped file has 70; make them by"):
        write_digits(tmp_path / "digits.npz", split, split)
    assert not (tmp_path / "digits.npz").exists()
