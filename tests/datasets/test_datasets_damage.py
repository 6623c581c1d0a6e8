"""Damaged files of events: whatever bytes are in a file, it is read or refused, and nothing else.

DAMAGED_FILES=10000 pytest tests/datasets/test_datasets_damage.py
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import heidelberg_files
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hxtrain.datasets import DatasetError, EventSplit
from hxtrain.datasets.events import AddressLayout, EventStore, FlatFile, HeidelbergFile, StoredEvents, write_flat
from hxtrain.datasets.events.recording_folder import RecordingFolder

EXAMPLES = int(os.environ.get("DAMAGED_FILES", "200"))
UNITS = AddressLayout(units=5, time_unit=1.0)
CAMERA = AddressLayout(width=128, height=128)
EVENTS = np.array(
    [(3, 1, 20, True), (0, 5, 40, False), (2, 0, 8000, False)],
    [("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)],
)
SPLIT = EventSplit.from_arrays([0.5, 0.25, 0.5], [4, 0, 1], [0, 1, 1, 3], [0, 1, 0], units=5, groups=[1, 1, 2])
BIN = bytes([3, 1, 128, 0, 20, 0, 5, 0, 0, 40])
AEDAT = b"#!AER-DAT2.0\r\n# test\r\n" + bytes([0, 0, 1, 7, 0, 0, 0, 20, 0, 0, 5, 0, 0, 0, 0, 40])


def write_npz(file: Path) -> None:
    np.savez_compressed(file, t=SPLIT.time, unit=SPLIT.unit, offsets=SPLIT.offsets, labels=SPLIT.labels)


def write_columns(file: Path) -> None:
    with h5py.File(file, "w") as content:
        for name in "xytp":
            content.create_dataset(f"events/{name}", data=EVENTS[name], compression="gzip" if name == "t" else None)


def in_folder(file: Path) -> EventStore:
    return RecordingFolder(file.parent.parent, [file.parent.name], CAMERA)


Open = Callable[[Path], EventStore]
FORMATS: dict[str, tuple[str, Callable[[Path], Any], Open]] = {
    "heidelberg": ("a.h5", heidelberg_files.write, HeidelbergFile),
    "flat HDF5": ("a.h5", lambda file: write_flat(file, SPLIT, ("a", "b")), lambda file: FlatFile(file, UNITS)),
    "flat npz": ("a.npz", write_npz, lambda file: FlatFile(file, UNITS)),
    "bin": ("a.bin", lambda file: file.write_bytes(BIN), in_folder),
    "aedat": ("a.aedat", lambda file: file.write_bytes(AEDAT), in_folder),
    "npy": ("a.npy", lambda file: np.save(file, EVENTS), in_folder),
    "npz": ("a.npz", lambda file: np.savez(file, **{name: EVENTS[name] for name in "xytp"}), in_folder),
    "HDF5": ("a.h5", write_columns, in_folder),
}


def damaged(content: bytes, seed: int) -> bytes:
    """Return bytes of which some are changed, a stretch is zero, all are others, or the end is missing."""
    numbers = np.random.default_rng(seed)
    array = np.frombuffer(content, np.uint8).copy()
    place = int(numbers.integers(len(array)))
    kind = numbers.choice(["bytes", "bytes", "bits", "zeros", "end", "all"])
    if kind == "end":
        return content[:place]
    if kind == "all":
        return numbers.bytes(place)
    if kind == "zeros":
        array[place : place + int(numbers.integers(1, 64))] = 0
    else:
        places = numbers.integers(len(array), size=numbers.integers(1, 9))
        array[places] = numbers.integers(256, size=len(places)) if kind == "bytes" else array[places] ^ 16
    return array.tobytes()


def refusal(read: Callable[[], object]) -> str | None:
    """Return the text of the error that refuses a file; None if the file is read."""
    try:
        read()
    except DatasetError as error:
        return str(error)
    return None


@dataclass(repr=False)
class Case:
    """A whole file: its path, its bytes, and what opens it."""

    file: Path
    content: bytes
    opened: Open


@pytest.fixture(scope="module", params=FORMATS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Return a whole file."""
    name, write, opened = FORMATS[request.param]
    file = tmp_path_factory.mktemp("files") / "class" / name
    file.parent.mkdir()
    write(file)
    StoredEvents(opened(file)).load()
    return Case(file, file.read_bytes(), opened)


@settings(
    max_examples=-(-EXAMPLES // len(FORMATS)),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**64 - 1))
def test_a_damaged_file_is_read_or_refused(case: Case, seed: int) -> None:
    case.file.write_bytes(damaged(case.content, seed))
    message = refusal(lambda: StoredEvents(case.opened(case.file)).load())
    assert message is None or case.file.name in message


ARRAYS = {
    "heidelberg": ["spikes/times", "spikes/units", "labels", "extra/speaker", "extra/keys", "extra/meta_info/age"],
    "flat HDF5": ["t", "unit", "offsets", "labels", "groups", "classes"],
}
TYPES: list[Any] = [
    *("i1", "u8", "f2", "f8", "?", "c8", "S3", ">i4", "i8,f4"),
    *(h5py.vlen_dtype(np.dtype(kind)) for kind in ("f2", "u2", "i8", "c8")),
    h5py.string_dtype(),
]


@settings(max_examples=-(-EXAMPLES // 4), deadline=None, derandomize=True, database=None)
@given(
    place=st.sampled_from([(form, name) for form, names in ARRAYS.items() for name in names]),
    kind=st.sampled_from(TYPES),
    shape=st.sampled_from([(), (0,), (3,), (4,), (4, 2)]),
)
def test_an_array_of_another_type_or_length_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[str, str], kind: Any, shape: tuple[int, ...]
) -> None:
    form, name = place
    filename, write, opened = FORMATS[form]
    file = tmp_path_factory.mktemp("files") / filename
    write(file)
    with h5py.File(file, "r+") as content:
        del content[name]
        content.create_dataset(name, shape, kind)
    message = refusal(lambda: StoredEvents(opened(file)).load())
    assert message is None or file.name in message
