"""The latency code."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hxtrain as hx


def test_published_constants():
    encoder = hx.LatencyEncoder(shift_first=False)
    times = encoder.times(torch.tensor([1.0, 0.5, 0.2, 0.1, 0.0]))
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


def test_jitter_needs_a_generator_and_follows_it():
    encoder, x = hx.LatencyEncoder(jitter=1e-6), torch.rand(4, 9)
    with pytest.raises(ValueError, match="jitter=1e-06 s needs a generator"):
        encoder(x)
    one, same, other = (encoder(x, torch.Generator().manual_seed(s)).time for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    still = hx.LatencyEncoder()(x).time
    assert 0.3e-6 < float((one - still)[still > 4e-6].std()) < 3e-6
    assert (one >= 0).all()


@pytest.mark.parametrize(("name", "value"), [("tau", 0.0), ("threshold", 1.0), ("threshold", -0.1), ("jitter", -1e-9)])
def test_bad_settings_are_named(name, value):
    with pytest.raises(ValueError, match=f"encoder.{name}={value}"):
        hx.LatencyEncoder(**{name: value})


@pytest.mark.parametrize("worst", [255.0, -0.1, float("nan")])
def test_intensities_out_of_range_are_refused(worst):
    with pytest.raises(ValueError, match=r"intensities span .* expected 0..1; divide 8-bit images by 255"):
        hx.LatencyEncoder()(torch.tensor([[0.5, worst]]))
