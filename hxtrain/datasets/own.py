"""A user's data set in a folder: arrays, one picture per sample, or IDX files; any number of classes, any size.

The folder has one of these layouts, tried in this order::

    data.npz                    train_images, train_labels, test_images, test_labels (or x_train, y_train, ...)
    train.npz, test.npz         images, labels
    train/CLASS/*.png, test/... one folder per class, with the name of the class
    train-images-idx3-ubyte     and three more, as for MNIST (`folder.py`)

Arrays: images uint8 `[N, H, W]`, or float in 0..1; feature vectors, float `[N, F]` in 0..1, or events
(`events/flat.py`) in place of images; labels of any integer type `[N]`, from 0; optionally the names of the classes as
`classes`, and the speaker or writer of each sample as `groups` `[N]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .arrays import Part, read_parts
from .catalogue import IDX_NAMES
from .class_folders import class_names
from .dataset import Dataset, content_sha256
from .errors import DatasetError
from .events import EventSamples
from .events.flat import read_events
from .folder import find_idx
from .idx import read_images, read_labels
from .resize import resize_images
from .split import Array, Samples, Split

NAME = "folder"
PARTS = ("train", "test")
KINDS = "data.npz, train.npz and test.npz, train/CLASS/*.png and test/CLASS/*.png, or the four IDX files"
NOTE = "A user's own files; how they were divided into training and test part is not known to this package."
LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey level (ITU-R BT.601)."""


def read_own(folder: Path, size: int | None) -> Dataset:
    """Read the data set of a folder.

    Args:
        folder: folder with one of the layouts above.
        size: side of the images in pixels; None: size of the files, which must then be square.

    Raises:
        DatasetError: the folder has none of the layouts, a file is damaged, or files do not match.
    """
    content = _content(folder)
    if content is None:
        state = "none of them" if folder.is_dir() else "no such folder"
        raise DatasetError(f"folder={folder}: expected {KINDS}; found {state}")
    parts, classes = content
    train, test = (_sized(folder, part, size) for part in parts)
    for name, part in zip(PARTS, (train, test), strict=True):
        if not len(part):
            raise DatasetError(f"{folder}: its {name} part holds no sample; put some there")
    names = classes or tuple(str(label) for label in range(1 + max(int(part.labels.max()) for part in (train, test))))
    return Dataset(
        name=NAME,
        train=train,
        test=test,
        classes=names,
        size=train.shape[-1],
        origin=str(folder),
        licence="the owner's",
        note=NOTE,
        sha256=content_sha256(train, test),
    )


def _content(folder: Path) -> tuple[Sequence[Samples], tuple[str, ...]] | None:
    """Return both parts, and the names of the classes, if any; None without data."""
    parts = read_parts(folder, PARTS)
    if parts:
        names = parts[0].arrays.get("classes", ())
        has_events = any(part.holds("times") for part in parts)
        samples = read_events(parts) if has_events else [_values(part) for part in parts]
        return samples, tuple(str(name) for name in names)
    if all((folder / part).is_dir() for part in PARTS):
        return _pictures(folder)
    paths = [find_idx(folder, name) for name in IDX_NAMES]
    if all(paths):
        images, labels, test_images, test_labels = (path for path in paths if path is not None)
        train = Split(read_images(images), read_labels(labels).long())
        return (train, Split(read_images(test_images), read_labels(test_labels).long())), ()
    return None


def _values(part: Part) -> Split:
    """Return the images or features of a part."""
    return Split(_samples(part.file, *part.find("images", "x")), part.labels(), part.groups())


def _samples(file: Path, name: str, array: Array) -> Tensor:
    """Return uint8 images `[N, H, W]`, or float32 features `[N, F]`; a single channel is dropped."""
    if array.ndim == 4 and 1 in (array.shape[1], array.shape[3]):
        array = array.squeeze(1 if array.shape[1] == 1 else 3)
    if array.ndim not in (2, 3) or array.dtype.kind not in "uif":
        raise DatasetError(
            f"{file}: {name} is {array.dtype} {list(array.shape)}; expected grey images [N, H, W] or features [N, F]"
        )
    if array.dtype.kind == "f":
        low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
        if not 0 <= low <= high <= 1:
            raise DatasetError(f"{file}: {name} spans {low:.4g} to {high:.4g}; expected 0 to 1, or uint8 levels")
        values = torch.from_numpy(array.astype(np.float32))
        return values if array.ndim == 2 else values.mul(255).round().to(torch.uint8)
    if array.ndim == 2:
        raise DatasetError(f"{file}: {name} are feature vectors of integers; scale them to float in 0 to 1")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) <= 255:
        raise DatasetError(f"{file}: {name} span {array.min()} to {array.max()}; expected levels 0 to 255")
    return torch.from_numpy(array.astype(np.uint8))


def _pictures(folder: Path) -> tuple[Sequence[Samples], tuple[str, ...]]:
    """Read one picture per sample from one folder per class; classes and pictures are ordered by name."""
    names = class_names(folder / part for part in PARTS)
    parts: list[Samples] = []
    for part in PARTS:
        files = [
            (file, label) for label, name in enumerate(names) for file in sorted((folder / part / name).glob("*.png"))
        ]
        images = [_picture(file) for file, _ in files]
        shapes = {image.shape: file for image, (file, _) in zip(images, files, strict=True)}
        if len(shapes) > 1:
            first, second = list(shapes.items())[:2]
            raise DatasetError(f"{first[1]} has {first[0]} pixels, {second[1]} {second[0]}; make all pictures one size")
        if not images:
            raise DatasetError(f"{folder / part}: expected CLASS/*.png, found none")
        labels = torch.tensor([label for _, label in files], dtype=torch.int64)
        parts.append(Split(torch.from_numpy(np.stack(images)), labels))
    return parts, names


def _picture(file: Path) -> npt.NDArray[np.uint8]:
    """Return a picture's grey levels `[H, W]`; transparency is ignored."""
    from matplotlib.image import imread

    try:
        picture = np.asarray(imread(file), np.float32)
    except Exception as error:  # Pillow and matplotlib raise many kinds
        raise DatasetError(f"{file} is no readable picture ({error}); write it again") from error
    if picture.ndim == 3:
        picture = picture[..., 0] if picture.shape[2] < 3 else picture[..., :3] @ np.array(LUMINANCE, np.float32)
    return np.rint(picture * 255).astype(np.uint8)


def _sized(folder: Path, samples: Samples, size: int | None) -> Samples:
    """Return images resized to squares of `size`; other samples stay unchanged."""
    if len(samples.shape) == 1:
        if size not in (None, samples.shape[0]):
            unit = "units" if isinstance(samples, EventSamples) else "features"
            raise DatasetError(f"{folder}: size={size}, but its samples have {samples.shape[0]} {unit}")
        return samples
    height, width = samples.shape
    if size is None and height != width:
        raise DatasetError(f"{folder}: its images have {height}x{width} pixels; give a `size` to make them square")
    return Split(resize_images(samples.images, size or height), samples.labels, samples.groups)
