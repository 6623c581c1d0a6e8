"""Load a data set by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from hxtrain.checks import check_types, text, whole

from .catalogue import CATALOGUE, DatasetInfo
from .dataset import Dataset, hold_out
from .download import cache_folder, download_dataset
from .errors import DatasetError
from .folder import read_folder
from .own import KINDS, read_own
from .own import NAME as OWN
from .shipped import read_shipped
from .yin_yang import generate

NAMES = (*CATALOGUE, OWN)


def load_dataset(
    name: str, size: int | None = None, folder: str | Path | None = None, download: bool = False
) -> Dataset:
    """Load `mnist`, `fashion`, `digits`, `yin_yang`, or a user's data set, `folder` (`own.py`).

    Args:
        name: one of `NAMES`.
        size: side of the images in pixels, or length of the feature vectors (yin_yang: 4); None is the shipped size
            (16, digits: 8), or the size of a user's images.
        folder: folder of the four IDX files, or of a user's data. Without `folder` and `download` the shipped data are
            used.
        download: whether to fetch the files that `folder` lacks, into `folder` or `cache_folder(name)`; the published
            files are then used, never the shipped ones.

    Returns:
        Both parts: images uint8 [N, size, size], features float32 [N, size], or events; labels int64 [N].

    Raises:
        DatasetError: the name is unknown, the size is not available, or files are missing or damaged.
    """
    size = None if size is None else whole("data.size", size)
    folder = None if folder is None else text("data.folder", folder)
    if name == OWN:
        return _load_folder(size, folder, download)
    info = CATALOGUE.get(name) if isinstance(name, str) else None
    if info is None:
        raise DatasetError(f"unknown data set {name!r}; known are {', '.join(NAMES)}")
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


def _load_folder(size: int | None, folder: str | Path | None, download: bool) -> Dataset:
    if folder is None:
        raise DatasetError(f"data={OWN} needs data.folder=FOLDER, the folder of your files: {KINDS}")
    if download:
        raise DatasetError(f"data={OWN} has nothing to download; leave data.download out")
    if size is not None and size < 1:
        raise DatasetError(f"size must be at least 1 pixel, got {size}")
    return read_own(Path(folder).expanduser(), size)


@dataclass
class DataConfig:
    """Settings of the data: the arguments of `load_dataset`, in a form that OmegaConf accepts.

    Attributes:
        name: name of a data set, see docs/data.md.
        size: side of the images in pixels; None: the shipped size.
        folder: folder of the original files, for images of another size.
        download: whether to fetch the original files.
        validation: number of training samples that are held out and evaluated in place of the test samples; if the data
            set has a validation part, samples of that part.
    """

    name: str = "mnist"
    size: Optional[int] = None  # noqa: UP045 - the form for every OmegaConf
    folder: Optional[str] = None  # noqa: UP045
    download: bool = False
    validation: int = 0

    def __post_init__(self) -> None:
        check_types(self, "data.")

    def load(self) -> Dataset:
        """Load the data; see `load_dataset`."""
        return hold_out(load_dataset(self.name, self.size, self.folder, self.download), self.validation)


def _check_request(info: DatasetInfo, size: int, folder: str | Path | None, download: bool) -> None:
    if size < 1:
        raise DatasetError(f"size must be at least 1 pixel, got {size}")
    if not info.shipped and (folder is not None or download or size != info.size):
        raise DatasetError(
            f"'{info.name}' is generated, with {info.size} features; leave folder and download out, and size at "
            f"{info.size}"
        )
    if not info.mirrors and (folder is not None or download or size != info.size):
        raise DatasetError(
            f"'{info.name}' comes with the package at {info.size}x{info.size} pixels only; "
            f"leave folder and download out, and size at {info.size}"
        )
    if folder is None and not download and size != info.size:
        raise DatasetError(
            f"'{info.name}' is shipped at {info.size}x{info.size} pixels, not {size}x{size}; for other sizes "
            "give folder=<folder of the IDX files>, or download=true to fetch them"
        )
