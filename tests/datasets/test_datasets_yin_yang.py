"""The Yin-Yang data set: equal to the published one, and what a data set of features can and cannot do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from hxtrain.datasets import DataConfig, Dataset, DatasetError, Split, content_sha256, load_dataset
from hxtrain.datasets.build import main
from hxtrain.datasets.catalogue import YIN_YANG
from hxtrain.datasets.yin_yang import TEST, TRAIN, VALIDATION, draw, plane, region

# First and last points and their classes in the authors' files (lkriener/yin_yang_data_set, publication_data/).
PUBLISHED = {
    "train": ((0.6803075385877797, 0.450499251969543, 2), (0.7690797231107925, 0.5883389337522971, 2)),
    "validation": ((0.6805727261759029, 0.3209733938933629, 0), (0.7107040957004825, 0.804733352731108, 1)),
    "test": ((0.23409664559563403, 0.4017249751828972, 2), (0.32834060537145815, 0.3899830419619741, 1)),
}
PER_CLASS = {"train": [1681, 1702, 1617], "validation": [316, 336, 348], "test": [350, 316, 334]}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset("yin_yang")


@pytest.mark.parametrize("part", PUBLISHED)
def test_points_are_bit_by_bit_the_published_ones(part: str) -> None:
    count, seed = {"train": TRAIN, "validation": VALIDATION, "test": TEST}[part]
    points, classes = draw(count, seed)
    assert points.shape == (count, 2)
    assert tuple((*points[index], classes[index]) for index in (0, -1)) == PUBLISHED[part]
    assert np.bincount(classes).tolist() == PER_CLASS[part]


def test_content(data: Dataset) -> None:
    assert (data.name, data.classes, data.shape, data.inputs) == ("yin_yang", ("yin", "yang", "dot"), (4,), 4)
    assert data.title == "yin_yang (4 features)"
    assert data.validation is not None
    assert [len(split) for split in (data.train, data.test, data.validation)] == [5000, 1000, 1000]
    assert data.sha256 == YIN_YANG.sha256 == content_sha256(data.train, data.test)
    validation = content_sha256(data.validation, data.validation)
    assert validation == "48d980b9549168d371411216ef8a1f711e79f90972bb946ca10ee2a41a465cd3"
    for split in (data.train, data.test, data.validation):
        assert (split.kind, split.samples.dtype) == ("feature vectors", torch.float32)
        x, y, other_x, other_y = split.samples.T
        assert torch.allclose(x + other_x, torch.ones(len(split)))
        assert torch.allclose(y + other_y, torch.ones(len(split)))
        assert torch.equal(torch.from_numpy(region(x.double().numpy(), y.double().numpy())), split.labels)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (0.25, 0.5, 2),
        (0.75, 0.5, 2),
        (0.25, 0.35, 1),  # yang's head: around the left dot, below the middle
        (0.75, 0.65, 0),
        (0.5, 0.9, 1),
        (0.5, 0.1, 0),
        (0.01, 0.01, -1),
        (0.5, 1.001, -1),
    ],
)
def test_regions(x: float, y: float, expected: int) -> None:
    assert int(region(np.array(x), np.array(y))) == expected


def test_the_plane_is_a_grid_with_the_right_areas() -> None:
    grid = plane(200)
    x, y = grid.samples[:, 0].reshape(200, 200), grid.samples[:, 1].reshape(200, 200)
    assert torch.equal(x[0], x[-1])
    assert torch.equal(y[:, 0], y[:, -1])
    assert (x[0].diff() > 0).all()
    assert (y[:, 0].diff() > 0).all()
    shares = torch.bincount(grid.labels + 1) / len(grid.labels)
    dots = 2 * np.pi * 0.1**2
    expected = [1 - np.pi / 4, np.pi / 8 - dots / 2, np.pi / 8 - dots / 2, dots]
    assert shares.tolist() == pytest.approx(expected, abs=0.003)


def test_validation_is_the_published_part_and_training_keeps_all(data: Dataset) -> None:
    held = DataConfig("yin_yang", validation=1000).load()
    assert data.validation is not None
    assert torch.equal(held.test.samples, data.validation.samples)
    assert torch.equal(held.train.samples, data.train.samples)
    assert (held.evaluated_on, held.sha256) == ("validation", data.sha256)
    assert len(DataConfig("yin_yang", validation=10).load().test) == 10
    with pytest.raises(DatasetError, match="validation=1001 of 1000 validation feature vectors"):
        DataConfig("yin_yang", validation=1001).load()


@pytest.mark.parametrize("arguments", [{"size": 16}, {"folder": "."}, {"download": True}])
def test_refused_requests(arguments: dict[str, object]) -> None:
    with pytest.raises(
        DatasetError, match="'yin_yang' is generated, with 4 features; leave `folder` and `download` out"
    ):
        DataConfig("yin_yang", **arguments).load()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda s: s.images, r"these samples are feature vectors \[1000, 4\], not images; use `samples`"),
        (lambda s: Split(s.samples * 2, s.labels), r"features span 0\.\d+ to 1\.\d+, expected 0 to 1"),
        (lambda s: Split(s.samples * torch.nan, s.labels), "features span nan to nan"),
        (lambda s: Split(s.samples.double(), s.labels), r"feature vectors float32 \[N, F\]; got torch.float64"),
        (lambda s: Split(s.samples[1:], s.labels), "999 feature vectors but 1000 labels"),
    ],
)
def test_features_refuse(data: Dataset, make: Callable[[Split], object], text: str) -> None:
    with pytest.raises(DatasetError, match=text):
        make(data.test)


def test_parts_of_different_kinds_are_refused(data: Dataset) -> None:
    digits = load_dataset("digits")
    with pytest.raises(DatasetError, match=r"yin_yang test: images are \[8, 8\], expected \[4\]"):
        replace(data, test=digits.test)
    with pytest.raises(DatasetError, match=r"yin_yang validation: feature vectors are \[3\], expected \[4\]"):
        replace(data, validation=Split(data.test.samples[:, :3], data.test.labels))


def test_check_covers_generated_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    text = capsys.readouterr().out
    assert f"yin_yang (4 features), sha256 {YIN_YANG.sha256}" in text
    assert "train: 5000 feature vectors, per class 1681 1702 1617" in text
