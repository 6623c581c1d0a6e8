"""A user's data set in a folder: arrays, one picture per sample, or IDX files; any number of classes, any size.

The folder has one of these layouts, tried in this order::

    data.npz                    train_images, train_labels, test_images, test_labels (or x_train, y_train, ...)
    train.npz, test.npz         images, labels
    train/CLASS/*.png, test/... one folder per class, with the name of the class
    train-images-idx3-ubyte     and three more, as for MNIST (`folder.py`)

Arrays: images uint8 `[N, H, W]`, or float in 0..1; feature vectors, float `[N, F]` in 0..1, in place of images; labels
of any integer type `[N]`, from 0; optionally the names of the classes as `classes`.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .catalogue import IDX_NAMES
from .dataset import ImageDataset, Split, content_sha256
from .errors import DatasetError
from .folder import find_idx
from .idx import read_images, read_labels
from .resize import resize_images

NAME = "folder"
PARTS = ("train", "test")
KINDS = "data.npz, train.npz and test.npz, train/CLASS/*.png and test/CLASS/*.png, or the four IDX files"
NOTE = "A user's own files; how they were divided into training and test part is not known to this package."
LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey level (ITU-R BT.601)."""

Array = npt.NDArray[np.generic]


def read_own(folder: Path, size: int | None) -> ImageDataset:
    """Read the data set of a folder.

    Args:
        folder: folder with one of the layouts above.
        size: side of the images in pixels; None: size of the files, which must then be square.

    Raises:
        DatasetError: the folder has none of the layouts, a file is damaged, or files do not match.
    """
    content = _parts(folder)
    if content is None:
        state = "none of them" if folder.is_dir() else "no such folder"
        raise DatasetError(f"folder={folder}: expected {KINDS}; found {state}")
    (train, test), classes = content
    splits = [Split(_sized(folder, samples, size), labels) for samples, labels in (train, test)]
    for part, split in zip(PARTS, splits, strict=True):
        if not len(split):
            raise DatasetError(f"{folder}: its {part} part holds no sample; put some there")
    names = classes or tuple(str(label) for label in range(1 + max(int(split.labels.max()) for split in splits)))
    return ImageDataset(
        name=NAME,
        train=splits[0],
        test=splits[1],
        classes=names,
        size=splits[0].samples.shape[-1],
        origin=str(folder),
        licence="the owner's",
        note=NOTE,
        sha256=content_sha256(*splits),
    )


Part = tuple[Tensor, Tensor]
Parts = tuple[tuple[Part, Part], tuple[str, ...]]


def _parts(folder: Path) -> Parts | None:
    """Return samples and labels of both parts, and the names of the classes, if any; None without data."""
    if (folder / "data.npz").is_file():
        arrays = _arrays(folder / "data.npz")
        train, test = (
            _part(folder / "data.npz", arrays, (f"{p}_images", f"x_{p}"), (f"{p}_labels", f"y_{p}")) for p in PARTS
        )
        return (train, test), _classes(arrays)
    files = [folder / f"{part}.npz" for part in PARTS]
    if all(file.is_file() for file in files):
        contents = [_arrays(file) for file in files]
        train, test = (_part(f, a, ("images", "x"), ("labels", "y")) for f, a in zip(files, contents, strict=True))
        return (train, test), _classes(contents[0])
    if all((folder / part).is_dir() for part in PARTS):
        return _pictures(folder)
    paths = [find_idx(folder, name) for name in IDX_NAMES]
    if all(paths):
        images, labels, test_images, test_labels = (path for path in paths if path is not None)
        train = read_images(images), read_labels(labels).long()
        return (train, (read_images(test_images), read_labels(test_labels).long())), ()
    return None


def _arrays(file: Path) -> dict[str, Array]:
    """Read all arrays of an npz file; objects are refused, since they could run code."""
    try:
        with np.load(file, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except Exception as error:  # zip, header and shape errors share no base class
        raise DatasetError(f"{file} is no readable .npz file of plain arrays ({error}); write it again") from error


def _classes(arrays: Mapping[str, Array]) -> tuple[str, ...]:
    return tuple(str(name) for name in arrays["classes"]) if "classes" in arrays else ()


def _part(file: Path, arrays: Mapping[str, Array], samples: tuple[str, ...], labels: tuple[str, ...]) -> Part:
    """Return the samples and labels of a part, each from the array with the first matching name."""
    arrays_of_part = []
    for names in (samples, labels):
        matches = [name for name in names if name in arrays]
        if not matches:
            raise DatasetError(f"{file}: expected an array {' or '.join(names)}, found {', '.join(arrays) or 'none'}")
        arrays_of_part.append((matches[0], arrays[matches[0]]))
    return _samples(file, *arrays_of_part[0]), _labels(file, *arrays_of_part[1])


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


def _labels(file: Path, name: str, array: Array) -> Tensor:
    if array.dtype.kind not in "ui":
        raise DatasetError(f"{file}: {name} is {array.dtype}; expected class numbers, integers from 0")
    return torch.from_numpy(
        array.astype(np.int64).reshape(len(array), -1).squeeze(1) if array.size else array.reshape(0)
    )


def _pictures(folder: Path) -> Parts:
    """Read one picture per sample from one folder per class; classes and pictures are ordered by name."""
    names = sorted({entry.name for part in PARTS for entry in (folder / part).iterdir() if entry.is_dir()}, key=_order)
    parts: list[Part] = []
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
        parts.append((torch.from_numpy(np.stack(images)), labels))
    return (parts[0], parts[1]), tuple(names)


def _order(name: str) -> tuple[int, str]:
    """Return a sort key: numbers by value, before words."""
    return (int(name), "") if name.isdecimal() else (1 << 62, name)


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


def _sized(folder: Path, samples: Tensor, size: int | None) -> Tensor:
    """Return images resized to squares of `size`; features stay unchanged."""
    if samples.ndim == 2:
        if size not in (None, samples.shape[1]):
            raise DatasetError(f"{folder}: size={size}, but its samples have {samples.shape[1]} features")
        return samples
    height, width = samples.shape[1:]
    if size is None and height != width:
        raise DatasetError(f"{folder}: its images have {height}x{width} pixels; give a `size` to make them square")
    return resize_images(samples, size or height)
