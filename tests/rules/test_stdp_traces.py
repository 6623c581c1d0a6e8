"""Correlations of spike trains: NEST's pairing schemes, triplets, factors, and the order of simultaneous spikes."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

import hxtrain as hx
from hxtrain.neurons.measured import SpikeGrid
from hxtrain.rules.traces import (
    Correlation,
    Pairing,
    Triplets,
    pair_correlation,
    sorted_events,
    triplet_correlation,
)

TAU_PLUS = 17.0
TAU_MINUS = 34.0


def train(times: list[float], samples: int = 1) -> hx.Spikes:
    return hx.Spikes.from_events([0] * len(times), [0] * len(times), times, samples, 1)


def sums(correlation: Correlation) -> tuple[float, float]:
    return float(correlation.causal[0, 0]), float(correlation.anticausal[0, 0])


def all_to_all(pre: list[float], post: list[float]) -> tuple[float, float]:
    """Every pair of spikes at different times counts."""
    causal = sum(math.exp((s - t) / TAU_PLUS) for t in post for s in pre if s < t)
    return causal, sum(math.exp((t - s) / TAU_MINUS) for s in pre for t in post if t < s)


def symmetric(pre: list[float], post: list[float]) -> tuple[float, float]:
    """As `stdp_nn_symm_synapse`: each spike with the last earlier one of the other side."""
    causal = sum(math.exp((max(s for s in pre if s < t) - t) / TAU_PLUS) for t in post if min(pre) < t)
    return causal, sum(math.exp((max(t for t in post if t < s) - s) / TAU_MINUS) for s in pre if min(post) < s)


def pre_centred(pre: list[float], post: list[float]) -> tuple[float, float]:
    """As `stdp_nn_pre_centered_synapse`: each input spike with its neighbours in the output."""
    causal = sum(math.exp((s - min(t for t in post if t > s)) / TAU_PLUS) for s in pre if max(post) > s)
    return causal, symmetric(pre, post)[1]


def reduced(pre: list[float], post: list[float]) -> tuple[float, float]:
    """As `stdp_nn_restr_synapse`: neighbours in the merged train."""
    merged = sorted([(s, "pre") for s in pre] + [(t, "post") for t in post])
    neighbours = [(a, b) for a, b in pairwise(merged) if a[1] != b[1]]
    causal = sum(math.exp((a[0] - b[0]) / TAU_PLUS) for a, b in neighbours if b[1] == "post")
    return causal, sum(math.exp((a[0] - b[0]) / TAU_MINUS) for a, b in neighbours if b[1] == "pre")


Reference = Callable[[list[float], list[float]], tuple[float, float]]
SCHEMES: list[tuple[Pairing, Reference]] = [
    (Pairing.ALL_TO_ALL, all_to_all),
    (Pairing.SYMMETRIC, symmetric),
    (Pairing.PRE_CENTRED, pre_centred),
    (Pairing.REDUCED, reduced),
]


def poisson(numbers: np.random.Generator, count: int) -> list[float]:
    times = np.unique(numbers.uniform(0, 400, count).astype(np.float32))
    return [float(time) for time in numbers.permutation(times)]


@pytest.mark.parametrize(("pairing", "reference"), SCHEMES)
def test_pairing_schemes_follow_their_definitions_on_200_random_trains(pairing: Pairing, reference: Reference) -> None:
    numbers = np.random.default_rng(7)
    for _ in range(200):
        pre = poisson(numbers, int(numbers.integers(1, 30)))
        post = poisson(numbers, int(numbers.integers(1, 30)))
        assert not set(pre) & set(post)
        result = sums(pair_correlation(train(pre), train(post), TAU_PLUS, TAU_MINUS, pairing))
        assert result == pytest.approx(reference(pre, post), rel=1e-12, abs=1e-13)


@pytest.mark.parametrize(
    ("pre", "post", "causal", "anticausal"),
    [  # lags of the pairs that count, by scheme: all-to-all, symmetric, pre-centred, reduced
        ([10], [10], [[], [], [], []], [[], [], [], []]),
        ([10, 20], [20], [[10], [10], [10], [10]], [[], [], [], []]),
        ([20], [10, 20], [[], [], [], []], [[10], [10], [10], [10]]),
        ([10], [10, 20], [[10], [10], [10], [10]], [[], [], [], []]),
        ([10, 20], [10], [[], [], [], []], [[10], [10], [10], []]),
        ([10, 20], [10, 20], [[10], [10], [10], [10]], [[10], [10], [10], []]),
        ([0, 10], [10, 20], [[10, 20, 10], [10, 10], [10, 10], [10, 10]], [[], [], [], []]),
    ],
)
def test_spikes_at_the_same_time_are_no_pair_and_the_output_comes_first(
    pre: list[float], post: list[float], causal: list[list[float]], anticausal: list[list[float]]
) -> None:
    for (pairing, _), plus, minus in zip(SCHEMES, causal, anticausal, strict=True):
        expected = (sum(math.exp(-t / TAU_PLUS) for t in plus), sum(math.exp(-t / TAU_MINUS) for t in minus))
        result = sums(pair_correlation(train(pre), train(post), TAU_PLUS, TAU_MINUS, pairing))
        assert result == pytest.approx(expected, rel=1e-12), pairing


def direct_triplets(pre: list[float], post: list[float], k: Triplets, nearest: bool) -> tuple[float, float]:
    """Sum over triplets by definition, without traces."""

    def trace(times: list[float], end: float, tau: float) -> float:
        previous = [t for t in times if t < end]
        return sum(math.exp((t - end) / tau) for t in ([max(previous)] if previous and nearest else previous))

    causal = sum(trace(pre, t, k.tau_plus) * (k.a2_plus + k.a3_plus * trace(post, t, k.tau_y)) for t in post)
    anticausal = sum(trace(post, s, k.tau_minus) * (k.a2_minus + k.a3_minus * trace(pre, s, k.tau_x)) for s in pre)
    return causal, anticausal


@pytest.mark.parametrize("nearest", [False, True])
def test_triplets_follow_their_definition(nearest: bool) -> None:
    numbers = np.random.default_rng(3)
    constants = Triplets(16.8, 33.7, 101, 125, 0.3, 0.7, 1.1, 0.2)
    for _ in range(20):
        pre = [float(t) for t in numbers.integers(0, 60, 15)]  # many at the same time
        post = [float(t) for t in numbers.integers(0, 60, 15)]
        if nearest:
            pre, post = list(set(pre)), list(set(post))
        result = sums(triplet_correlation(train(pre), train(post), constants, nearest))
        assert result == pytest.approx(direct_triplets(pre, post, constants, nearest), rel=1e-12)


def random_pass(samples: int = 5) -> tuple[hx.Spikes, hx.Spikes]:
    numbers = np.random.default_rng(1)

    def spikes(units: int, events: int) -> hx.Spikes:
        drawn = (numbers.integers(0, n, events) for n in (samples, units, 20))
        return hx.Spikes.from_events(*(torch.from_numpy(part) for part in drawn), samples, units)

    return spikes(7, 90), spikes(4, 60)


@pytest.mark.parametrize("pairing", list(Pairing))
def test_units_and_samples_are_independent_and_their_sum_is_the_batch(pairing: Pairing) -> None:
    pre, post = random_pass()
    whole = pair_correlation(pre, post, 5.0, 9.0, pairing)
    apart = pair_correlation(pre, post, 5.0, 9.0, pairing, separate=True)
    for part, total in zip(apart, whole, strict=True):
        assert part.shape == (5, 4, 7)
        torch.testing.assert_close(part.sum(0), total, rtol=1e-13, atol=1e-13)
    for b, i, j in [(0, 0, 0), (2, 3, 5), (4, 1, 6)]:
        pre_times = pre.time[(pre.sample == b) & (pre.unit == j)].tolist()
        post_times = post.time[(post.sample == b) & (post.unit == i)].tolist()
        alone = pair_correlation(train(pre_times), train(post_times), 5.0, 9.0, pairing)
        assert float(apart.causal[b, i, j]) == pytest.approx(float(alone.causal[0, 0]), rel=1e-12)
        assert float(apart.anticausal[b, i, j]) == pytest.approx(float(alone.anticausal[0, 0]), rel=1e-12)


@pytest.mark.parametrize("pairing", list(Pairing))
def test_a_factor_scales_what_its_spike_adds(pairing: Pairing) -> None:
    pre, post = random_pass()
    generator = torch.Generator().manual_seed(2)
    factors = (torch.rand(len(pre), generator=generator), torch.rand(len(post), generator=generator))
    total = pair_correlation(pre, post, 5.0, 9.0, pairing, factors)
    parts = torch.zeros(2, 4, 7, dtype=torch.float64)
    for side, events in enumerate((post, pre)):
        for event in range(len(events)):
            chosen = [torch.zeros(len(pre)), torch.zeros(len(post))]
            chosen[1 - side][event] = factors[1 - side][event]
            parts[side] += pair_correlation(pre, post, 5.0, 9.0, pairing, (chosen[0], chosen[1]))[side]
    torch.testing.assert_close(torch.stack(list(total)), parts, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("events", [0, 1, 2, 700])
@pytest.mark.parametrize("resolution", [1e-6, 1e-12])
def test_events_are_sorted_by_sample_and_time_and_equal_ones_keep_their_order(
    dtype: torch.dtype, events: int, resolution: float
) -> None:
    numbers = np.random.default_rng(events)
    sample = np.sort(numbers.integers(0, 7, events))
    spread = 10.0 ** numbers.integers(-9, 1, events)
    time = torch.from_numpy(np.floor(numbers.random(events) * spread / resolution) * resolution).to(dtype)
    time[1:2] = -0.0
    unit = torch.from_numpy(numbers.integers(0, 5, events))
    spikes = hx.Spikes.trusted(torch.from_numpy(sample), unit, time, 7, 5)
    order = np.lexsort((time.numpy(), sample))
    offsets, units, times, factors = sorted_events(spikes, torch.arange(events))
    assert offsets.tolist() == np.searchsorted(sample, np.arange(8)).tolist()
    assert units.tolist() == unit[order].tolist()
    assert times.tolist() == time.double()[order].tolist()
    assert factors.tolist() == order.tolist()


def test_spikes_of_a_population_are_the_events_of_its_grid() -> None:
    grid = (torch.rand(9, 4, 6, generator=torch.Generator().manual_seed(2)) < 0.2).float()
    expected = hx.Spikes.from_grid(grid, 1.7e-6)
    times = SpikeGrid(grid).times(1.7e-6)
    for name in ("sample", "unit", "time"):
        assert torch.equal(getattr(times, name), getattr(expected, name))
    assert (times.samples, times.units) == (4, 6)


def test_silence_gives_zero_whatever_the_other_side_does() -> None:
    pre, post = random_pass()
    silence = hx.Spikes.from_events([], [], [], 5, 4)
    assert not torch.stack(list(pair_correlation(pre, silence, 5.0, 9.0))).any()
    silence = hx.Spikes.from_events([], [], [], 5, 7)
    assert not torch.stack(list(pair_correlation(silence, post, 5.0, 9.0, Pairing.REDUCED))).any()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"tau_plus": 0.0}, "time constants 0, 9 s must be positive and finite"),
        (
            {"factors": (torch.ones(3), torch.ones(60))},
            r"90 events of the inputs, but factors \[3\]; give one per event",
        ),
        ({"post": train([1.0])}, "the inputs have 5 samples, the outputs 1; they must be of one pass"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], text: str) -> None:
    pre, post = random_pass()
    with pytest.raises(ValueError, match=text):
        pair_correlation(**{"pre": pre, "post": post, "tau_plus": 5.0, "tau_minus": 9.0, **change})
