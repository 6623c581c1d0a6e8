"""Data sets from a folder of the four IDX files."""

from pathlib import Path

import torch

from .catalogue import IDX_NAMES, UNKNOWN, DatasetInfo
from .dataset import Dataset
from .errors import DatasetError
from .idx import parse_idx, raw_md5, read_raw
from .resize import resize_images
from .shipped import assemble
from .split import Split


def find_idx(folder: Path, name: str) -> Path | None:
    """Return the path of an IDX file, such as `train-images-idx3-ubyte`, under one of its spellings; None if missing.

    Accepted spellings are the name, and the name with `.idx3-ubyte` for `-idx3-ubyte`, plain (preferred) or with `.gz`.
    """
    for spelling in spellings(name):
        path = folder / spelling
        if path.is_file():
            return path
    return None


def spellings(name: str) -> list[str]:
    """Return the accepted file names of one IDX file, in order of preference."""
    dotted = name.replace("-idx", ".idx")
    return [name, dotted, f"{name}.gz", f"{dotted}.gz"]


def read_folder(info: DatasetInfo, folder: Path, size: int) -> Dataset:
    """Read the four IDX files of a folder and resize the images to [N, size, size].

    Any number of images is accepted. First, `info.crop` pixels are removed from each side if the cropped image
    has at least `size` pixels; see `crop_for`. The note says whether the files are a known release, which is recognised
    by the MD5 of the uncompressed files.

    Raises:
        DatasetError: a file is missing, damaged or of the wrong kind, or images and labels disagree.
    """
    paths = [_require(info, folder, name) for name in IDX_NAMES]
    splits: list[Split] = []
    sums: list[str] = []
    for image_path, label_path in (paths[:2], paths[2:]):
        split, md5 = _read_split(info, image_path, label_path, size)
        splits.append(split)
        sums.extend(md5)
    return assemble(info, splits[0], splits[1], info.releases.get(tuple(sums), UNKNOWN))


def crop_for(info: DatasetInfo, height: int, width: int, size: int) -> int:
    """Return the number of pixels to crop off each side: `info.crop`, or 0 if the cropped image is below `size`."""
    return info.crop if size <= min(height, width) - 2 * info.crop else 0


def _read_split(info: DatasetInfo, image_path: Path, label_path: Path, size: int) -> tuple[Split, tuple[str, str]]:
    raw_images, raw_labels = read_raw(image_path), read_raw(label_path)
    images = parse_idx(image_path, raw_images, rank=3)
    labels = parse_idx(label_path, raw_labels, rank=1)
    if len(images) != len(labels):
        raise DatasetError(
            f"{image_path}: expected as many images as {label_path.name} has labels ({len(labels)}), "
            f"found {len(images)}. Take both files from the same release."
        )
    if int(labels.max()) >= len(info.classes):
        raise DatasetError(
            f"{label_path}: expected labels 0 to {len(info.classes) - 1}, found {int(labels.max())}. "
            f"Name a folder that holds '{info.name}'."
        )
    crop = crop_for(info, images.shape[1], images.shape[2], size)
    split = Split(resize_images(images, size, crop), labels.to(torch.int64))
    return split, (raw_md5(raw_images), raw_md5(raw_labels))


def _require(info: DatasetInfo, folder: Path, name: str) -> Path:
    path = find_idx(folder, name)
    if path is None:
        raise DatasetError(
            f"{folder}: expected one of {', '.join(spellings(name))}, found "
            f"{'none of them' if folder.is_dir() else 'no such folder'}. Name the folder of the "
            f"'{info.name}' files, or set download=true to fetch them."
        )
    return path
