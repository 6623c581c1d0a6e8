"""Files in the layout of the Heidelberg data sets: written, read, streamed."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from heidelberg_files import KEYS, LABELS, SPEAKERS, TIMES, UNITS, write

from hxtrain.datasets import DataConfig, DatasetError, EventSplit, content_sha256, load_dataset
from hxtrain.datasets.events import HeidelbergFile, HeidelbergWriter, StoredEvents, heidelberg_data, write_heidelberg


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


def test_the_largest_number_of_units_is_read_again(tmp_path: Path) -> None:
    with HeidelbergWriter(tmp_path / "wide.h5", KEYS, 65_536) as writer:
        writer.append([[0.1]], [[65_535]], [0])
    samples = StoredEvents(HeidelbergFile(tmp_path / "wide.h5"))
    assert (samples.units, samples.events([0]).unit.tolist()) == (65_536, [65_535])


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


def test_every_process_opens_its_files(tmp_path: Path) -> None:
    store = HeidelbergFile(write(tmp_path / "a.h5"))
    samples = StoredEvents(store)
    assert len(samples.events([0])) == 2
    (tmp_path / "samples").write_bytes(pickle.dumps(samples))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).events([2]).time.tolist())"
    words = [sys.executable, "-P", "-W", "ignore::ResourceWarning", "-c", code, str(tmp_path / "samples")]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "[0.25, 0.25, 0.5]\n"
    parent = store._file._file
    store._file._process += 1  # as after a fork
    assert len(samples.events([0])) == 2
    assert store._file._file is not parent
    samples.close()
    assert store._file._file is None
    parent.close()


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
        ({"times": [*TIMES[:3], [1e300]], "time": np.float64}, r"sample 3: event 0 has time 1e\+300 s"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(DatasetError, match=text):
        StoredEvents(HeidelbergFile(write(tmp_path / "a.h5", **changes))).load()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the files of both data sets, a minute old; the cache is empty."""
    monkeypatch.setenv("HXTRAIN_DATA", str(tmp_path / "cache"))
    place = tmp_path / "files"
    place.mkdir()
    for name in ("shd_train", "shd_test", "ssc_train", "ssc_valid", "ssc_test"):
        os.utime(write(place / f"{name}.h5"), (time.time() - 60,) * 2)
    return place


@pytest.mark.parametrize("memory", [4e9, 0])
def test_a_data_set_is_in_memory_or_on_disk(folder: Path, memory: float) -> None:
    data = DataConfig("ssc", folder=str(folder), settings={"memory": memory}).load()
    assert isinstance(data.train, StoredEvents if memory == 0 else EventSplit)
    assert data.validation is not None
    assert (len(data.train), len(data.validation), len(data.test), data.size) == (4, 4, 4, 700)
    assert (data.classes, data.licence) == (KEYS, "CC BY 4.0")
    assert data.sha256 == content_sha256(split(), split())
    assert data.note == (
        "4 + 4 + 4 samples (train, validation, test): NOT a published partition of the Spiking Speech Commands. "
        "train: 1 of 4 samples have no events. validation: 1 of 4 samples have no events. test: 1 of 4 samples have no "
        "events."
    )
    held_out = DataConfig("shd", folder=str(folder), settings={"memory": memory}, validation=1).load()
    assert (len(held_out.train), held_out.test.groups.tolist()) == (3, SPEAKERS[-1:])


def test_late_events_are_left_out_and_counted(folder: Path) -> None:
    settings = {"duration": 0.5}
    data = load_dataset("shd", folder=folder, settings=settings)
    assert data.train.events(slice(None)).time.tolist() == [float(np.float16(0.1)), 0.25, 0.25]
    assert "train: 3 events at or after 0.5 s were left out (data.settings.duration)." in data.note
    assert data.sha256 == load_dataset("shd", folder=folder, settings=settings | {"memory": 0}).sha256
    with pytest.raises(DatasetError, match=r"data.settings.duration=0 must be positive"):
        load_dataset("shd", folder=folder, settings={"duration": 0})


