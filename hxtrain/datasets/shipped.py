"""The .npz files of the package: read without pickle, written with reproducible bytes."""

import io
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .catalogue import DatasetInfo
from .dataset import Dataset, content_sha256
from .errors import DatasetError
from .split import Samples, Split

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip entry can carry
Arrays = dict[str, npt.NDArray[np.generic]]


def shipped_file(info: DatasetInfo) -> Path:
    """Return the path of a data set's file in the installed package."""
    return Path(__file__).parent / "files" / info.shipped


def read_shipped(info: DatasetInfo, source: Path | None = None) -> Dataset:
    """Read a file written by `write_npz`; by default the installed one.

    Raises:
        DatasetError: the file is missing, damaged or lacks an array.
    """
    source = shipped_file(info) if source is None else source
    try:
        facts = source.stat()
        arrays = _content(source, facts.st_size, facts.st_mtime_ns)
        train = _split(arrays["train_images"], arrays["train_labels"])
        test = _split(arrays["test_images"], arrays["test_labels"])
        note = str(arrays["note"])
    except Exception as error:  # zip, lzma, header and shape errors share no base class
        raise DatasetError(
            f"{source}: expected the data of '{info.name}' as an .npz file, found a missing or damaged one "
            f"({error}). Reinstall the package, or make the file again with `hxtrain data build`."
        ) from error
    return assemble(info, train, test, note)


@lru_cache(maxsize=4)
def _content(source: Path, size: int, changed: int) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a file; they are decompressed once in a process, which takes longer than to copy them.

    Args:
        source: path of the file.
        size: size of the file.
        changed: time of its last change, so that another file under the path is read anew.
    """
    with source.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        names = "train_images", "train_labels", "test_images", "test_labels", "note"
        return {name: arrays[name] for name in names}


def assemble(info: DatasetInfo, train: Samples, test: Samples, note: str) -> Dataset:
    """Combine two splits, images [N, S, S] or feature vectors [N, S], with the facts of `info` and their hash."""
    return Dataset(
        name=info.name,
        train=train,
        test=test,
        classes=info.classes,
        size=train.shape[-1],
        origin=info.origin,
        licence=info.licence,
        note=note,
        sha256=content_sha256(train, test),
    )


def write_dataset(path: Path, data: Dataset, extra: Arrays | None = None) -> None:
    """Write a data set (its classes must fit uint8 labels) with its note, origin, licence and `extra`."""
    arrays: Arrays = {
        "train_images": data.train.images.numpy(),
        "train_labels": data.train.labels.numpy().astype(np.uint8),
        "test_images": data.test.images.numpy(),
        "test_labels": data.test.labels.numpy().astype(np.uint8),
        "note": np.array(data.note),
        "origin": np.array(data.origin),
        "licence": np.array(data.licence),
    }
    write_npz(path, arrays | (extra or {}))


def write_npz(path: Path, arrays: Arrays) -> None:
    """Write arrays as an LZMA-compressed .npz without times, so that equal arrays give equal bytes.

    The bytes may differ between versions of Python's lzma library; the content does not.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array.copy(order="C"), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, buffer.getvalue(), zipfile.ZIP_LZMA)


def _split(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> Split:
    return Split(torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64)))
