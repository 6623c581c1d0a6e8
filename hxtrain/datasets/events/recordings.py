"""Data sets of address events in a user's folder, and N-MNIST.

The folder has one of these layouts, for the parts `train` and `test`, and `validation` if there is one::

    train/CLASS/*              a recording per sample (`formats.py`), folders in any case, such as Train
    train.h5, or train.npz     flat arrays of all samples (`flat_file.py`)
    train.h5, or *_train.h5    the layout of the Heidelberg data sets (`heidelberg.py`), as `hxtrain data audio=` writes
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from pathlib import Path

from ..class_folders import class_names, part_folder
from ..dataset import Dataset
from ..download import cache_folder
from ..errors import DatasetError
from .address import AddressLayout
from .assembly import MEMORY, event_dataset
from .flat_file import HDF5_ENDINGS, FlatFile
from .hdf5 import HDF5
from .heidelberg import TIMES
from .heidelberg_data import read_heidelberg
from .recording_folder import RecordingFolder
from .store import EventStore

PARTS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "val"),
    "test": ("test",),
}
"""Names of the folders and files of each part."""
ENDINGS = (*HDF5_ENDINGS, ".npz")
NOTE = "A user's own files; how they were divided into training and test part is not known to this package."
OWN_REMEDY = "files of `hxtrain data audio=` are named NAME_train.h5 and NAME_test.h5"
NMNIST_REMEDY = "name the folder of the unpacked Train and Test by data.folder=FOLDER (docs/event-data.md)"
NMNIST_LAYOUT = AddressLayout(width=34, height=34)
NMNIST_ORIGIN = (
    "N-MNIST, G. Orchard, A. Jayawant, G. K. Cohen and N. Thakor, Converting Static Image Datasets to Spiking "
    "Neuromorphic Datasets Using Saccades, Frontiers in Neuroscience 9 (2015), doi:10.17632/468j46mzdv.1"
)
NMNIST_LICENCE = "CC BY-SA 4.0 (as commonly stated)"
NMNIST_SIZES = (60_000, 10_000)


def recordings(
    folder: str | None = None,
    width: int | None = None,
    height: int = 1,
    polarities: int = 2,
    units: int | None = None,
    time_unit: float = 1e-6,
    fields: Mapping[str, str] | None = None,
    pool: int = 1,
    from_first: bool = False,
    groups: str | None = None,
    memory: float = MEMORY,
    duration: float | None = None,
) -> Dataset:
    """Return the address events in a user's folder.

    Args:
        folder: folder with one of the layouts above.
        width: see `AddressLayout`, as for the next settings.
        height: number of rows of the sensor.
        polarities: number of polarities.
        units: number of units, if the recordings have no places.
        time_unit: unit of the times (s).
        fields: names of the fields.
        pool: side of squares of pixels that share a unit.
        from_first: whether times count from the first event of a sample.
        groups: regular expression whose group finds the speaker or subject in the name of a file; None: unknown.
        memory: largest size of events in memory (bytes), see `event_dataset`.
        duration: time (s) from which on events are left out; None: none are.

    Raises:
        DatasetError: the folder has none of the layouts, a file is damaged, or it does not fit the settings.
    """
    if folder is None:
        raise DatasetError("data set 'recordings' needs data.folder=FOLDER, the folder of your files")
    place = Path(folder).expanduser()
    files = _heidelberg_files(place)
    if files:
        declared: dict[str, object] = {
            "width": width,
            "height": height,
            "polarities": polarities,
            "units": units,
            "time_unit": time_unit,
        }
        declared |= {"fields": fields, "pool": pool, "from_first": from_first, "groups": groups}
        _require_undeclared(files["train"], declared)
        return read_heidelberg("recordings", files, str(place), "the owner's", NOTE, memory, duration)
    layout = AddressLayout(width, height, polarities, units, time_unit, dict(fields or {}), pool, from_first)
    stores, classes = _stores(place, layout, OWN_REMEDY, groups)
    return event_dataset("recordings", stores, classes, str(place), "the owner's", NOTE, memory, duration)


def nmnist(folder: str | None = None, pool: int = 1, memory: float = MEMORY, duration: float | None = None) -> Dataset:
    """Return N-MNIST: handwritten digits, seen by a camera that moves three times; 34 x 34 pixels, two polarities.

    Args:
        folder: folder of the unpacked `Train` and `Test`; None: the folder of downloads.
        pool: side of squares of pixels that share a unit.
        memory: largest size of events in memory (bytes), see `event_dataset`.
        duration: time (s) from which on events are left out; 0.1 keeps the first movement alone; None: none are.

    Raises:
        DatasetError: files are missing or damaged.
    """
    place = cache_folder("nmnist") if folder is None else Path(folder).expanduser()
    layout = AddressLayout(NMNIST_LAYOUT.width, NMNIST_LAYOUT.height, pool=pool)
    stores, classes = _stores(place, layout, NMNIST_REMEDY)
    sizes = tuple(len(store) for store in stores.values())
    is_whole = sizes == NMNIST_SIZES
    note = (
        " + ".join(f"{size:,}" for size in sizes)
        + " samples: "
        + ("the numbers of the published partition." if is_whole else "NOT the published partition of 60,000 + 10,000.")
    )
    return event_dataset("nmnist", stores, classes, NMNIST_ORIGIN, NMNIST_LICENCE, note, memory, duration)


def _stores(
    folder: Path, layout: AddressLayout, remedy: str, groups: str | None = None
) -> tuple[dict[str, EventStore], tuple[str, ...]]:
    """Return the events of all parts, and the names of the classes."""
    folders = {part: part_folder(folder, *names) for part, names in PARTS.items()}
    present = {part: place for part, place in folders.items() if place is not None}
    if "train" in present and "test" in present:
        classes = class_names(present.values())
        return {part: RecordingFolder(place, classes, layout, groups) for part, place in present.items()}, classes
    files = {part: _file(folder, names) for part, names in PARTS.items()}
    flat = {part: FlatFile(file, layout) for part, file in files.items() if file is not None}
    if "train" in flat and "test" in flat:
        if groups is not None:
            raise DatasetError("data.settings.groups is for one file per sample; flat files have an array groups")
        return dict[str, EventStore](flat), _classes(flat)
    raise DatasetError(
        f"data.folder={folder}: expected train/CLASS/* and test/CLASS/*, or train and test as one of "
        f"{', '.join(ENDINGS)}; found {'neither' if folder.is_dir() else 'no such folder'}; {remedy}"
    )


def _heidelberg_files(folder: Path) -> dict[str, Path]:
    """Return the files of all parts in the layout of the Heidelberg data sets; none unless both main parts have one."""
    files = {}
    for part, names in PARTS.items():
        patterns = [f"{start}{name}{ending}" for start in ("", "*_") for name in names for ending in HDF5_ENDINGS]
        candidates = [file for pattern in patterns for file in sorted(folder.glob(pattern)) if _is_heidelberg(file)]
        if len(candidates) > 1:
            raise DatasetError(
                f"data.folder={folder}: {' and '.join(file.name for file in candidates)} are both {part} parts; "
                "leave one there"
            )
        if candidates:
            files[part] = candidates[0]
    return files if {"train", "test"} <= set(files) else {}


def _is_heidelberg(path: Path) -> bool:
    """Return whether a file has the layout of the Heidelberg data sets."""
    file = HDF5(path)
    try:
        return file.holds(TIMES)
    finally:
        file.close()


def _require_undeclared(file: Path, settings: Mapping[str, object]) -> None:
    """Raise an error if a setting declares what a file in the layout of the Heidelberg data sets tells itself."""
    defaults = signature(recordings).parameters
    for name, value in settings.items():
        if value != defaults[name].default:
            raise DatasetError(
                f"data.settings.{name}={value} has no effect on {file}, which names its units, classes and speakers, "
                "and has times in seconds; leave it out"
            )


def _file(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Return the file of a part; None if there is none."""
    candidates = [folder / f"{name}{ending}" for name in names for ending in ENDINGS]
    return next((file for file in candidates if file.is_file()), None)


def _classes(stores: Mapping[str, FlatFile]) -> tuple[str, ...]:
    """Return the names of the classes of flat files; numbers if they have no names."""
    names = {store.classes for store in stores.values() if store.classes}
    if len(names) > 1:
        raise DatasetError(f"{', '.join(store.title for store in stores.values())}: the names of their classes differ")
    highest = max((int(store.labels.max()) for store in stores.values() if len(store)), default=0)
    return names.pop() if names else tuple(str(number) for number in range(highest + 1))
