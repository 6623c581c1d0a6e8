"""Inputs from part of the units of events: selection, pooling, and delays of them."""

import pytest
import torch

import hxtrain as hx
from hxtrain.datasets.encoders import DelayedEventEncoder


def events(samples: int = 5, units: int = 700, per_sample: int = 2000) -> hx.Spikes:
    random = torch.Generator().manual_seed(0)
    sample = torch.arange(samples).repeat_interleave(per_sample)
    unit = torch.randint(units, (len(sample),), generator=random)
    time = torch.rand(len(sample), generator=random) * 1.4
    return hx.Spikes(sample, unit, time, samples, units)


def rows(spikes: hx.Spikes) -> list[tuple[int, int, float]]:
    return sorted(zip(spikes.sample.tolist(), spikes.unit.tolist(), spikes.time.tolist(), strict=True))


def test_the_published_selection_takes_70_of_700_units():
    encoder = hx.EventEncoder(speedup=2000, first=70, stride=9)
    recorded = events()
    spikes = encoder(recorded)
    assert spikes.units == encoder.units(700) == 70
    channels = range(70, 700, 9)
    plain = hx.EventEncoder(speedup=2000)(recorded)
    expected = [(s, channels.index(u), t) for s, u, t in rows(plain) if u in channels]
    assert rows(spikes) == sorted(expected)
    assert 0.08 < len(spikes) / len(recorded) < 0.12


@pytest.mark.parametrize("units", [1, 8, 9, 10, 700, 701])
def test_pooling_keeps_every_event_of_the_units_in_use(units):
    encoder = hx.EventEncoder(stride=9, pooled=True)
    recorded = events(units=units)
    spikes = encoder(recorded)
    assert spikes.units == -(-units // 9)
    assert rows(spikes) == sorted((s, u // 9, t) for s, u, t in rows(recorded))


def test_merged_events_of_one_time_stay_two_spikes():
    recorded = hx.Spikes([0, 0], [0, 1], [1.0, 1.0], 1, 4)
    assert hx.EventEncoder(stride=2, pooled=True)(recorded).to_grid(0.5, 4)[2, 0, 0] == 2


def test_delays_copy_the_inputs_in_use():
    encoder = DelayedEventEncoder(speedup=2000, first=70, stride=9, delays=[0.0, 1e-6])
    recorded = events()
    spikes = encoder(recorded)
    assert spikes.units == encoder.units(700) == 140
    plain = hx.EventEncoder(speedup=2000, first=70, stride=9)(recorded)
    is_copy = spikes.unit >= 70
    first = hx.Spikes(spikes.sample[~is_copy], spikes.unit[~is_copy], spikes.time[~is_copy], 5, 70)
    assert rows(first) == rows(plain)
    delayed = hx.Spikes(spikes.sample[is_copy], spikes.unit[is_copy] - 70, spikes.time[is_copy] - 1e-6, 5, 70)
    for copy, original in zip(rows(delayed), rows(plain), strict=True):
        assert copy == pytest.approx(original, abs=1e-10)


def test_jitter_is_that_of_the_events_in_use():
    encoder = hx.EventEncoder(speedup=2000, first=70, stride=9, jitter=1e-6)
    noise = encoder(events(), torch.Generator().manual_seed(1)).time - encoder.without_jitter()(events()).time
    assert float(noise.std()) == pytest.approx(1e-6, rel=0.1)


def test_no_setting_changes_nothing():
    recorded = events()
    assert hx.EventEncoder()(recorded).unit is recorded.unit


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"first": -1}, "encoder.first=-1 is out of range"),
        ({"stride": 0}, "encoder.stride=0 is out of range"),
        ({"pooled": True}, r"encoder.pooled=True is out of range \(.*pooled needs stride > 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        hx.EventEncoder(**settings)


def test_a_selection_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match=r"encoder.first=70 leaves none of 70 units; give at most 69"):
        hx.EventEncoder(first=70)(events(units=70))
