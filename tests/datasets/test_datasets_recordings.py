"""Recordings of address events: fields, files of all formats, folders, flat files, N-MNIST, data sets of tonic."""

from __future__ import annotations

import pickle
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import hxtrain as hx
from hxtrain.datasets import DatasetError, content_sha256, load_dataset
from hxtrain.datasets.events import AddressLayout, FlatFile, HeidelbergWriter, StoredEvents, write_flat
from hxtrain.datasets.events.formats import read_recording
from hxtrain.datasets.events.tonic_data import from_tonic

CAMERA = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)])
EVENTS = np.array([(3, 1, 20, True), (0, 5, 40, False), (3, 1, 20, True), (2, 0, 8000, False)], CAMERA)
LAYOUT = AddressLayout(width=4, height=6)
SIZES = {"p": 2, "y": 6, "x": 4}


def write_bin(file: Path, events: Any) -> None:
    """Write events as the 5 bytes of N-MNIST."""
    x, y, t, p = (events[name].astype(np.int64) for name in "xytp")
    rows = np.stack([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255], 1)
    file.write_bytes(rows.astype(np.uint8).tobytes())


def write_aedat(file: Path, events: Any) -> None:
    """Write events as a DVS128 does."""
    x, y, t, p = (events[name].astype(np.int64) for name in "xytp")
    words = np.stack([y << 8 | x << 1 | p, t], 1).astype(">u4")
    file.write_bytes(b"#!AER-DAT2.0\r\n# recorded by a test\r\n" + words.tobytes())


def write_hdf5(file: Path, events: Any) -> None:
    with h5py.File(file, "w") as content:
        for name in "xytp":
            content[f"events/{name}"] = events[name]


def write_table(file: Path, events: Any) -> None:
    with h5py.File(file, "w") as content:
        content["events"] = np.rec.array(events)


