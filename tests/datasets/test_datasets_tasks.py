"""Generated tasks of online rules: random manifolds, and store and recall."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hxtrain.datasets import DatasetError, load_dataset
from hxtrain.datasets.tasks.random_manifolds import manifold, series_length
from hxtrain.datasets.tasks.store_recall import RECALL, STORE

PERIOD = 20e-6


def test_manifolds_are_told_apart_by_times_alone() -> None:
    data = load_dataset("random_manifolds", settings={"classes": 3, "samples": 50, "units": 7, "spikes": 2})
    assert (len(data.train), len(data.test), len(data.classes), data.inputs) == (120, 30, 3, 7)
    assert torch.bincount(data.train.labels).tolist() == [40, 40, 40]
    spikes = data.train.events(slice(None))
    counts = torch.bincount(spikes.sample * 7 + spikes.unit, minlength=120 * 7)
    assert bool((counts == 2).all())
    assert (float(spikes.time.min()), float(spikes.time.max())) == pytest.approx((0, 30e-6), abs=1e-6)


def test_a_manifold_is_the_published_series() -> None:
    numbers = np.random.Generator(np.random.PCG64(1))
    amplitude, frequency, phase = factors = numbers.random((3, 2, 4))
    x = numbers.random((5, 2))
    expected = [
        np.prod(
            [
                sum(
                    amplitude[d, k]
                    / (k + 1) ** 1.5
                    * np.sin(2 * np.pi * (k * point[d] * frequency[d, k] + phase[d, k]))
                    for k in range(4)
                )
                for d in range(2)
            ]
        )
        for point in x
    ]
    assert manifold(x, factors, 1.5) == pytest.approx(np.array(expected), rel=1e-12)
    assert [series_length(alpha) for alpha in (0.0, 1.0, 3.0)] == [1000, 1000, 10]


@pytest.mark.parametrize("wait", [0, 2])
def test_the_class_is_the_bit_that_was_stored(wait: int) -> None:
    settings = {"units": 30, "delay": 2, "wait": wait, "period": PERIOD, "rate": 2e5, "train": 40, "test": 10}
    data = load_dataset("store_recall", settings=settings)
    spikes = data.train.events(slice(None))
    period = (spikes.time / PERIOD).long()
    group = spikes.unit // 30
    is_on = torch.zeros(40, wait + 3, 4)
    is_on[spikes.sample, period, group] = 1
    assert torch.equal(is_on[:, :-1, :2].sum(2), torch.ones(40, wait + 2))  # a bit in each period
    assert is_on[:, :, STORE].nonzero()[:, 1].tolist() == [wait] * 40
    assert is_on[:, :, RECALL].nonzero()[:, 1].tolist() == [wait + 2] * 40
    assert torch.equal(is_on[:, wait, 1].long(), data.train.labels)
    assert 0.2 < float(data.train.labels.float().mean()) < 0.8


@pytest.mark.parametrize("name", ["random_manifolds", "store_recall"])
def test_a_seed_names_the_data(name: str) -> None:
    small = {"samples": 10} if name == "random_manifolds" else {"train": 10, "test": 5}
    hashes = [load_dataset(name, settings={**small, "seed": seed}).sha256 for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("random_manifolds", "samples", 2),
        ("random_manifolds", "classes", 0),
        ("random_manifolds", "alpha", -1.0),
        ("store_recall", "delay", 0),
        ("store_recall", "rate", 0.0),
        ("store_recall", "wait", -1),
        ("store_recall", "seed", -1),
        ("xor_times", "copies", 1.5),
        ("xor_times", "late", "soon"),
    ],
)
def test_settings_are_checked(name: str, setting: str, value: object) -> None:
    with pytest.raises(DatasetError, match=f"data={name}: data.settings.{setting}={value!r}"):
        load_dataset(name, settings={setting: value})
