"""Spoken digits of synthetic voices, as spikes of 70 channels of a model of the inner ear; shipped with the package.

`hxtrain data speech` makes them (`docs/speech.md`), in the layout and division of the Heidelberg digits: 20 classes,
zero to nine in English and null to neun in German, two speakers for the test alone, and a twentieth of the clips of the
others. They are no recordings, and results on them are no results on the Spiking Heidelberg Digits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..catalogue import SPOKEN_DIGITS, DatasetInfo
from ..dataset import Dataset
from ..errors import DatasetError
from ..shipped import Arrays, assemble, shipped_file, write_npz
from .heidelberg import HeidelbergFile
from .split import EventSplit
from .stored import StoredEvents

PARTS = ("train", "test")
NOTE = (
    "Synthetic voices (espeak-ng), not recordings, and not the Spiking Heidelberg Digits. Speakers 4 and 5 are in the "
    "test part alone; choose settings on training speakers that are held out."
)


def spoken_digits(folder: str | None = None) -> Dataset:
    """Return the spoken digits; `groups` of each part has the speakers.

    Args:
        folder: folder of `spoken_digits_train.h5` and `spoken_digits_test.h5`, made by `hxtrain data speech`; None: the
            shipped data.

    Raises:
        DatasetError: a file is missing or damaged.
    """
    train, test = read_shipped_digits() if folder is None else read_digits(Path(folder).expanduser())
    return assemble(SPOKEN_DIGITS, train, test, NOTE)


def read_digits(folder: Path) -> tuple[EventSplit, EventSplit]:
    """Return both parts of the files that `hxtrain data speech` wrote to a folder.

    Raises:
        DatasetError: a file is missing or damaged, or has other classes.
    """
    train, test = (_read(folder / f"{SPOKEN_DIGITS.name}_{part}.h5") for part in PARTS)
    if train.units != test.units:
        raise DatasetError(f"{folder}: {train.units} units in the train part, {test.units} in the test part; make both")
    return train, test


def read_shipped_digits(info: DatasetInfo = SPOKEN_DIGITS, source: Path | None = None) -> tuple[EventSplit, EventSplit]:
    """Return both parts of a file that `write_digits` wrote; by default the installed one.

    Raises:
        DatasetError: the file is missing or damaged.
    """
    source = shipped_file(info) if source is None else source
    try:
        with source.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return _unpacked(arrays, PARTS[0], info.size), _unpacked(arrays, PARTS[1], info.size)
    except Exception as error:  # zip, lzma, header and shape errors share no base class
        raise DatasetError(
            f"{source}: expected the data of '{info.name}' as an .npz file, found a missing or damaged one ({error}). "
            "Reinstall the package, or make the file again with `hxtrain data speech` and `hxtrain data build`."
        ) from error


def write_digits(path: Path, train: EventSplit, test: EventSplit) -> None:
    """Write both parts, whose times are float16 as in the layout of the Heidelberg digits, to a small file.

    Raises:
        DatasetError: the samples have another number of units.
    """
    if (train.units, test.units) != (SPOKEN_DIGITS.size, SPOKEN_DIGITS.size):
        raise DatasetError(
            f"the parts have {train.units} and {test.units} units, the shipped file has {SPOKEN_DIGITS.size}; make "
            "them by `hxtrain data speech selection=published`"
        )
    arrays: Arrays = {
        "note": np.array(NOTE),
        "origin": np.array(SPOKEN_DIGITS.origin),
        "licence": np.array(SPOKEN_DIGITS.licence),
    }
    for name, part in zip(PARTS, (train, test), strict=True):
        arrays |= {f"{name}_{key}": array for key, array in _packed(part).items()}
    write_npz(path, arrays)


def _read(path: Path) -> EventSplit:
    """Return the samples of a file."""
    if not path.is_file():
        raise DatasetError(f"{path}: there is no such file; make it by `hxtrain data speech out=...`")
    file = HeidelbergFile(path)
    if file.classes != SPOKEN_DIGITS.classes:
        raise DatasetError(f"{path}: classes {', '.join(file.classes)}; expected {', '.join(SPOKEN_DIGITS.classes)}")
    loaded = StoredEvents(file).load()
    assert loaded is not None, "there is no limit"
    return loaded[0]


def _packed(part: EventSplit) -> Arrays:
    """Return the arrays of a part: the bits of ascending float16 times are stored as differences."""
    codes = part.time.numpy().astype(np.float16).view(np.uint16)
    if part.groups is None:
        raise DatasetError("the samples name no speakers; make them by `hxtrain data speech`")
    return {
        "steps": np.diff(codes, prepend=np.uint16(0)),
        "units": part.unit.numpy().astype(np.uint8),
        "counts": part.offsets.diff().numpy().astype(np.uint16),
        "labels": part.labels.numpy().astype(np.uint8),
        "speakers": part.groups.numpy().astype(np.uint8),
    }


def _unpacked(arrays: np.lib.npyio.NpzFile, part: str, units: int) -> EventSplit:
    """Return a part of the arrays of `_packed`."""
    steps, numbers, counts, labels, speakers = (
        arrays[f"{part}_{key}"] for key in ("steps", "units", "counts", "labels", "speakers")
    )
    time = torch.from_numpy(np.cumsum(steps, dtype=np.uint16).view(np.float16).astype(np.float32))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
    return EventSplit.from_arrays(
        time,
        torch.from_numpy(numbers.astype(np.int64)),
        torch.from_numpy(offsets),
        torch.from_numpy(labels.astype(np.int64)),
        units,
        groups=torch.from_numpy(speakers.astype(np.int64)),
    )