WRITERS = {
    "a.bin": write_bin,
    "a.aedat": write_aedat,
    "a.h5": write_hdf5,
    "a.hdf5": write_table,
    "a.npy": np.save,
    "b.npz": lambda file, events: np.savez(file, events=events),
    "a.npz": lambda file, events: np.savez(file, **{name: events[name] for name in "xytp"}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_fields(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, EVENTS)
    columns = read_recording(tmp_path / name)
    for field in "xytp":
        assert columns[field].tolist() == EVENTS[field].tolist()


def test_an_overflow_of_the_time_is_no_event(tmp_path: Path) -> None:
    rows = [[1, 2, 128, 0, 5], [0, 240, 0, 0, 0], [1, 2, 0, 0, 6], [0, 240, 0, 0, 0], [3, 4, 0, 1, 7]]
    (tmp_path / "a.bin").write_bytes(np.array(rows, np.uint8).tobytes())
    columns = read_recording(tmp_path / "a.bin")
    assert columns["t"].tolist() == [5, 2**13 + 6, 2**14 + 263]
    assert columns["x"].tolist() == [1, 1, 3]


def test_an_event_has_the_unit_that_spikes_give_it() -> None:
    addresses = LAYOUT.convert({name: EVENTS[name] for name in "xytp"}, np.array([4]), "here")
    spikes = hx.Spikes.from_recordings([EVENTS], SIZES)
    assert addresses.unit.tolist() == spikes.unit.tolist()
    assert torch.equal(torch.from_numpy(addresses.time).float(), spikes.time)
    assert LAYOUT.total_units == spikes.units == 48


@pytest.mark.parametrize(
    ("changes", "units", "total"),
    [
        ({"pool": 2}, [7, 4, 7, 1], 12),
        ({"pool": 4}, [2, 1, 2, 0], 4),
        ({"polarities": 1}, [7, 20, 7, 2], 24),
    ],
    ids=str,
)
def test_pixels_and_polarities_may_share_a_unit(changes: dict[str, int], units: list[int], total: int) -> None:
    layout = AddressLayout(**{"width": 4, "height": 6} | changes)
    columns = {role: EVENTS[role] for role in layout.roles}
    assert layout.convert(columns, np.array([4]), "here").unit.tolist() == units
    assert layout.total_units == total


def test_times_may_count_from_the_first_event_of_each_sample() -> None:
    layout = AddressLayout(units=3, time_unit=0.5, from_first=True)
    columns = {"t": np.array([7, 9, 100, 90], np.uint8), "unit": np.array([0, 1, 2, 0])}
    assert layout.convert(columns, np.array([2, 0, 2, 0]), "here").time.tolist() == [0, 1, 5, 0]


def test_a_polarity_of_minus_one_is_zero() -> None:
    columns = {name: EVENTS[name] for name in "xyt"} | {"p": np.where(EVENTS["p"], 1, -1)}
    expected = LAYOUT.convert({name: EVENTS[name] for name in "xytp"}, np.array([4]), "here")
    assert LAYOUT.convert(columns, np.array([4]), "here").unit.tolist() == expected.unit.tolist()


def write_folder(folder: Path, ending: str = "npy") -> Path:
    """Write a folder of two classes; the second sample of a class is empty."""
    for part in ("Train", "test"):
        for label in ("10", "9"):
            place = folder / part / label
            place.mkdir(parents=True)
            WRITERS[f"a.{ending}"](place / f"a-anna.{ending}", EVENTS[: 2 + (label == "9")])
            WRITERS[f"a.{ending}"](place / f"b-ben.{ending}", EVENTS[:0])
    return folder


@pytest.mark.parametrize("ending", ["npy", "bin", "h5"])
@pytest.mark.parametrize("memory", [4e9, 0])
def test_a_folder_of_recordings_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, memory: float
) -> None:
    monkeypatch.setenv("HXTRAIN_DATA", str(tmp_path / "cache"))
    settings = {"width": 4, "height": 6, "groups": "-([a-z]+)", "memory": memory}
    data = load_dataset("recordings", folder=write_folder(tmp_path / "data", ending), settings=settings)
    assert (data.classes, data.size, len(data.train)) == (("9", "10"), 48, 4)
    assert data.train.groups.tolist() == [0, 1, 0, 1]
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    expected = hx.Spikes.from_recordings([EVENTS[:3], EVENTS[:0], EVENTS[:2], EVENTS[:0]], SIZES)
    events = data.train.events(slice(None))
    order = torch.tensor([0, 2, 1, 3, 4])  # by time
    assert torch.equal(events.sample, expected.sample)
    assert torch.equal(events.unit, expected.unit[order])
    assert "train: 2 of 4 samples have no events. train: The events of 1 samples were not sorted" in data.note


@pytest.mark.parametrize("kind", ["h5", "npz"])
def test_flat_files_are_read(tmp_path: Path, kind: str) -> None:
    arrays = {"x": EVENTS["x"], "y": EVENTS["y"], "ts": EVENTS["t"], "polarity": EVENTS["p"]}
    arrays |= {"offsets": np.array([0, 3, 3, 4]), "labels": np.array([1, 0, 1]), "groups": np.array([5, 5, 6])}
    for part in ("train", "test"):
        if kind == "npz":
            np.savez(tmp_path / f"{part}.npz", **arrays)
        else:
            with h5py.File(tmp_path / f"{part}.h5", "w") as file:
                for name, values in arrays.items():
                    file.create_dataset(name, data=values, compression="gzip" if name == "x" else None)
    data = load_dataset("recordings", folder=tmp_path, settings={"width": 4, "height": 6})
    expected = hx.EventSplit.from_spikes(
        hx.Spikes.from_recordings([EVENTS[:3], EVENTS[:0], EVENTS[3:]], SIZES), [1, 0, 1]
    )
    assert data.sha256 == content_sha256(expected, expected)
    assert data.train.groups.tolist() == [5, 5, 6]


@pytest.mark.parametrize("stem", ["", "words_"])
def test_files_in_the_layout_of_the_heidelberg_data_sets_are_read(tmp_path: Path, stem: str) -> None:
    for part in ("train", "test"):
        with HeidelbergWriter(tmp_path / f"{stem}{part}.h5", ("yes", "no"), units=9) as file:
            file.append([np.array([0.5, 1.0]), np.zeros(0)], [np.array([8, 0]), np.zeros(0, int)], [0, 1], [3, 4])
    data = load_dataset("recordings", folder=tmp_path)
    assert (data.name, data.classes, data.size, data.train.groups.tolist()) == ("recordings", ("yes", "no"), 9, [3, 4])
    assert data.test.events([0]).time.tolist() == [0.5, 1.0]
    with pytest.raises(DatasetError, match=r"data.settings.units=9 has no effect on .*train.h5"):
        load_dataset("recordings", folder=tmp_path, settings={"units": 9})
    shutil.copy(tmp_path / f"{stem}test.h5", tmp_path / "more_test.h5")
    with pytest.raises(DatasetError, match=r"more_test.h5.* are both test parts; leave one there"):
        load_dataset("recordings", folder=tmp_path)


def test_events_are_written_flat_and_read_in_any_order(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0)
    counts = numbers.integers(0, 9, 600)
    offsets = np.concatenate([[0], counts.cumsum()])
    split = hx.EventSplit.from_arrays(
        numbers.random(offsets[-1]), numbers.integers(0, 70, offsets[-1]), offsets, counts % 3, 70, groups=counts
    )
    write_flat(tmp_path / "flat.h5", split, ("a", "b", "c"))
    store = FlatFile(tmp_path / "flat.h5", AddressLayout(units=70, time_unit=1))
    stored = pickle.loads(pickle.dumps(StoredEvents(store)))
    chosen = torch.from_numpy(numbers.permutation(600)[:100])
    for name in ("sample", "unit", "time"):
        assert torch.equal(getattr(stored.events(chosen), name), getattr(split.events(chosen), name))
    assert torch.equal(stored.groups, split.groups)
    assert store.classes == ("a", "b", "c")
    assert content_sha256(stored, stored) == content_sha256(split, split)
    stored.close()


def test_flat_files_refuse_units_that_their_type_does_not_hold(tmp_path: Path) -> None:
    wide = hx.EventSplit.from_arrays([0.1], [65_536], [0, 1], [0], 65_537)
    for samples in (wide, wide[:0]):
        with pytest.raises(DatasetError, match=f"{len(samples)} samples of 65537 units; give some samples, of at most"):
            write_flat(tmp_path / "flat.h5", samples)
    assert not (tmp_path / "flat.h5").exists()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, r"declare the sensor, data.settings.width=34"),
        ({"width": 4, "units": 5}, r"declare the sensor"),
        ({"width": 0}, r"data.settings.width=0 must be positive"),
        ({"width": 4, "height": 5}, r"a-anna.npy: y spans 1..5, allowed 0..4; declare another layout"),
        ({"width": 4, "height": 6, "fields": {"t": "when"}}, r"expected a field when, found x, y, t, p"),
        ({"width": 4, "height": 6, "fields": {"z": "x"}}, r"data.settings.fields.z: no such field"),
        ({"units": 9}, r"expected a field unit or units, found x, y, t, p; name it by data.settings.fields.unit"),
        ({"width": 4, "height": 6, "groups": "(z)"}, r"a-anna.npy: data.settings.groups='\(z\)' does not fit its name"),
        ({"width": 4, "height": 6, "groups": "z"}, r"has 0 groups, expected one"),
        ({"width": 4, "height": 6, "groups": "("}, r"is no regular expression"),
        ({"width": 4, "height": 6, "memory": -1}, r"data.settings.memory=-1 must not be negative"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(DatasetError, match=text):
        load_dataset("recordings", folder=write_folder(tmp_path), settings=settings)


def test_damaged_recordings_are_refused_by_name(tmp_path: Path) -> None:
    write_folder(tmp_path, "bin")
    (tmp_path / "Train" / "10" / "a-anna.bin").write_bytes(b"seven b")
    with pytest.raises(DatasetError, match=r"10/a-anna.bin has 7 bytes, no multiple of 5"):
        load_dataset("recordings", folder=tmp_path, settings={"width": 4, "height": 6})
    with pytest.raises(DatasetError, match=r"expected train/CLASS/\* .* found neither"):
        load_dataset("recordings", folder=tmp_path / "Train", settings={"width": 4, "height": 6})
    with pytest.raises(DatasetError, match=r"no such folder; name the folder of the unpacked Train and Test"):
        load_dataset("nmnist", folder=tmp_path / "nowhere")


def test_nmnist_is_read_from_its_folders(tmp_path: Path) -> None:
    data = load_dataset("nmnist", folder=write_folder(tmp_path, "bin"), settings={"pool": 2, "duration": 3e-5})
    assert (data.size, len(data.test)) == (2 * 17 * 17, 4)
    assert data.note.startswith("4 + 4 samples: NOT the published partition of 60,000 + 10,000.")
    assert data.train.events([0]).unit.tolist() == [17 * 17 + 1, 17 * 17 + 1]


class FakeSet:
    """A data set with the interface of tonic's."""

    sensor_size = (4, 6, 2)
    classes = ("left", "right")

    def __init__(self, save_to: str, train: bool = True, transform: Any = None) -> None:
        self.location_on_system = f"{save_to}/{type(self).__name__}"
        self.targets = [0, 1, 1] if train else [1]
        if not Path(self.location_on_system).is_dir():
            self.download()

    def download(self) -> None:
        Path(self.location_on_system).mkdir(parents=True)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return EVENTS[: index + 1], self.targets[index]


class Words(FakeSet):
    sensor_size = (4, 1, 1)

    def __init__(self, save_to: str, split: str = "train") -> None:
        super().__init__(save_to)
        self.targets = ["yes", "no", "no"] if split == "train" else ["no"]


class Undivided(FakeSet):
    def __init__(self, save_to: str) -> None:
        super().__init__(save_to)


@pytest.fixture
def tonic(monkeypatch: pytest.MonkeyPatch) -> None:
    package, module = ModuleType("tonic"), ModuleType("tonic.datasets")
    for kind in (FakeSet, Words, Undivided):
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "tonic", package)
    monkeypatch.setitem(sys.modules, "tonic.datasets", module)


