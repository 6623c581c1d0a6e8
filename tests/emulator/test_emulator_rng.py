"""Random numbers: pinned, independent, and equal in numba and torch."""

import hashlib

import numpy as np
import pytest
import torch

from hxtrain.emulator.engines import cpu_kernel as kernel
from hxtrain.emulator.engines.readable import mix, noise_words
from hxtrain.emulator.rng import derive_key, fixed_normal, normal_table, sample_keys, splitmix64

WORDS = [0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xDEADBEEF, 0xFFFFFFFE, 0xFFFFFFFF]


@pytest.mark.parametrize(
    ("key", "counters", "words"),
    [
        # key 0: the published test vector of splitmix64
        (0, [0, 1, 2], [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]),
        (0xDEADBEEF12345678, [0, 1, 2**40], [0x4DC32B44ABDC6395, 0xB37AFA501D2539C9, 0xD1C0CDFA6F6733A0]),
    ],
)
def test_splitmix64_is_pinned(key: int, counters: list[int], words: list[int]) -> None:
    assert splitmix64(key, np.array(counters, dtype=np.uint64)).tolist() == words


def test_table_is_pinned() -> None:
    assert hashlib.sha256(normal_table().tobytes()).hexdigest() == (
        "979a9e9c3f1cc4d57d8621763221fc6c79fc9cb3ff35471f12525b1cfb48f664"
    )


def test_table_is_a_standard_normal() -> None:
    table = normal_table().astype(np.float64)
    assert table.shape == (65536,)
    assert np.array_equal(table, -table[::-1])
    assert np.all(np.diff(table) >= 0)
    assert table.var() == pytest.approx(1, abs=1e-4)
    assert (table**4).mean() == pytest.approx(3, rel=2e-3)
    with pytest.raises(ValueError, match="read-only"):
        normal_table()[0] = 0


def test_keys_are_pinned_and_distinguish_their_parts() -> None:
    assert derive_key("a", 1) == 0xBE70D321A4119E83
    assert len({derive_key(*parts) for parts in (("a", 1), ("a1",), ("a", "", 1), (1, "a"))}) == 4


@pytest.mark.parametrize("word", WORDS)
def test_hash_is_the_same_in_both_engines(word: int) -> None:
    assert int(kernel._mix(np.uint32(word))) == int(mix(torch.tensor(word)))


@pytest.mark.parametrize("stream", [kernel.STREAM_MEMBRANE, kernel.STREAM_CADC, kernel.STREAM_JITTER])
@pytest.mark.parametrize("step", [0, 1, 79, 65535])
def test_words_are_the_same_in_both_engines(stream: int, step: int) -> None:
    keys = sample_keys(3, np.array([0, 1, 10**9], dtype=np.uint64))
    expected = np.empty((3, 500), np.uint32)
    for row, (key0, key1) in zip(expected, keys, strict=True):
        kernel._words(stream, step, 0, key0, key1, row)
    words = noise_words(stream, step, 500, torch.from_numpy(keys.astype(np.int64)))
    assert np.array_equal(words.numpy(), expected)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    """Normal numbers `[half, step, sample, neuron]` as the engines use them."""
    clocks = np.arange(40, dtype=np.uint64)
    keys = torch.from_numpy(sample_keys(derive_key("test"), clocks).astype(np.int64))
    words = torch.stack([noise_words(0, step, 200, keys) for step in range(60)])
    return normal_table()[torch.stack([words & 0xFFFF, words >> 16]).numpy()].astype(np.float64)


def test_noise_is_standard_normal(noise: np.ndarray) -> None:
    assert noise.mean() == pytest.approx(0, abs=0.005)
    assert noise.std() == pytest.approx(1, abs=0.005)
    for axis in range(4):  # no neuron, step or sample deviates by more than 6 standard errors
        axes = tuple(i for i in range(4) if i != axis)
        count = noise.size / noise.shape[axis]
        assert np.abs(noise.mean(axis=axes)).max() < 6 / np.sqrt(count)


@pytest.mark.parametrize(
    ("axis", "lag"),
    [
        ("half", 1),
        ("step", 1),
        ("step", 2),
        ("step", 16),
        ("sample", 1),
        ("sample", 16),
        ("neuron", 1),
        ("neuron", 64),
    ],
)
def test_noise_is_independent(noise: np.ndarray, axis: str, lag: int) -> None:
    moved = np.moveaxis(noise, ("half", "step", "sample", "neuron").index(axis), 0)
    correlation = np.corrcoef(moved[:-lag].ravel(), moved[lag:].ravel())[0, 1]
    assert abs(correlation) < 6 / np.sqrt(noise.size / 2)


def test_streams_are_independent() -> None:
    keys = torch.from_numpy(sample_keys(1, np.arange(50, dtype=np.uint64)).astype(np.int64))
    streams = [normal_table()[(noise_words(stream, 7, 500, keys) & 0xFFFF).numpy()].ravel() for stream in range(3)]
    correlation = np.corrcoef(streams) - np.eye(3)
    assert np.abs(correlation).max() < 6 / np.sqrt(25000)


def test_fixed_normal_is_a_function_of_its_key() -> None:
    assert np.array_equal(fixed_normal(5, 30, 2), fixed_normal(5, 30, 2))
    assert np.array_equal(fixed_normal(5, 30, 2).ravel(), fixed_normal(5, 60))
    assert abs(np.corrcoef(fixed_normal(5, 10000), fixed_normal(6, 10000))[0, 1]) < 0.06
