"""Folders of IDX files: spellings, sizes, disagreements, provenance."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hxtrain.datasets import DatasetError, load_dataset, read_images, resize_images, write_idx
from hxtrain.datasets.catalogue import IDX_NAMES, MNIST, UNKNOWN
from hxtrain.datasets.folder import read_folder
from hxtrain.datasets.idx import raw_md5


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("dotted", [False, True])
def test_spellings(make_folder: Callable[..., Path], ending: str, dotted: bool) -> None:
    folder = make_folder(ending=ending, dotted=dotted)
    data = load_dataset("fashion", size=10, folder=folder)
    assert data.train.images.shape == (7, 10, 10)
    assert data.test.images.shape == (5, 10, 10)
    assert data.train.labels.tolist() == [9, 5, 4, 3, 2, 1, 0]
    assert data.note == UNKNOWN


@pytest.mark.parametrize(
    ("name", "size", "crop"), [("mnist", 16, 2), ("mnist", 24, 2), ("mnist", 28, 0), ("fashion", 16, 0)]
)
def test_crop(make_folder: Callable[..., Path], name: str, size: int, crop: int) -> None:
    folder = make_folder()
    source = read_images(folder / IDX_NAMES[0])
    data = load_dataset(name, size=size, folder=str(folder))
    assert torch.equal(data.train.images, resize_images(source, size, crop))


def test_default_size_and_hash(make_folder: Callable[..., Path]) -> None:
    folder = make_folder()
    second = make_folder(seed=1, directory="other")
    data = load_dataset("mnist", folder=folder)
    assert data.size == 16
    assert data.sha256 == load_dataset("mnist", 16, folder).sha256
    assert data.sha256 != load_dataset("mnist", 17, folder).sha256
    assert data.sha256 != load_dataset("mnist", 16, second).sha256


def test_hash_covers_labels(make_folder: Callable[..., Path]) -> None:
    folder = make_folder()
    second = make_folder(highest=8, directory="other")
    assert torch.equal(read_images(folder / IDX_NAMES[2]), read_images(second / IDX_NAMES[2]))
    assert load_dataset("mnist", folder=folder).sha256 != load_dataset("mnist", folder=second).sha256


def test_known_release_is_recognised(make_folder: Callable[..., Path]) -> None:
    plain = make_folder()
    packed = make_folder(ending=".gz", directory="packed")
    sums = tuple(raw_md5((plain / name).read_bytes()) for name in IDX_NAMES)
    info = replace(MNIST, releases={sums: "a known release"})
    assert read_folder(info, plain, 16).note == "a known release"
    assert read_folder(info, packed, 16).note == "a known release"
    write_idx(plain / IDX_NAMES[3], torch.arange(5, dtype=torch.uint8))
    assert read_folder(info, plain, 16).note == UNKNOWN


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ((7, 6, 5, 5), r"train-images-idx3-ubyte: expected as many .* has labels \(6\), found 7"),
        ((7, 7, 4, 5), r"t10k-images-idx3-ubyte: expected as many .* has labels \(5\), found 4"),
    ],
)
def test_counts_must_agree(make_folder: Callable[..., Path], counts: tuple[int, int, int, int], text: str) -> None:
    with pytest.raises(DatasetError, match=text):
        load_dataset("mnist", folder=make_folder(counts=counts))


def test_foreign_labels(make_folder: Callable[..., Path]) -> None:
    with pytest.raises(DatasetError, match="labels 0 to 9, found 25"):
        load_dataset("mnist", folder=make_folder(highest=25))


def test_missing_files(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder()
    (folder / IDX_NAMES[3]).unlink()
    with pytest.raises(DatasetError, match=r"t10k-labels-idx1-ubyte, t10k-labels\.idx1-ubyte, .*none of them"):
        load_dataset("mnist", folder=folder)
    with pytest.raises(DatasetError, match=r"found no such folder.*download=true"):
        load_dataset("mnist", folder=tmp_path / "absent")
