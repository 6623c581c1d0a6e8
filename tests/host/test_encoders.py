"""The codes: times, repetition, jitter, refusals."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hxtrain as hx
from hxtrain.datasets.encoders import ENCODERS, FirstSpikeEncoder, PoissonEncoder, RateEncoder

ALL = [
    pytest.param(hx.LatencyEncoder(), 1, id="latency"),
    pytest.param(hx.LinearLatencyEncoder(repeats=3), 3, id="linear_latency"),
]


def test_published_constants():
    encoder = hx.LatencyEncoder(shift_first=False)
    times = encoder.times(torch.tensor([[1.0, 0.5, 0.2, 0.1, 0.0]]))[0]
    assert float(times[0]) == pytest.approx(8e-6 * math.log(1 / 0.8), rel=1e-6)
    assert float(times[1]) == pytest.approx(8e-6 * math.log(0.5 / 0.3), rel=1e-6)
    assert torch.isinf(times[2:]).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30))
def test_stronger_is_earlier_and_the_first_spike_is_at_zero(values):
    x = torch.tensor([values])
    spikes = hx.LatencyEncoder()(x)
    assert len(spikes) == int((x > 0.2).sum())
    if len(spikes):
        assert float(spikes.time.min()) == 0
        by_strength = torch.argsort(x[0, spikes.unit], descending=True, stable=True)
        assert (spikes.time[by_strength].diff() >= 0).all()


def test_the_linear_code_is_the_published_one_repeated():
    """Times of Göltz et al. 2021: 0.15, 2 and 0.9 synaptic time constants of 6 us."""
    encoder = hx.LinearLatencyEncoder(repeats=2)
    assert encoder.units(4) == 10
    spikes = encoder(torch.tensor([[0.0, 0.25, 1.0], [1.0, 1.0, 0.5]]))
    assert (spikes.samples, spikes.units, len(spikes)) == (2, 8, 16)
    grid = torch.zeros(2, 8)
    grid[spikes.sample, spikes.unit] = spikes.time * 1e6
    expected = torch.tensor([[0.9, 3.675, 12.0, 5.4], [12.0, 12.0, 6.45, 5.4]])
    assert torch.allclose(grid, expected.repeat(1, 2), rtol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30), st.integers(1, 4))
def test_linear_times_have_the_order_of_the_values_and_the_limits(values, repeats):
    encoder = hx.LinearLatencyEncoder(repeats=repeats)
    x = torch.tensor([values])
    times = encoder(x).time.view(repeats, -1)
    assert (times == times[0]).all()
    assert (times[0, torch.argsort(x[0])].diff() >= 0).all()
    assert float(times[0, -1]) == pytest.approx(5.4e-6)
    assert float(times.min()) >= 0.9e-6 * (1 - 1e-6)
    assert float(times.max()) <= 12e-6 * (1 + 1e-6)


@pytest.mark.parametrize(("encoder", "repeats"), ALL)
def test_jitter_needs_a_generator_and_follows_it(encoder, repeats):
    shaky = type(encoder)(**{**vars(encoder), "jitter": 1e-6})
    x = 0.3 + 0.7 * torch.rand(4, 40)
    with pytest.raises(ValueError, match="jitter=1e-06 s needs a generator"):
        shaky(x)
    times, repeated, reseeded = (shaky(x, torch.Generator().manual_seed(s)).time for s in (1, 1, 2))
    assert torch.equal(times, repeated)
    assert not torch.equal(times, reseeded)
    plain = encoder(x).time
    assert 0.3e-6 < float((times - plain)[plain > 4e-6].std()) < 3e-6
    assert (times >= 0).all()
    assert torch.equal(shaky.without_jitter()(x).time, plain)
    if repeats > 1:
        first, second = times.view(4, repeats, -1)[:, :2].unbind(1)
        assert not torch.equal(first, second)


@pytest.mark.parametrize(("encoder", "repeats"), ALL)
@pytest.mark.parametrize("jitter", [0.0, 1e-6])
def test_a_grid_moves_spikes_to_the_start_of_their_bins(encoder, repeats, jitter):
    dt = 1.7e-6
    x = 0.3 + 0.7 * torch.rand(6, 30)
    free, binned = (
        type(encoder)(**{**vars(encoder), "jitter": jitter, "grid": grid})(x, torch.Generator().manual_seed(1))
        for grid in (None, dt)
    )
    assert not torch.equal(free.time, binned.time)
    assert torch.equal(free.bins(dt), binned.bins(dt))
    assert torch.allclose(binned.time, (binned.bins(dt) * dt).float(), rtol=1e-6, atol=0)
    assert torch.equal(binned.to_grid(dt, 20), free.to_grid(dt, 20)), "the software twin sees no difference"
    times = type(encoder)(grid=dt, **{k: v for k, v in vars(encoder).items() if k != "grid"}).times(x)
    assert torch.equal(times, encoder.times(x)), "the code itself has no grid"


@pytest.mark.parametrize(("encoder", "repeats"), ALL)
def test_units_are_those_of_the_spikes(encoder, repeats):
    for shape in ((4,), (5, 5)):
        spikes = encoder(torch.full((3, *shape), 0.5))
        assert spikes.units == encoder.units(math.prod(shape)) == len(spikes) // 3
        assert spikes.units % repeats == 0


def test_encoders_are_known_by_class_name():
    assert ENCODERS.load("LatencyEncoder") is hx.LatencyEncoder
    assert ENCODERS.load("LinearLatencyEncoder") is hx.LinearLatencyEncoder


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (hx.LatencyEncoder, "tau", 0.0),
        (hx.LatencyEncoder, "threshold", 1.0),
        (hx.LatencyEncoder, "threshold", -0.1),
        (hx.LatencyEncoder, "jitter", -1e-9),
        (hx.LatencyEncoder, "grid", 0.0),
        (hx.LinearLatencyEncoder, "early", -1e-9),
        (hx.LinearLatencyEncoder, "late", 0.9e-6),
        (hx.LinearLatencyEncoder, "late", math.nan),
        (hx.LinearLatencyEncoder, "bias", -1.0),
        (hx.LinearLatencyEncoder, "repeats", 0),
        (hx.LinearLatencyEncoder, "jitter", -1e-9),
    ],
)
def test_bad_settings_are_named(kind, name, value):
    with pytest.raises(ValueError, match=rf"encoder.{name}={value} is out of range \(.*{name}.*\)"):
        kind(**{name: value})


@pytest.mark.parametrize(("encoder", "repeats"), ALL)
@pytest.mark.parametrize("worst", [255.0, -0.1])
def test_intensities_out_of_range_are_refused(encoder, repeats, worst):
    with pytest.raises(ValueError, match=r"intensities span .* expected 0..1; divide 8-bit images by 255"):
        encoder(torch.tensor([[0.5, worst]]))


@pytest.mark.parametrize(
    ("encoder", "spikes"),
    [(RateEncoder(spikes=5, threshold=0.0, regular=[1, 3, 4]), 5), (FirstSpikeEncoder(regular=[1, 3, 4]), 1)],
)
def test_regular_inputs_fire_alike_in_every_sample(encoder, spikes):
    assert encoder.units(3) == 5
    events = encoder(torch.rand(4, 3, generator=torch.Generator().manual_seed(0)))
    for unit in encoder.regular:
        times = [events.time[(events.unit == unit) & (events.sample == sample)] for sample in range(4)]
        assert all(len(train) == spikes for train in times)
        assert all(torch.equal(train, times[0]) for train in times)
    with pytest.raises(ValueError, match=r"encoder\.regular=\[-1\] is out of range"):
        type(encoder)(regular=[-1])


def test_regular_inputs_of_the_poisson_code_pass_every_candidate():
    events = PoissonEncoder(spikes=20, regular=[0])(torch.rand(3, 2, generator=torch.Generator().manual_seed(0)))
    trains = [events.time[(events.unit == 0) & (events.sample == sample)] for sample in range(3)]
    assert len(trains[0]) > 5
    assert all(torch.equal(train, trains[0]) for train in trains)


def test_the_first_spike_is_the_earlier_the_stronger_its_input():
    times = FirstSpikeEncoder(duration=8e-6, threshold=0.1).times(torch.tensor([[1.0, 0.75, 0.1, 0.0]]))
    torch.testing.assert_close(times[0], torch.tensor([0.0, 2e-6, math.inf, math.inf]))


def test_poisson_trains_have_the_mean_and_the_variance_of_a_poisson_process():
    x = torch.tensor([[0.0, 0.25, 1.0]]).repeat(4000, 1)
    spikes = PoissonEncoder(spikes=6, duration=50e-6)(x, torch.Generator().manual_seed(0))
    counts = torch.zeros(4000, 3).index_put_((spikes.sample, spikes.unit), torch.ones(len(spikes)), accumulate=True)
    assert counts.mean(0).tolist() == pytest.approx([0, 1.5, 6], rel=0.04)
    assert counts.var(0).tolist() == pytest.approx([0, 1.5, 6], rel=0.08)
    assert float(torch.corrcoef(counts[:, 1:].T)[0, 1]) == pytest.approx(0, abs=0.05)
    assert float(spikes.time.mean()) == pytest.approx(25e-6, rel=0.02)
    assert 0 <= float(spikes.time.min()) < float(spikes.time.max()) < 50e-6


def test_without_a_generator_poisson_trains_depend_on_the_seed_and_the_sample_alone():
    x = torch.rand(5, 8, generator=torch.Generator().manual_seed(0))
    encoder = PoissonEncoder(spikes=9)
    spikes = encoder(x)
    alone = encoder(x[3:4])
    assert torch.equal(alone.time, spikes.time[spikes.sample == 3])
    assert not torch.equal(PoissonEncoder(spikes=9, seed=1)(x[3:4]).time, alone.time)