@pytest.mark.parametrize(
    "damage", ["[]", '{"sha256": 1, "tallies": {}}', '{"sha256": "0", "tallies": {"train": [1, 2]}}']
)
def test_a_damaged_cache_is_made_anew(folder: Path, damage: str) -> None:
    config = DataConfig("shd", folder=str(folder), settings={"memory": 0})
    digest = config.load().sha256
    [file] = (folder.parent / "cache" / "content").iterdir()
    file.write_text(damage)
    assert config.load().sha256 == digest
    assert digest in file.read_text()


def test_events_on_disk_are_read_through_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def load() -> tuple[str, str]:
        data = load_dataset("shd", folder=folder, settings={"memory": 0})
        return data.sha256, data.note

    first = load()
    assert load() == first
    assert caplog.text.count("reading all events once") == 1
    os.utime(write(folder / "shd_test.h5", labels=np.array([0, 0, 0, 0], np.uint16)), (time.time() - 30,) * 2)
    assert load() != first
    write(folder / "shd_test.h5")  # a moment old: another file of the same time and size could follow
    assert load() == load() == first
    assert caplog.text.count("reading all events once") == 4


def test_a_file_that_changes_is_noticed(folder: Path) -> None:
    data = load_dataset("shd", folder=folder, settings={"memory": 0})
    assert len(data.train.events([0])) == 2
    write(folder / "new.h5", labels=np.array([0, 0, 0, 0], np.uint16)).replace(folder / "shd_train.h5")
    with pytest.raises(DatasetError, match=r"shd_train.h5 changed while it was in use"):
        data.train.events([0])


def test_missing_files_are_refused_with_the_remedy(folder: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"shd_train.h5: expected a file of the Spiking Heidelberg Digits, .*download"
    ):
        load_dataset("shd")
    with pytest.raises(DatasetError, match=r"data=shd has no setting data.size=16"):
        load_dataset("shd", size=16, folder=folder)


def test_archives_are_downloaded_checked_and_unpacked(
    folder: Path, tmp_path: Path, serve: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = tmp_path / "served"
    served.mkdir()
    sums = {}
    for part, name in heidelberg_data.SHD.files.items():
        with zipfile.ZipFile(served / f"{name}.zip", "w") as archive:
            archive.write(folder / name, name)
        sums[part] = hashlib.md5((served / f"{name}.zip").read_bytes()).hexdigest()
    info = replace(heidelberg_data.SHD, md5=sums, mirrors=(serve(served),), sizes={(4, 4): "a page"})
    monkeypatch.setitem(heidelberg_data.PUBLISHED, "shd", info)
    data = load_dataset("shd", download=True)
    assert data.sha256 == content_sha256(split(), split())
    assert data.note.startswith("4 + 4 samples (train, test), as on a page.")
    assert sorted(path.name for path in (tmp_path / "cache" / "shd").iterdir()) == ["shd_test.h5", "shd_train.h5"]
    assert load_dataset("shd").sha256 == data.sha256
    monkeypatch.setitem(heidelberg_data.PUBLISHED, "shd", replace(info, md5=dict.fromkeys(sums, "0" * 32)))
    with pytest.raises(DatasetError, match=r"shd_train.h5.zip: wrong checksum: expected MD5 0{32}"):
        load_dataset("shd", folder=tmp_path / "other", download=True)
    (tmp_path / "other" / "shd_train.h5.zip").write_bytes(b"an error page")
    with pytest.raises(DatasetError, match=r"shd_train.h5.zip has another checksum"):
        load_dataset("shd", folder=tmp_path / "other", download=True)


def test_runs_of_images_do_not_import_hdf5() -> None:
    code = "import sys, hxtrain.datasets as d; d.load_dataset('digits'); print('h5py' in sys.modules)"
    process = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout == "False\n"


def test_a_stretch_of_zeros_is_refused(tmp_path: Path) -> None:
    """HDF5 itself never returns from reading such a file."""
    file = write(tmp_path / "a.h5")
    content = bytearray(file.read_bytes())
    place = content.index(b"GCOL") + 16
    content[place : place + 4000] = bytes(4000)
    file.write_bytes(content)
    with pytest.raises(DatasetError, match=r"a.h5: spikes/times: the rows at byte \d+ are damaged; download"):
        StoredEvents(HeidelbergFile(file)).load()
