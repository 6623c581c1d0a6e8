"""Files in the layout of the Heidelberg data sets: written, read, streamed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from hxtrain.datasets import DatasetError, EventSplit, content_sha256
from hxtrain.datasets.events import HeidelbergFile, HeidelbergWriter, StoredEvents, write_heidelberg

TIMES = [[0.1, 1.399], [], [0.25, 0.25, 0.5], [1.0]]
UNITS = [[699, 0], [], [3, 3, 1], [2]]
LABELS = [1, 0, 2, 1]
SPEAKERS = [4, 5, 4, 11]
KEYS = ("zero", "null", "fünf")


def write(path: Path, times: Any = TIMES, units: Any = UNITS, **changes: Any) -> Path:
    """Write a file as the published ones are, without the writer under test."""
    contents = {"labels": np.array(LABELS, np.uint16), "extra/speaker": np.array(SPEAKERS, np.uint16)} | {
        "extra/keys": np.array([key.encode() for key in KEYS]),
        "extra/meta_info/age": np.array([30, 31], np.uint16),
    }
    types = {"time": np.float16, "unit": np.uint16} | {k: v for k, v in changes.items() if k in ("time", "unit")}
    with h5py.File(path, "w") as file:
        for name, rows, kind in (("spikes/times", times, types["time"]), ("spikes/units", units, types["unit"])):
            array = file.create_dataset(name, (len(rows),), h5py.vlen_dtype(kind))
            for number, row in enumerate(rows):
                array[number] = np.array(row, kind)
        for name, values in (contents | changes).items():
            if values is not None and name not in types:
                file[name] = values
    return path


def split() -> EventSplit:
    return EventSplit.from_arrays(
        np.array([time for row in TIMES for time in row], np.float16),
        [unit for row in UNITS for unit in row],
        [0, 2, 2, 5, 6],
        LABELS,
        units=700,
        groups=SPEAKERS,
    )


def test_a_published_file_is_read_exactly(tmp_path: Path) -> None:
    file = HeidelbergFile(write(tmp_path / "shd_train.h5"))
    loaded, tally = StoredEvents(file).load()
    assert float(loaded.time[1]) == float(np.float16(1.399)) == 1.3994140625
    assert (loaded.labels.tolist(), loaded.groups.tolist()) == (LABELS, SPEAKERS)
    assert (file.classes, file.units, file.meta_info["age"].tolist()) == (KEYS, 700, [30, 31])
    assert content_sha256(loaded, loaded) == content_sha256(split(), split())
    assert (tally.samples, tally.events, tally.empty, tally.unsorted, tally.late) == (4, 6, 1, 0, 0)


@pytest.mark.parametrize("time_type", [np.float16, np.float32, np.float64])
def test_the_writer_gives_what_the_reader_takes(tmp_path: Path, time_type: type) -> None:
    path = tmp_path / "written.h5"
    times = [np.array(row, time_type) for row in TIMES]
    with HeidelbergWriter(path, KEYS, time_type=time_type, meta_info={"age": [30, 31]}) as writer:
        writer.append(times[:1], UNITS[:1], LABELS[:1], SPEAKERS[:1])
        writer.append(times[1:], UNITS[1:], LABELS[1:], SPEAKERS[1:])
        assert not path.exists()
    file = HeidelbergFile(path)
    events = file.read(np.arange(4))
    assert events.time.dtype == time_type
    assert np.array_equal(events.time, np.concatenate(times))
    assert np.array_equal(events.unit, np.concatenate([np.array(row, np.uint16) for row in UNITS]))
    assert (file.labels.tolist(), file.groups.tolist(), file.classes) == (LABELS, SPEAKERS, KEYS)
    with h5py.File(path) as content:
        assert h5py.check_vlen_dtype(content["spikes/times"].dtype) == time_type
        assert h5py.check_vlen_dtype(content["spikes/units"].dtype) == np.uint16


def test_samples_are_written_as_a_file(tmp_path: Path) -> None:
    write_heidelberg(tmp_path / "written.h5", split(), KEYS)
    loaded = StoredEvents(HeidelbergFile(tmp_path / "written.h5")).load()[0]
    assert content_sha256(loaded, loaded) == content_sha256(split(), split())
    assert loaded.groups.tolist() == SPEAKERS


@pytest.mark.parametrize("chosen", [[2, 0, 2], slice(1, 3), [True, False, False, True], [], [-1]], ids=str)
def test_events_on_disk_are_those_in_memory(tmp_path: Path, chosen: Any) -> None:
    stored = StoredEvents(HeidelbergFile(write(tmp_path / "a.h5")))
    for samples in (stored, pickle.loads(pickle.dumps(stored))):
        for part in (samples.events(chosen), samples[chosen].events(slice(None))):
            expected = split().events(chosen)
            assert (part.samples, part.units) == (expected.samples, expected.units)
            for name in ("sample", "unit", "time"):
                assert torch.equal(getattr(part, name), getattr(expected, name)), name
        assert samples[chosen].groups.tolist() == split()[chosen].groups.tolist()
        samples.close()


def test_one_hash_in_memory_and_on_disk(tmp_path: Path) -> None:
    stored = StoredEvents(HeidelbergFile(write(tmp_path / "a.h5")))
    assert content_sha256(stored, stored[[3, 0]]) == content_sha256(split(), split()[[3, 0]])


def test_the_writer_leaves_nothing_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "written.h5"
    with pytest.raises(DatasetError, match=r"sample 0: times span -0.1..1.399 s, expected 0 to 65504"):  # noqa: SIM117
        with HeidelbergWriter(path, KEYS) as writer:
            writer.append([[-0.1, 1.399]], [[0, 1]], [0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"labels": None}, "expected an array labels, found "),
        ({"labels": np.array(LABELS) / 2}, "labels is float64, expected whole numbers"),
        ({"labels": np.array(LABELS[:3])}, "spikes/times has 4 entries of 3 labels"),
        ({"labels": np.array([1, 0, 3, 1])}, "labels go to 3, but extra/keys has 3 names"),
        ({"extra/speaker": np.array(SPEAKERS[:2])}, "extra/speaker has 2 entries of 4 samples"),
        ({"unit": np.float32}, "spikes/units is float32, expected variable-length arrays of uint16"),
        ({"units": UNITS[:3]}, "spikes/units has 3 entries of 4 labels"),
        ({"units": [[699, 0], [], [3, 3], [2]]}, "a.h5, sample 2: 3 times and 2 units"),
        ({"units": [[700, 0], *UNITS[1:]]}, r"a.h5, sample 0: event 0 has unit 700, allowed 0..699"),
        ({"times": [*TIMES[:2], [0.25, -0.25, 0.5], [1]]}, r"sample 2: event 1 has time -0.25 s; times are finite"),
        ({"times": [*TIMES[:3], [np.nan]]}, r"sample 3: event 0 has time nan s"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(DatasetError, match=text):
        StoredEvents(HeidelbergFile(write(tmp_path / "a.h5", **changes))).load()
