"""The shipped data: shapes, counts, names, hashes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from hxtrain.datasets import DATASETS, DataConfig, Dataset, DatasetError, Split, load_dataset
from hxtrain.datasets.catalogue import CATALOGUE, DIGITS
from hxtrain.datasets.shipped import read_shipped, shipped_file

MNIST_TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
EXPECTED = {
    "mnist": (
        16,
        MNIST_TRAIN,
        MNIST_TEST,
        "cf519020d6fca5313af0605a9f30727a57cec7673bfff397269f20b43dd80095",
    ),
    "fashion": (
        16,
        [6000] * 10,
        [1000] * 10,
        "90e895e7ff1e510cfcbd576d68a978e043f679e4e55c12ea04914060ec24ef87",
    ),
    "digits": (
        8,
        [133, 127, 131, 132, 133, 134, 120, 125, 133, 129],
        [45, 55, 46, 51, 48, 48, 61, 54, 41, 51],
        "7929b5c9ff20c670b1875242ebeb44dfa9fc60f0b366cba3c2fe6b73ec4cc3b2",
    ),
}


@pytest.fixture(scope="module")
def loaded() -> dict[str, Dataset]:
    return {name: load_dataset(name) for name in EXPECTED}


def test_names() -> None:
    assert set(DATASETS) >= {*EXPECTED, "yin_yang", "folder"}
    assert {name for name, info in CATALOGUE.items() if info.shipped} == {*EXPECTED, "spoken_digits"}


@pytest.mark.parametrize("name", EXPECTED)
def test_content(loaded: dict[str, Dataset], name: str) -> None:
    data, (size, train, test, sha256) = loaded[name], EXPECTED[name]
    assert (data.name, data.size, len(data.classes)) == (name, size, 10)
    for split, counts in ((data.train, train), (data.test, test)):
        assert split.images.dtype == torch.uint8
        assert split.images.shape == (sum(counts), size, size)
        assert len(split) == sum(counts)
        assert torch.bincount(split.labels).tolist() == counts
        assert split.images.min() == 0
        assert split.images.max() >= 254  # smoothing leaves no pure 255 in one of them
    assert data.sha256 == sha256 == CATALOGUE[name].sha256


def test_provenance(loaded: dict[str, Dataset]) -> None:
    assert loaded["mnist"].note.startswith("The original train/test partition")
    assert loaded["mnist"].test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert loaded["fashion"].note.startswith("NOT the original train/test partition")
    assert loaded["fashion"].classes[9] == "Ankle boot"
    assert [data.licence[:8] for data in loaded.values()] == ["CC BY-SA", "MIT, Cop", "CC BY 4."]


def test_digits_are_scikit_learns(loaded: dict[str, Dataset]) -> None:
    source = pytest.importorskip("sklearn.datasets").load_digits()
    with np.load(shipped_file(DIGITS), allow_pickle=False) as arrays:
        order = arrays["permutation"]
    assert sorted(order.tolist()) == list(range(1797))
    data = loaded["digits"]
    images = torch.cat([data.train.images, data.test.images])
    assert np.abs(images.numpy() - source.images[order] * 255 / 16).max() <= 0.5
    assert torch.cat([data.train.labels, data.test.labels]).tolist() == source.target[order].tolist()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": "cifar"}, "data.name='cifar' is not registered; known: .*digits, fashion, folder, mnist"),
        ({"name": "mnist", "size": 28}, r"shipped at 16x16 pixels, not 28x28.*folder=.*download=true"),
        ({"name": "mnist", "size": 0}, "size must be at least 1 pixel, got 0"),
        ({"name": "digits", "size": 16}, "comes with the package at 8x8 pixels only"),
        ({"name": "digits", "folder": "."}, "leave `folder` and `download` out"),
        ({"name": "digits", "download": True}, "leave `folder` and `download` out"),
    ],
)
def test_refused_requests(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(DatasetError, match=text):
        DataConfig(**arguments).load()  # type: ignore[arg-type]


def test_config_is_omegaconf_compatible() -> None:
    schema = OmegaConf.structured(DataConfig)
    merged = OmegaConf.merge(schema, {"name": "digits", "size": 8, "folder": None})
    config = OmegaConf.to_object(merged)
    assert isinstance(config, DataConfig)
    assert config.load().sha256 == EXPECTED["digits"][3]


def damaged_byte(data: bytes) -> bytes:
    return data[:9000] + bytes([data[9000] ^ 0xFF]) + data[9001:]


@pytest.mark.parametrize("damage", [lambda data: data[:-100], damaged_byte, lambda data: b"", lambda data: b"?" * 99])
def test_damaged_file(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "digits8.npz"
    path.write_bytes(damage(shipped_file(DIGITS).read_bytes()))
    with pytest.raises(DatasetError, match=r"digits8\.npz: expected the data of 'digits'.*Reinstall the package"):
        read_shipped(DIGITS, path)


def test_a_file_is_read_anew_when_it_has_changed_and_data_sets_share_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "digits8.npz"
    path.write_bytes(shipped_file(DIGITS).read_bytes())
    first = read_shipped(DIGITS, path)
    first.train.images.zero_()
    first.train.labels.zero_()
    assert read_shipped(DIGITS, path).sha256 == first.sha256
    path.write_bytes(b"?" * 99)
    with pytest.raises(DatasetError, match="Reinstall the package"):
        read_shipped(DIGITS, path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="Reinstall the package"):
        read_shipped(DIGITS, tmp_path / "absent.npz")


@pytest.mark.parametrize(
    ("images", "labels", "text"),
    [
        (torch.zeros(2, 3, 3), torch.zeros(2, dtype=torch.int64), "images must be uint8"),
        (torch.zeros(2, 9, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), r"\[N, H, W\].*\[2, 9\]"),
        (torch.zeros(2, 3, 3, dtype=torch.uint8), torch.zeros(2), "labels must be int64"),
        (torch.zeros(2, 3, 3, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "2 images but 3 labels"),
    ],
)
def test_split_refuses(images: torch.Tensor, labels: torch.Tensor, text: str) -> None:
    with pytest.raises(DatasetError, match=text):
        Split(images, labels)


def test_dataset_refuses_foreign_labels_and_sizes(loaded: dict[str, Dataset]) -> None:
    good = loaded["digits"]
    facts = {key: getattr(good, key) for key in good.__dataclass_fields__}
    high = Split(good.test.images, good.test.labels + 1)
    with pytest.raises(DatasetError, match="digits test: labels run from 1 to 10, expected 0 to 9"):
        Dataset(**(facts | {"test": high}))
    with pytest.raises(DatasetError, match=r"digits train: images are \[8, 8\], expected \[9, 9\]"):
        Dataset(**(facts | {"size": 9}))
