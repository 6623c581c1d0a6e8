"""Spikes: conversion to and from a grid, splitting, order, checks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hxtrain.backends import Spikes

INTERVALS = [1.7e-6, 0.425e-6, 1e-6, 1e-3]


@st.composite
def grids(draw: st.DrawFn) -> torch.Tensor:
    shape = [draw(st.integers(1, limit)) for limit in (30, 4, 5)]
    counts = draw(st.lists(st.integers(0, 3), min_size=0, max_size=shape[0] * shape[1] * shape[2]))
    grid = torch.zeros(shape[0] * shape[1] * shape[2])
    grid[: len(counts)] = torch.tensor(counts, dtype=torch.float32)
    return grid.reshape(shape)


@st.composite
def batches(draw: st.DrawFn) -> Spikes:
    samples = draw(st.integers(0, 6))
    units = draw(st.integers(1, 4))
    count = draw(st.integers(0, 30))
    count = count if samples else 0
    lists = [
        draw(st.lists(st.integers(0, max(n - 1, 0)), min_size=count, max_size=count)) for n in (samples, units, 40)
    ]
    sample, unit, time = (torch.tensor(values, dtype=torch.int64) for values in lists)
    return Spikes.from_events(sample, unit, time * 1e-7, samples, units)


def rows(spikes: Spikes) -> list[tuple[int, int, float]]:
    return sorted(zip(spikes.sample.tolist(), spikes.unit.tolist(), spikes.time.tolist(), strict=True))


def test_known_grid() -> None:
    grid = torch.zeros(3, 2, 2)
    grid[2, 0, 1], grid[0, 1, 0] = 2, 1
    spikes = Spikes.from_grid(grid, 1.5)
    assert rows(spikes) == [(0, 1, 3.0), (0, 1, 3.0), (1, 0, 0.0)]
    assert (spikes.samples, spikes.units, len(spikes)) == (2, 2, 3)
    assert (spikes.sample.dtype, spikes.unit.dtype, spikes.time.dtype) == (
        torch.int64,
        torch.int64,
        torch.float32,
    )


@given(grids(), st.sampled_from(INTERVALS))
@settings(max_examples=60, deadline=None)
def test_on_grid_round_trip_is_lossless(grid: torch.Tensor, dt: float) -> None:
    spikes = Spikes.from_grid(grid, dt)
    assert torch.equal(spikes.to_grid(dt, len(grid)), grid)
    copy = Spikes.from_grid(spikes.to_grid(dt, len(grid), strict=True), dt)
    assert rows(copy) == rows(spikes)


@pytest.mark.parametrize("dt", INTERVALS)
def test_round_trip_of_long_trials(dt: float) -> None:
    grid = torch.ones(5000, 1, 1)
    assert torch.equal(Spikes.from_grid(grid, dt).to_grid(dt, 5000), grid)


@given(batches(), st.sampled_from([0.3e-6, 1e-6, 1.7e-6]))
@settings(max_examples=60, deadline=None)
def test_off_grid_spikes_move_to_their_bins_start(spikes: Spikes, dt: float) -> None:
    steps = 3
    expected = torch.zeros(steps, spikes.samples, spikes.units)
    for sample, unit, time in rows(spikes):
        bin_of = int(time / dt + 1e-3)
        if bin_of < steps:
            expected[bin_of, sample, unit] += 1
    assert torch.equal(spikes.to_grid(dt, steps), expected)
    assert torch.equal(spikes.to_grid(dt, steps, binary=True), expected.clamp(max=1))


def test_strict_refuses_spikes_behind_the_grid() -> None:
    spikes = Spikes.from_times(torch.tensor([[0.0, 2.9, 3.0, 7.0]]))
    assert spikes.to_grid(1.0, 3).sum() == 2
    with pytest.raises(ValueError, match=r"2 spikes lie at or after 3 s, the grid's end; use more steps"):
        spikes.to_grid(1.0, 3, strict=True)
    assert spikes.to_grid(1.0, 8, strict=True).sum() == 4


@pytest.mark.parametrize(("time", "expected"), [(0.0, 0), (0.98, 0), (0.9995, 1), (1.0, 1), (1.0005, 1), (1.98, 1)])
def test_bins_forgive_rounding(time: float, expected: int) -> None:
    assert Spikes.from_times(torch.tensor([[time]])).bins(1.0).tolist() == [expected]


@given(batches(), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_cat_is_the_inverse_of_split(spikes: Spikes, size: int) -> None:
    pieces = spikes.split(size)
    assert all(0 < piece.samples <= size for piece in pieces)
    assert sum(piece.samples for piece in pieces) == spikes.samples
    assert all(int(piece.sample.max()) < piece.samples for piece in pieces if len(piece))
    if pieces:
        joined = Spikes.cat(pieces)
        assert (joined.samples, joined.units) == (spikes.samples, spikes.units)
        for actual, expected in zip(
            (joined.sample, joined.unit, joined.time), (spikes.sample, spikes.unit, spikes.time), strict=True
        ):
            assert torch.equal(actual, expected)


@given(batches(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_ordered_is_canonical(spikes: Spikes, random: object) -> None:
    order = list(range(len(spikes)))
    random.shuffle(order)  # type: ignore[attr-defined]
    index = torch.tensor(order, dtype=torch.int64)
    mixed = Spikes.from_events(
        spikes.sample[index], spikes.unit[index], spikes.time[index], spikes.samples, spikes.units
    )
    first, second = mixed.ordered(), spikes.ordered()
    keys = list(zip(first.sample.tolist(), first.time.tolist(), first.unit.tolist(), strict=True))
    assert keys == sorted(keys)
    assert torch.equal(first.sample, second.sample)
    assert torch.equal(first.unit, second.unit)
    assert torch.equal(first.time, second.time)


def test_offsets() -> None:
    sample = torch.tensor([2, 0, 2])
    spikes = Spikes.from_events(sample, torch.zeros(3, dtype=torch.int64), torch.zeros(3), 4, 1)
    assert spikes.offsets().tolist() == [0, 1, 1, 3, 3]


def test_from_times_skips_what_is_not_finite() -> None:
    times = torch.tensor([[1e-6, torch.inf, torch.nan], [torch.inf, 0.0, 5e-6]], dtype=torch.float64)
    spikes = Spikes.from_times(times)
    assert spikes.sample.tolist() == [0, 1, 1]
    assert spikes.unit.tolist() == [0, 1, 2]
    assert spikes.time.tolist() == pytest.approx([1e-6, 0.0, 5e-6])
    assert (spikes.samples, spikes.units) == (2, 3)


def test_from_events_sorts_by_sample_and_keeps_the_order_within() -> None:
    spikes = Spikes.from_events(
        torch.tensor([1, 0, 1, 0]), torch.tensor([0, 1, 2, 3]), torch.tensor([4.0, 3.0, 2.0, 1.0]), 2, 4
    )
    assert spikes.sample.tolist() == [0, 0, 1, 1]
    assert spikes.unit.tolist() == [1, 3, 0, 2]
    assert spikes.time.tolist() == [3.0, 1.0, 4.0, 2.0]


@pytest.mark.parametrize(
    ("sample", "unit", "time", "text"),
    [
        ([0, 1], [0], [0.0], r"need one length, got \[1, 2\]"),
        ([0, 2], [0, 0], [0.0, 0.0], r"spikes.sample spans 0..2, allowed 0..1"),
        ([-1, 0], [0, 0], [0.0, 0.0], r"spikes.sample spans -1..0, allowed 0..1"),
        ([0], [3], [0.0], r"spikes.unit spans 3..3, allowed 0..2"),
        ([0], [0], [-0.5], r"spikes.time must be finite and >= 0 s, smallest is -0.5"),
        ([0], [0], [torch.inf], r"spikes.time must be finite"),
        ([0], [0], [torch.nan], r"spikes.time must be finite"),
    ],
)
def test_from_events_refuses(sample: list[int], unit: list[int], time: list[float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Spikes.from_events(torch.tensor(sample), torch.tensor(unit), torch.tensor(time), 2, 3)


def test_from_times_refuses_negative_times() -> None:
    with pytest.raises(ValueError, match=r"spikes.time must be"):
        Spikes.from_times(torch.tensor([[-1e-6]]))


def test_to_another_device() -> None:
    moved = Spikes.from_times(torch.tensor([[0.0, 1.0]])).to("meta")
    assert {x.device.type for x in (moved.sample, moved.unit, moved.time)} == {"meta"}
    assert (moved.samples, moved.units) == (1, 2)


@settings(max_examples=50, deadline=None)
@given(batches(), st.lists(st.integers(0, 6), min_size=2, max_size=5))
def test_stretches_are_the_chosen_samples(spikes: Spikes, edges: list[int]) -> None:
    edges = sorted(min(edge, spikes.samples) for edge in edges)
    for stretch, first, last in zip(spikes.stretches(edges), edges, edges[1:], strict=False):
        expected = spikes[first:last]
        assert (stretch.samples, stretch.units) == (last - first, spikes.units)
        for name in ("sample", "unit", "time"):
            assert torch.equal(getattr(stretch, name), getattr(expected, name))


@pytest.mark.parametrize(
    ("part", "value"),
    [("sample", -1), ("sample", 2), ("unit", -1), ("unit", 3), ("time", -1e-9), ("time", float("nan"))],
)
@pytest.mark.parametrize("event", [0, 1])
def test_check_names_the_first_event_that_is_out_of_range(part: str, value: float, event: int) -> None:
    parts = {"sample": torch.tensor([0, 1]), "unit": torch.tensor([0, 2]), "time": torch.tensor([0.0, 1e-6])}
    Spikes.trusted(**parts, samples=2, units=3).check()
    parts[part][event] = value
    with pytest.raises(ValueError, match=f"event {event} of 2"):
        Spikes.trusted(**parts, samples=2, units=3).check()
