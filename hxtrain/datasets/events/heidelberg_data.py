"""The Heidelberg data sets, spoken words as spikes of 700 units: facts, download, and loaders (arXiv:1910.07407)."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hxtrain.backends.files import replacing

from ..dataset import Dataset
from ..download import cache_folder, download_files, file_md5
from ..errors import DatasetError
from .assembly import MEMORY, event_dataset
from .files import reading
from .heidelberg import HeidelbergFile

MIRRORS = ("https://zenkelab.org/datasets/", "https://compneuro.net/datasets/")
ORIGIN = (
    "B. Cramer, Y. Stradmann, J. Schemmel and F. Zenke, The Heidelberg Spiking Data Sets for the Systematic Evaluation "
    "of Spiking Neural Networks, IEEE TNNLS 33 (2022), arXiv:1910.07407"
)
LICENCE = "CC BY 4.0"


@dataclass(frozen=True)
class HeidelbergInfo:
    """Facts about a data set of the Heidelberg layout.

    Attributes:
        name: name in settings and checkpoints.
        title: full name.
        files: name of the file of each part.
        md5: MD5 of the zip archive of each file, as tonic 1.6 lists them.
        sizes: numbers of samples of each part that the authors have published, and where.
        mirrors: base addresses of the archives.
    """

    name: str
    title: str
    files: Mapping[str, str]
    md5: Mapping[str, str]
    sizes: Mapping[tuple[int, ...], str]
    mirrors: tuple[str, ...] = MIRRORS


SHD = HeidelbergInfo(
    name="shd",
    title="Spiking Heidelberg Digits",
    files={"train": "shd_train.h5", "test": "shd_test.h5"},
    md5={"train": "f3252aeb598ac776c1b526422d90eecb", "test": "1503a5064faa34311c398fb0a1ed0a6f"},
    sizes={(8156, 2264): "the authors' current page", (8332, 2088): "the paper and the authors' earlier page"},
)
SSC = HeidelbergInfo(
    name="ssc",
    title="Spiking Speech Commands",
    files={"train": "ssc_train.h5", "validation": "ssc_valid.h5", "test": "ssc_test.h5"},
    md5={
        "train": "d102be95e7144fcc0553d1f45ba94170",
        "validation": "b4eee3516a4a90dd0c71a6ac23a8ae43",
        "test": "a35ff1e9cffdd02a20eb850c17c37748",
    },
    sizes={(75466, 9981, 20382): "the authors' page"},
)
PUBLISHED = {info.name: info for info in (SHD, SSC)}


def shd(
    folder: str | None = None, download: bool = False, memory: float = MEMORY, duration: float | None = None
) -> Dataset:
    """Return the Spiking Heidelberg Digits: twenty spoken digits, English and German.

    Args:
        folder: folder of `shd_train.h5` and `shd_test.h5`; None: the folder of downloads.
        download: whether to fetch the files that the folder lacks.
        memory: largest size of events in memory (bytes), see `event_dataset`.
        duration: time (s) from which on events are left out; None: none are.

    Raises:
        DatasetError: a file is missing or damaged, or a download fails.
    """
    return _published("shd", folder, download, memory, duration)


def ssc(
    folder: str | None = None, download: bool = False, memory: float = MEMORY, duration: float | None = None
) -> Dataset:
    """Return the Spiking Speech Commands, 35 words, with a validation part; see `shd` for the arguments."""
    return _published("ssc", folder, download, memory, duration)


def read_heidelberg(
    name: str,
    files: Mapping[str, Path],
    origin: str,
    licence: str,
    note: str,
    memory: float = MEMORY,
    duration: float | None = None,
) -> Dataset:
    """Return the data set of files in the layout of the Heidelberg data sets.

    Args:
        name: name of the data set.
        files: path of the parts `train` and `test`, and of `validation`, if any.
        origin: source of the data.
        licence: terms of use.
        note: remarks on this copy.
        memory: largest size of events in memory (bytes), see `event_dataset`.
        duration: time (s) from which on events are left out; None: none are.

    Raises:
        DatasetError: a file is missing or damaged, or the files differ in units or classes.
    """
    stores = {part: HeidelbergFile(path) for part, path in files.items()}
    first = stores["train"]
    classes = max((store.classes for store in stores.values()), key=len)
    for store in stores.values():
        if store.units != first.units:
            raise DatasetError(
                f"{store.title}: {store.units} units, but {first.title} has {first.units}; take files of one data set"
            )
        if store.classes != classes[: len(store.classes)]:
            raise DatasetError(f"{store.title}: its classes differ from those of {first.title}; take files of one set")
    return event_dataset(name, stores, classes, origin, licence, note, memory, duration)


def _published(name: str, folder: str | None, download: bool, memory: float, duration: float | None) -> Dataset:
    """Return a published data set."""
    info = PUBLISHED[name]
    place = cache_folder(name) if folder is None else Path(folder).expanduser()
    if download:
        download_heidelberg(info, place)
    files = {part: place / file for part, file in info.files.items()}
    for file in files.values():
        if not file.is_file():
            raise DatasetError(
                f"{file}: expected a file of the {info.title}, found none; data.download=true fetches it, "
                f"data.folder=FOLDER names the folder of {', '.join(info.files.values())}, and data=spoken_digits "
                "comes with the package"
            )
    data = read_heidelberg(name, files, ORIGIN, LICENCE, "", memory, duration)
    return replace(data, note=f"{_note(info, data)} {data.note}".rstrip())


def _note(info: HeidelbergInfo, data: Dataset) -> str:
    """Return what a reader needs to know about the partition."""
    parts = [data.train, *([] if data.validation is None else [data.validation]), data.test]
    sizes = tuple(len(part) for part in parts)
    text = " + ".join(f"{size:,}" for size in sizes)
    if sizes in info.sizes:
        return f"{text} samples ({', '.join(info.files)}), as on {info.sizes[sizes]}."
    return f"{text} samples ({', '.join(info.files)}): NOT a published partition of the {info.title}."


def download_heidelberg(info: HeidelbergInfo, folder: Path) -> None:
    """Fetch and unpack the files that a folder lacks; existing files stay unchanged.

    An archive that is in the folder is used if its checksum is correct.

    Raises:
        DatasetError: no mirror delivers an archive, or an archive in the folder has another checksum.
    """
    for part, name in info.files.items():
        if (folder / name).is_file():
            continue
        archive = folder / f"{name}.zip"
        is_fetched = not archive.is_file()
        if is_fetched:
            download_files(info.mirrors, {archive.name: info.md5[part]}, folder)
        elif file_md5(archive) != info.md5[part]:
            raise DatasetError(
                f"{archive} has another checksum than the published one; remove it, or unpack it by hand"
            )
        _unpack(archive, name)
        if is_fetched:
            archive.unlink()


def _unpack(archive: Path, name: str) -> None:
    """Unpack the file of an archive that has a name, whatever folder it is in there."""
    with reading(str(archive)), zipfile.ZipFile(archive) as content:
        members = [member for member in content.infolist() if Path(member.filename).name == name]
        if len(members) != 1:
            raise DatasetError(f"{archive}: expected one file {name}, found {', '.join(content.namelist()) or 'none'}")
        with content.open(members[0]) as packed, replacing(archive.with_name(name)) as target:
            shutil.copyfileobj(packed, target)
