"""Load a data set by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any, Dict, List, Optional  # noqa: UP035 - OmegaConf resolves these on every Python

from hxtrain.backends import Registry
from hxtrain.checks import check_types, text, whole

from .catalogue import CATALOGUE, DatasetInfo
from .dataset import Dataset
from .download import cache_folder, download_dataset
from .errors import DatasetError, UnknownDatasetError
from .folder import read_folder
from .holdout import drawn_groups, hold_out, hold_out_groups
from .own import KINDS, read_own
from .own import NAME as OWN
from .shipped import read_shipped
from .shuffle import with_shuffled_times
from .yin_yang import generate

Loader = Callable[..., Dataset]
"""Function of keyword settings, such as `size` and `folder`, that returns a data set."""
DATASETS: Registry[Loader] = Registry("datasets", "data.name", error=UnknownDatasetError)
"""Loaders of data sets by name."""


def load_dataset(
    name: str,
    size: int | None = None,
    folder: str | Path | None = None,
    download: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Dataset:
    """Load a data set by name: `mnist`, `fashion`, `digits`, `yin_yang`, a user's `folder`, or of another package.

    Args:
        name: one of `DATASETS`.
        size: side of the images in pixels, or length of the feature vectors (yin_yang: 4); None is the shipped size
            (16, digits: 8), or the size of a user's images.
        folder: folder of the four IDX files, or of a user's data. Without `folder` and `download` the shipped data are
            used.
        download: whether to fetch the files that `folder` lacks, into `folder` or `cache_folder(name)`; the published
            files are then used, never the shipped ones.
        settings: further keyword settings of the loader.

    Returns:
        Both parts: images uint8 [N, size, size], features float32 [N, size], or events; labels int64 [N].

    Raises:
        DatasetError: the name or a setting is unknown, the size is not available, or files are missing or damaged.
    """
    loader = DATASETS.load(name)
    size = None if size is None else whole("size", size)
    if size is not None and size < 1:
        raise DatasetError(f"size must be at least 1 pixel, got {size}")
    common = {
        "size": size,
        "folder": None if folder is None else text("folder", folder),
        "download": download,
    }
    keywords = {key: value for key, value in common.items() if value not in (None, False)} | dict(settings or {})
    accepted = signature(loader).parameters
    for key, value in keywords.items():
        if key not in accepted:
            setting = f"data.{key}" if key in common else f"data.settings.{key}"
            raise DatasetError(
                f"data={name} has no setting {setting}={value}; it accepts: {', '.join(accepted) or 'none'}"
            )
    data = loader(**keywords)
    if not isinstance(data, Dataset):
        raise DatasetError(f"data={name} gave a {type(data).__name__}, expected Dataset")
    return data


def mnist(size: int | None = None, folder: str | None = None, download: bool = False) -> Dataset:
    """Return MNIST; see `load_dataset` for the arguments."""
    return _published("mnist", size, folder, download)


def fashion(size: int | None = None, folder: str | None = None, download: bool = False) -> Dataset:
    """Return Fashion-MNIST; see `load_dataset` for the arguments."""
    return _published("fashion", size, folder, download)


def digits(size: int | None = None, folder: str | None = None, download: bool = False) -> Dataset:
    """Return scikit-learn's digits; see `load_dataset` for the arguments."""
    return _published("digits", size, folder, download)


def yin_yang(size: int | None = None, folder: str | None = None, download: bool = False) -> Dataset:
    """Return the Yin-Yang data set, which is generated; see `load_dataset` for the arguments."""
    return _published("yin_yang", size, folder, download)


def folder(size: int | None = None, folder: str | None = None, download: bool = False) -> Dataset:
    """Return the data set in a user's folder; see `load_dataset` for the arguments."""
    if folder is None:
        raise DatasetError(f"data set {OWN!r} needs folder=FOLDER, the folder of your files: {KINDS}")
    if download:
        raise DatasetError(f"data set {OWN!r} has nothing to download; leave `download` out")
    return read_own(Path(folder).expanduser(), size)


def _published(name: str, size: int | None, folder: str | None, download: bool) -> Dataset:
    """Return a data set of the catalogue."""
    info = CATALOGUE[name]
    size = info.size if size is None else size
    _check_request(info, size, folder, download)
    if not info.shipped:
        return generate()
    if folder is None and not download:
        return read_shipped(info)
    place = cache_folder(name) if folder is None else Path(folder).expanduser()
    if download:
        download_dataset(info, place)
    return read_folder(info, place, size)


@dataclass
class DataConfig:
    """Settings of the data: the arguments of `load_dataset`, in a form that OmegaConf accepts.

    Attributes:
        name: name of a data set, see docs/data.md, or of one that a package provides.
        size: side of the images in pixels; None: the shipped size.
        folder: folder of the original files, for images of another size.
        download: whether to fetch the original files.
        validation: number of training samples that are held out and evaluated in place of the test samples; if the data
            set has a validation part, samples of that part.
        validation_groups: groups of training samples, such as speakers, that are held out and evaluated in place of the
            test samples.
        validation_random_groups: number of random groups that are held out so.
        validation_seed: seed that draws these groups.
        shuffled_times: whether the times of the events of each unit are shuffled over all samples of a part, so that
            counts alone distinguish the classes: a control of what spike times tell.
        settings: further keyword settings of the data set.
    """

    name: str = "mnist"
    size: Optional[int] = None  # noqa: UP045 - the form for every OmegaConf
    folder: Optional[str] = None  # noqa: UP045
    download: bool = False
    validation: int = 0
    validation_groups: List[int] = field(default_factory=list)  # noqa: UP006
    validation_random_groups: int = 0
    validation_seed: int = 0
    shuffled_times: bool = False
    settings: Dict[str, Any] = field(default_factory=dict)  # noqa: UP006

    def __post_init__(self) -> None:
        check_types(self, "data.")
        names = ("validation", "validation_groups", "validation_random_groups")
        requests = [f"data.{name}={getattr(self, name)}" for name in names if getattr(self, name)]
        if len(requests) > 1:
            raise ValueError(f"{' and '.join(requests)} both hold out samples; give one of them")

    def load(self) -> Dataset:
        """Load the data, and hold out samples; see `load_dataset`.

        Raises:
            DatasetError: the data cannot be loaded, or have no such samples or groups.
        """
        data = load_dataset(self.name, self.size, self.folder, self.download, self.settings)
        if self.shuffled_times:
            data = with_shuffled_times(data)
        if self.validation_groups:
            return hold_out_groups(data, self.validation_groups)
        if self.validation_random_groups:
            return hold_out_groups(data, drawn_groups(data, self.validation_random_groups, self.validation_seed))
        return hold_out(data, self.validation)


def _check_request(info: DatasetInfo, size: int, folder: str | Path | None, download: bool) -> None:
    if not info.shipped and (folder is not None or download or size != info.size):
        raise DatasetError(
            f"'{info.name}' is generated, with {info.size} features; leave `folder` and `download` out, and `size` at "
            f"{info.size}"
        )
    if not info.mirrors and (folder is not None or download or size != info.size):
        raise DatasetError(
            f"'{info.name}' comes with the package at {info.size}x{info.size} pixels only; "
            f"leave `folder` and `download` out, and `size` at {info.size}"
        )
    if folder is None and not download and size != info.size:
        raise DatasetError(
            f"'{info.name}' is shipped at {info.size}x{info.size} pixels, not {size}x{size}; for other sizes "
            "give folder=<folder of the IDX files>, or download=true to fetch them"
        )
