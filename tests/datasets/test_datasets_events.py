"""Samples of events: forms, indexing, identity, and a user's files of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hxtrain as hx
from hxtrain.datasets import Dataset, DatasetError, EventSplit, content_sha256, load_dataset
from hxtrain.datasets.holdout import hold_out

# four samples of five units: two events, none, three of which two are of one unit at one time, one
TIMES = np.array([0.25, 0.5, 0.0, 0.125, 0.125, 2.0])
NUMBERS = np.array([4, 0, 1, 3, 3, 2])
OFFSETS = np.array([0, 2, 2, 5, 6])
SAMPLES = np.array([0, 0, 2, 2, 2, 3])
LABELS = np.array([0, 1, 0, 1])


def split(**changes: Any) -> EventSplit:
    arrays = {"time": TIMES, "unit": NUMBERS, "offsets": OFFSETS, "labels": LABELS, "units": 5}
    return EventSplit.from_arrays(**(arrays | changes))


def spikes() -> hx.Spikes:
    return hx.Spikes.from_events(SAMPLES, NUMBERS, TIMES, samples=4, units=5)


def assert_equal(first: hx.Spikes, second: hx.Spikes) -> None:
    assert (first.samples, first.units) == (second.samples, second.units)
    for name in ("sample", "unit", "time"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name


REVERSED = np.array([1, 0, 4, 3, 2, 5])  # each sample backwards
FORMS: dict[str, Callable[[], EventSplit]] = {
    "half precision": lambda: split(time=TIMES.astype(np.float16)),
    "microseconds": lambda: split(time=(TIMES * 1e6).astype(np.int64), time_unit=1e-6),
    "small integers": lambda: split(
        unit=NUMBERS.astype(np.uint8), offsets=OFFSETS.astype(np.int32), labels=[0, 1, 0, 1]
    ),
    "lists": lambda: split(time=TIMES.tolist(), unit=NUMBERS.tolist(), offsets=OFFSETS.tolist()),
    "not sorted": lambda: split(time=TIMES[REVERSED], unit=NUMBERS[REVERSED]),
    "spikes": lambda: EventSplit.from_spikes(spikes(), LABELS),
    "spikes, not sorted": lambda: EventSplit.from_spikes(
        hx.Spikes.from_events(SAMPLES[::-1], NUMBERS[::-1], TIMES[::-1], samples=4, units=5), LABELS
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_samples(form: str) -> None:
    events = FORMS[form]()
    assert_equal(events.events(range(4)), spikes())
    assert content_sha256(events, events) == content_sha256(split(), split())
    assert (events.time.dtype, events.unit.dtype, events.labels.dtype) == (torch.float32, torch.int16, torch.int64)
    assert repr(events) == "EventSplit(4 samples, 6 events, 5 units)"
    assert (events.kind, events.shape) == ("event samples", (5,))


def test_more_units_take_more_memory_and_mean_the_same() -> None:
    wide = split(units=40_000, unit=NUMBERS + 32_764)
    assert wide.unit.dtype == torch.int32
    assert torch.equal(wide.events([0, 2]).unit, torch.tensor([32_768, 32_764, 32_765, 32_767, 32_767]))


@pytest.mark.parametrize(
    "chosen",
    [slice(1, 3), slice(None), slice(3, 1), slice(-2, None), slice(0, 4, 2), [3, 0, 0, 1], [-1], [], [True, False] * 2],
    ids=str,
)
def test_chosen_samples_are_those_of_the_spikes(chosen: Any) -> None:
    part = split()[chosen]
    assert_equal(split().events(chosen), spikes()[chosen])
    assert_equal(part.events(slice(None)), spikes()[chosen])
    assert part.labels.tolist() == LABELS[chosen or slice(0)].tolist()
    assert len(part) == len(part.offsets) - 1 == len(part.labels)


def test_long_samples_are_copied_as_a_whole() -> None:
    numbers = np.random.default_rng(0)
    long = EventSplit.from_arrays(
        np.sort(numbers.random(2000)), numbers.integers(0, 5, 2000), [0, 1999, 1999, 2000], [0, 1, 0], units=5
    )
    events = long.events(slice(None))
    for chosen in ([2, 0, 2], [1], []):
        assert_equal(long.events(chosen), events[chosen])
        assert_equal(long[chosen].events(slice(None)), events[chosen])


def test_consecutive_samples_share_the_memory() -> None:
    events = split()
    assert events[2:].time.untyped_storage().data_ptr() == events.time.untyped_storage().data_ptr()


@pytest.mark.parametrize("change", ["time", "unit", "offsets", "labels", "units"])
def test_the_hash_tells_all_content_apart(change: str) -> None:
    values = {
        "time": TIMES + 0.001,
        "unit": NUMBERS[[1, 0, 2, 3, 4, 5]],
        "offsets": [0, 2, 5, 5, 6],
        "labels": [1, 1, 0, 1],
        "units": 6,
    }
    assert content_sha256(split(), split()) != content_sha256(split(), split(**{change: values[change]}))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: split(time=-TIMES), DatasetError, r"times must be finite and >= 0 s, smallest is -2"),
        (lambda: split(time=TIMES * np.nan), DatasetError, "times must be finite"),
        (lambda: split(time=TIMES[:5]), DatasetError, "offsets spans 0..6, allowed 0..5"),
        (lambda: split(unit=NUMBERS[:5]), DatasetError, "6 times but 5 units of events; they must agree"),
        (lambda: split(units=4), DatasetError, "unit spans 0..4, allowed 0..3"),
        (lambda: split(units=-1), DatasetError, "units=-1 must be a whole number"),
        (lambda: split(unit=NUMBERS / 2), DatasetError, "unit has the value 0.5, expected whole numbers"),
        (lambda: split(offsets=OFFSETS[1:]), DatasetError, "offsets must ascend from 0 to the number of events, 6"),
        (lambda: split(offsets=OFFSETS[:4]), DatasetError, "offsets must ascend"),
        (lambda: split(offsets=[0, 5, 2, 5, 6]), DatasetError, "offsets must ascend"),
        (lambda: split(offsets=[]), DatasetError, "offsets must ascend"),
        (lambda: split(labels=LABELS[:3]), DatasetError, "4 event samples but 3 labels; they must agree"),
        (lambda: split(labels=LABELS / 2), DatasetError, r"labels must be int64 \[N\], got torch.float64"),
        (lambda: split(labels=["a"] * 4), DatasetError, "labels is list of dtype <U1"),
        (lambda: EventSplit.from_spikes(TIMES, LABELS), DatasetError, "expected Spikes, got ndarray"),
        (lambda: split()[2], TypeError, r"split\[2\]: choose samples by .* split.events\(\[0\]\)"),
        (lambda: split()[[4]], IndexError, r"samples 4..4 of 4, allowed 0..3"),
        (lambda: split().images, DatasetError, "events of 5 units, not images"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


def flat(**changes: Any) -> dict[str, Any]:
    """Return the arrays of one part."""
    return {"times": TIMES, "units": NUMBERS, "offsets": OFFSETS, "labels": LABELS, **changes}


def two_files(folder: Path, train: dict[str, Any], test: dict[str, Any]) -> None:
    for name, arrays in (("train", train), ("test", test)):
        np.savez(folder / f"{name}.npz", **{key: value for key, value in arrays.items() if value is not None})


def one_file(folder: Path, train: dict[str, Any], test: dict[str, Any]) -> None:
    arrays = {
        f"{name}_{key}": value for name, part in (("train", train), ("test", test)) for key, value in part.items()
    }
    np.savez(folder / "data.npz", classes=np.array(["left", "right"]), **arrays)


SHUFFLED = np.array([3, 5, 0, 4, 1, 2])
BY_SAMPLE = {"times": TIMES[SHUFFLED], "units": NUMBERS[SHUFFLED], "offsets": None, "samples": SAMPLES[SHUFFLED]}


@pytest.mark.parametrize(
    ("write", "part"),
    [(two_files, flat()), (one_file, flat()), (two_files, flat(**BY_SAMPLE))],
    ids=["two files", "one file", "samples in any order"],
)
def test_a_folder_of_events_is_read(tmp_path: Path, write: Callable[..., None], part: dict[str, Any]) -> None:
    write(tmp_path, part, part)
    data = load_dataset("folder", folder=tmp_path)
    assert (data.title, data.size, data.shape, data.inputs) == ("folder (5 units)", 5, (5,), 5)
    assert data.classes == (("left", "right") if write is one_file else ("0", "1"))
    assert isinstance(data.train, EventSplit)
    assert_equal(data.train.events(slice(None)).ordered(), spikes().ordered())
    assert data.sha256 == content_sha256(data.train, data.test)
    assert len(hold_out(data, 1).train) == 3
    assert load_dataset("folder", size=5, folder=tmp_path).size == 5


def test_files_may_name_the_unit_of_times_and_the_number_of_units(tmp_path: Path) -> None:
    milliseconds = (TIMES * 1e3).astype(np.uint16)
    two_files(tmp_path, flat(times=milliseconds, time_unit=1e-3, inputs=700), flat(times=milliseconds))
    data = load_dataset("folder", folder=tmp_path)
    assert data.size == 700
    assert isinstance(data.test, EventSplit)
    assert torch.equal(data.test.time, torch.from_numpy(TIMES).float())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"units": None}, r"test.npz: expected an array units, found times, offsets, labels"),
        ({"offsets": None}, r"test.npz: expected an array offsets or samples"),
        ({"labels": LABELS / 2}, "test.npz: labels is float64; expected class numbers"),
        ({"labels": np.array(["a", "b", "a", "b"])}, r"labels is <U1; expected class numbers.*an array classes has"),
        ({"labels": LABELS - 1}, "labels run from -1 to 0"),
        ({"times": TIMES - 1}, r"test.npz, test part: times must be finite and >= 0"),
        ({"offsets": None, "samples": SAMPLES + 1}, r"test part: spikes.sample spans 1..4, allowed 0..3"),
        ({"inputs": 3}, "unit spans 0..4, allowed 0..2"),
        ({"inputs": 5.5}, "inputs=5.5 must be a whole number above 0"),
        ({"inputs": [5, 5]}, "inputs must be one number, equal in all files"),
        ({"time_unit": 0.0}, r"time_unit=0.0 must be a positive, finite number"),
        ({"times": TIMES[:0], "units": NUMBERS[:0], "offsets": [0], "labels": LABELS[:0]}, "test part holds no sample"),
        ({"times": None, "images": np.zeros((4, 3, 3), np.uint8)}, "test.npz: expected an array times"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    two_files(tmp_path, flat(), flat(**changes))
    with pytest.raises(DatasetError, match=text):
        load_dataset("folder", folder=tmp_path)


def test_silent_files_must_name_their_units(tmp_path: Path) -> None:
    silent = flat(times=TIMES[:0], units=NUMBERS[:0], offsets=np.zeros(5, int))
    two_files(tmp_path, silent, silent)
    with pytest.raises(DatasetError, match="holds no event; give the number of units as `inputs`"):
        load_dataset("folder", folder=tmp_path)
    two_files(tmp_path, silent | {"inputs": 9}, silent)
    assert load_dataset("folder", folder=tmp_path).size == 9


def test_events_have_no_size_in_pixels(tmp_path: Path) -> None:
    two_files(tmp_path, flat(), flat())
    with pytest.raises(DatasetError, match=r": size=16, but its samples have 5 units"):
        load_dataset("folder", size=16, folder=tmp_path)


def test_parts_of_a_data_set_are_of_one_kind(tmp_path: Path) -> None:
    two_files(tmp_path, flat(), flat())
    data = load_dataset("folder", folder=tmp_path)
    assert isinstance(data, Dataset)
    features = load_dataset("yin_yang").test[:3]
    with pytest.raises(DatasetError, match=r"folder test: feature vectors are \[4\], expected \[5\]"):
        replace(data, test=features)
    with pytest.raises(DatasetError, match="yin_yang test: event samples, expected feature vectors as in its train"):
        replace(load_dataset("yin_yang"), test=split(units=4, unit=NUMBERS % 4))