@pytest.mark.usefixtures("tonic")
@pytest.mark.parametrize("memory", [4e9, 0])
def test_a_data_set_of_tonic_is_adapted(tmp_path: Path, memory: float) -> None:
    settings = {"dataset": "FakeSet", "memory": memory}
    with pytest.raises(DatasetError, match=r"tonic lacks files of FakeSet; data.download=true lets it fetch them"):
        load_dataset("tonic", folder=tmp_path, settings=settings)
    data = load_dataset("tonic", folder=tmp_path, download=True, settings=settings)
    assert load_dataset("tonic", folder=tmp_path, settings=settings).sha256 == data.sha256
    assert (data.classes, data.size, data.train.labels.tolist()) == (("left", "right"), 48, [0, 1, 1])
    expected = hx.Spikes.from_recordings([EVENTS[:2]], SIZES)
    events = pickle.loads(pickle.dumps(data.train)).events([1])
    assert torch.equal(events.unit, expected.unit)
    assert torch.equal(events.time, expected.time)


@pytest.mark.usefixtures("tonic")
def test_names_are_classes_and_a_single_polarity_is_not_read(tmp_path: Path) -> None:
    data = load_dataset("tonic", folder=tmp_path, download=True, settings={"dataset": "Words"})
    assert (data.classes, data.size, data.train.labels.tolist()) == (("no", "yes"), 4, [1, 0, 0])
    assert data.validation is not None
    assert data.test.events([0]).unit.tolist() == [3]


@pytest.mark.usefixtures("tonic")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SHD", "take data=shd, which reads its times without rounding"),
        ("Nowhere", "tonic.datasets has no such data set"),
        ("Undivided", "has no training and test part; divide it"),
    ],
)
def test_data_sets_of_tonic_that_do_not_fit_are_refused(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(DatasetError, match=text):
        load_dataset("tonic", folder=tmp_path, download=True, settings={"dataset": name})


def test_without_tonic_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tonic.datasets", None)
    with pytest.raises(DatasetError, match=r"pip install 'hxtrain\[tonic\]'"):
        load_dataset("tonic", folder=tmp_path, settings={"dataset": "NMNIST"})
    data = from_tonic({"train": FakeSet(str(tmp_path)), "test": FakeSet(str(tmp_path), train=False)}, "a test")
    assert (data.origin, len(data.test)) == ("a test", 1)


def test_sensors_of_many_sizes_are_refused(tmp_path: Path) -> None:
    dataset = FakeSet(str(tmp_path))
    dataset.sensor_size = None  # type: ignore[assignment]
    with pytest.raises(DatasetError, match=r"sensor_size=None, expected \(width, height, polarities\)"):
        from_tonic({"train": dataset, "test": dataset}, "a test")
