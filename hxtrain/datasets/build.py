"""The command `hxtrain data`: make the shipped files from public ones, and check them."""

import argparse
import hashlib
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from hxtrain.console import write_any_letter

from .catalogue import CATALOGUE, DIGITS, FASHION, MNIST, SPOKEN_DIGITS, DatasetInfo
from .dataset import Dataset
from .errors import DatasetError
from .events.spoken_digits import NOTE as SPEECH_NOTE
from .events.spoken_digits import read_digits, write_digits
from .folder import read_folder
from .registry import load_dataset
from .shipped import assemble, write_dataset
from .split import Split

DIGITS_TRAIN = 1297  # images; the other 500 are the test split
DIGITS_NOTE = (
    "The 1,797 images of scikit-learn's load_digits in a fixed random order (stored as 'permutation'), "
    "the first 1,297 for training. There is no published partition of them, and both parts show the same "
    "writers, so accuracies are optimistic for new writers."
)


def build_idx(info: DatasetInfo, folder: Path, out: Path) -> Dataset:
    """Resize the IDX files of `folder` to the shipped size and write them to `out`.

    Raises:
        DatasetError: `read_folder` refuses the files.
    """
    data = read_folder(info, folder, info.size)
    write_dataset(out / info.shipped, data)
    return data


def build_digits(out: Path) -> Dataset:
    """Write scikit-learn's digits, levels 0..16 scaled to 0..255 (halves up).

    Raises:
        ImportError: scikit-learn is not installed.
    """
    source = importlib.import_module("sklearn.datasets").load_digits()
    order = digit_order(len(source.target))
    levels = (source.images.astype(np.int64)[order] * 255 + 8) // 16
    images = torch.from_numpy(levels.astype(np.uint8))
    labels = torch.from_numpy(source.target.astype(np.int64)[order])
    cut = DIGITS_TRAIN
    data = assemble(DIGITS, Split(images[:cut], labels[:cut]), Split(images[cut:], labels[cut:]), DIGITS_NOTE)
    write_dataset(out / DIGITS.shipped, data, {"permutation": order.astype(np.int16)})
    return data


def digit_order(count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return a random order of 0..count-1 [count], sorted by SHA-256, that does not depend on library versions."""
    keys = [hashlib.sha256(f"digits {index}".encode()).digest() for index in range(count)]
    return np.array(sorted(range(count), key=keys.__getitem__), dtype=np.int64)


def describe(data: Dataset) -> str:
    """Return a text with counts, classes, hash and provenance of a data set."""
    lines = [f"{data.title}, sha256 {data.sha256}"]
    for part, split in (("train", data.train), ("test", data.test)):
        counts = torch.bincount(split.labels, minlength=len(data.classes)).tolist()
        lines.append(f"  {part}: {len(split)} {split.kind}, per class {' '.join(map(str, counts))}")
    lines += [f"  origin: {data.origin}", f"  licence: {data.licence}", f"  note: {data.note}"]
    return "\n".join(lines)


def build_spoken_digits(folder: Path, out: Path) -> Dataset:
    """Pack the files that `hxtrain data speech` wrote to `folder`.

    Raises:
        DatasetError: a file is missing or damaged.
    """
    train, test = read_digits(folder)
    write_digits(out / SPOKEN_DIGITS.shipped, train, test)
    return assemble(SPOKEN_DIGITS, train, test, SPEECH_NOTE)


def build(mnist: Path | None, fashion: Path | None, speech: Path | None, out: Path) -> None:
    """Make the shipped files whose sources are named, and the digits if scikit-learn is installed."""
    out.mkdir(parents=True, exist_ok=True)
    if speech is not None:
        print(describe(build_spoken_digits(speech, out)))
    for info, folder in ((MNIST, mnist), (FASHION, fashion)):
        if folder is not None:
            print(describe(build_idx(info, folder, out)))
    try:
        print(describe(build_digits(out)))
    except ImportError:
        print("digits: left out, scikit-learn is not installed (pip install scikit-learn)")


def check() -> bool:
    """Print every data set of the package; return False if the hash of one differs from the catalogue."""
    is_valid = True
    for info in CATALOGUE.values():
        data = load_dataset(info.name)
        is_equal = data.sha256 == info.sha256
        is_valid &= is_equal
        print(describe(data))
        print("  check: " + ("ok" if is_equal else f"FAILED, expected sha256 {info.sha256}"))
    return is_valid


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0: success, 1: an error or a failed check)."""
    parser = argparse.ArgumentParser(prog="hxtrain data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    builder = commands.add_parser("build", help="make the shipped files from IDX files and scikit-learn")
    builder.add_argument("--mnist", type=Path, metavar="FOLDER", help="folder of the four MNIST files")
    builder.add_argument("--fashion", type=Path, metavar="FOLDER", help="the same for Fashion-MNIST")
    builder.add_argument("--speech", type=Path, metavar="FOLDER", help="folder of spoken_digits_train.h5 and _test.h5")
    builder.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="folder for the files")
    commands.add_parser("check", help="load the installed files, print counts and hashes")
    parser.add_argument("--version", action="version", version=f"hxtrain {version('hxtrain')}")
    options = parser.parse_args(argv)
    write_any_letter()
    try:
        if options.command == "check":
            return 0 if check() else 1
        build(options.mnist, options.fashion, options.speech, options.out)
    except DatasetError as error:
        print(f"hxtrain data: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
