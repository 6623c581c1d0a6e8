"""Data sets of tonic (extra `tonic`), by an adapter to its interface: `dataset[i]` is a structured array and a target.

tonic is imported by `data=tonic` alone. `from_tonic` takes any data sets with this interface, and does not import it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..dataset import Dataset
from ..download import cache_folder
from ..errors import DatasetError
from .address import AddressLayout
from .assembly import MEMORY, event_dataset
from .files import reading
from .store import Events, EventStore, Integers

HEIDELBERG = {"SHD": "shd", "SSC": "ssc"}
"""Data sets with a reader in this package: tonic rounds their times to microseconds, drops the speakers from its
samples, and before 1.7 multiplied times of type float16 by 1e6, which overflows."""


class TonicStore(EventStore):
    """The samples of a data set of tonic, which are read as they are needed.

    Args:
        dataset: data set with `sensor_size`, `len`, and `dataset[i]`.
        names: names of the classes, for targets that are names; empty for targets that are numbers.
        layout: meaning of the fields.

    Raises:
        DatasetError: the targets are neither names nor numbers.
    """

    def __init__(self, dataset: Any, names: Sequence[str], layout: AddressLayout) -> None:
        self.dataset = dataset
        self.title = f"tonic's {type(dataset).__name__}"
        self.layout = layout
        self.units = layout.total_units
        numbers = {name: number for number, name in enumerate(names)}
        self.labels = torch.tensor([_label(target, numbers, self.title) for target in _targets(dataset)])

    def read(self, numbers: Integers) -> Events:
        """Return the events of some samples, see `EventStore`."""
        recordings = [self._recording(int(number)) for number in numbers]
        counts = np.array([len(recording[0]) for recording in recordings], np.int64)
        times = np.concatenate([np.zeros(0), *(time for time, _ in recordings)])
        return Events(counts, times, np.concatenate([np.zeros(0, np.int64), *(unit for _, unit in recordings)]))

    @property
    def identity(self) -> str:
        """Place and number of the samples; nothing tells whether the files have changed."""
        return f"{self.title} {getattr(self.dataset, 'location_on_system', '')} {len(self)} {self.layout}"

    def _recording(self, number: int) -> tuple[Any, Any]:
        """Return times (s) and units of a sample."""
        place = self.place(number)
        with reading(place):
            events = np.asarray(self.dataset[number][0])
        if not events.dtype.names:
            raise DatasetError(f"{place} is {events.dtype} {list(events.shape)}; expected a structured array of events")
        columns = {role: events[name] for role, name in self.layout.names(events.dtype.names, place).items()}
        return self.layout.convert(columns, np.array([len(events)]), place)


def tonic(
    dataset: str | None = None,
    folder: str | None = None,
    download: bool = False,
    pool: int = 1,
    from_first: bool = False,
    arguments: Mapping[str, Any] | None = None,
    memory: float = MEMORY,
    duration: float | None = None,
) -> Dataset:
    """Return a data set of tonic that has a training and a test part.

    Args:
        dataset: name of its class, such as `NMNIST` or `DVSGesture`.
        folder: folder of its files; None: the folder of downloads.
        download: whether tonic may fetch what the folder lacks.
        pool: side of squares of pixels that share a unit.
        from_first: whether times count from the first event of a sample.
        arguments: further arguments of the class.
        memory: largest size of events in memory (bytes), see `event_dataset`.
        duration: time (s) from which on events are left out; None: none are.

    Raises:
        DatasetError: tonic is not installed, has no such data set, or may not download it; or a sample is damaged.
    """
    if dataset is None:
        raise DatasetError("data=tonic needs data.settings.dataset=NAME, a data set of tonic such as NMNIST")
    if dataset in HEIDELBERG:
        raise DatasetError(
            f"data.settings.dataset={dataset}: take data={HEIDELBERG[dataset]}, which reads its times without rounding"
        )
    kind = _kind(dataset)
    place = cache_folder("tonic") if folder is None else Path(folder).expanduser()
    options = dict(arguments or {})
    parts = {
        part: _opened(kind, place, part_options | options, download) for part, part_options in _parts(kind).items()
    }
    note = f"Read by tonic {_version()}, with its partition."
    return from_tonic(parts, f"tonic {dataset}", note, pool, from_first, memory, duration)


def from_tonic(
    parts: Mapping[str, Any],
    origin: str,
    note: str = "",
    pool: int = 1,
    from_first: bool = False,
    memory: float = MEMORY,
    duration: float | None = None,
) -> Dataset:
    """Return data sets of tonic's interface as one data set.

    Args:
        parts: the parts `train` and `test`, and `validation`, if any: data sets whose `dataset[i]` is a structured
            array with the fields t (microseconds), x, and y and p where `sensor_size` has them, and a target.
        origin: source of the data.
        note: remarks on this copy.
        pool: side of squares of pixels that share a unit.
        from_first: whether times count from the first event of a sample.
        memory: largest size of events in memory (bytes), see `event_dataset`.
        duration: time (s) from which on events are left out; None: none are.

    Raises:
        DatasetError: the data sets have no sensor size, or a sample is damaged.
    """
    layout = _layout(parts["train"], pool, from_first)
    names, classes = _classes(parts)
    stores = {part: TonicStore(dataset, names, layout) for part, dataset in parts.items()}
    return event_dataset("tonic", stores, classes, origin, "see its authors", note, memory, duration)


def _kind(name: str) -> Any:
    """Return the class of a data set of tonic."""
    try:
        datasets = import_module("tonic.datasets")
    except ImportError as error:
        raise DatasetError(f"data=tonic needs tonic ({error}); run: pip install 'hxtrain[tonic]'") from error
    kind = getattr(datasets, name, None)
    if not inspect.isclass(kind):
        raise DatasetError(f"data.settings.dataset={name}: tonic.datasets has no such data set")
    return kind


def _parts(kind: Any) -> dict[str, dict[str, Any]]:
    """Return the arguments that choose each part of a data set."""
    accepted = inspect.signature(kind.__init__).parameters
    if "train" in accepted:
        return {"train": {"train": True}, "test": {"train": False}}
    if "split" in accepted:
        return {"train": {"split": "train"}, "validation": {"split": "valid"}, "test": {"split": "test"}}
    raise DatasetError(
        f"tonic's {kind.__name__} has no training and test part; divide it, and give both to "
        "hxtrain.datasets.events.tonic_data.from_tonic"
    )


def _opened(kind: Any, place: Path, options: Mapping[str, Any], download: bool) -> Any:
    """Return a data set, which fetches its files if it may."""

    def refuse(dataset: Any) -> None:
        raise DatasetError(
            f"{place}: tonic lacks files of {kind.__name__}; data.download=true lets it fetch them, data.folder=FOLDER "
            "names those that you have"
        )

    with reading(f"tonic's {kind.__name__} in {place}"):
        if download:
            return kind(save_to=str(place), **options)
        guarded = type(kind.__name__, (kind,), {"download": refuse, "__module__": kind.__module__})
        dataset = guarded(save_to=str(place), **options)
        dataset.__class__ = kind  # which can be pickled
        return dataset


def _layout(dataset: Any, pool: int, from_first: bool) -> AddressLayout:
    """Return the layout that a data set of tonic declares."""
    size = getattr(dataset, "sensor_size", None)
    if not isinstance(size, tuple) or len(size) != 3 or not all(isinstance(side, int) for side in size):
        raise DatasetError(
            f"tonic's {type(dataset).__name__} has sensor_size={size!r}, expected (width, height, polarities): crop "
            "its samples to one size, and give them to hxtrain.datasets.events.tonic_data.from_tonic"
        )
    return AddressLayout(width=size[0], height=size[1], polarities=size[2], pool=pool, from_first=from_first)


def _targets(dataset: Any) -> Sequence[Any]:
    """Return the targets of all samples, which are read if the data set has no list of them."""
    targets = getattr(dataset, "targets", None)
    if targets is not None and len(targets) == len(dataset):
        return list(targets)
    return [dataset[number][1] for number in range(len(dataset))]


def _classes(parts: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names that targets are, if they are names, and the names of the classes."""
    targets = [target for dataset in parts.values() for target in _targets(dataset)]
    if targets and all(isinstance(target, str) for target in targets):
        names = tuple(sorted(set(targets)))
        return names, names
    highest = max((int(target) for target in targets), default=0)
    classes = getattr(parts["train"], "classes", ())
    if len(classes) > highest:
        return (), tuple(map(str, classes))
    return (), tuple(str(number) for number in range(highest + 1))


def _label(target: Any, numbers: Mapping[str, int], title: str) -> int:
    """Return the class number of a target."""
    if isinstance(target, str):
        return numbers[target]
    if np.ndim(target) or int(target) != target:
        raise DatasetError(f"{title}: a target is {target!r:.40}; expected the number or the name of a class")
    return int(target)


def _version() -> str:
    """Return the version of tonic."""
    try:
        return version("tonic")
    except PackageNotFoundError:
        return "of unknown version"
