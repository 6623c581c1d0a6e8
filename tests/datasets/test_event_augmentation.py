"""Distortion of events: what each setting does to them, and that random numbers alone decide."""

import math

import pytest
import torch

import hxtrain as hx
from hxtrain.datasets import EventSource, EventSplit
from hxtrain.datasets.augment import EventAugmentation, ImageAugmentation
from hxtrain.datasets.augment.events import Classmates, blend
from hxtrain.runs.randomness import generator

UNITS = 700


def recording(samples: int = 4, per_sample: int = 3000, middle: bool = True) -> hx.Spikes:
    """Return events in the middle of units and times, so that none is lost, or anywhere."""
    random = torch.Generator().manual_seed(0)
    sample = torch.arange(samples).repeat_interleave(per_sample)
    unit = torch.randint(300, 400, (len(sample),), generator=random)
    time = 0.4 + 0.2 * torch.rand(len(sample), generator=random)
    if not middle:
        unit = torch.randint(UNITS, (len(sample),), generator=random)
        time = torch.rand(len(sample), generator=random)
    return hx.Spikes(sample, unit, time, samples, UNITS)


def split(samples: int = 12, per_sample: int = 200) -> EventSplit:
    return EventSplit.from_spikes(recording(samples, per_sample), [0, 1, 2] * (samples // 3))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_channel_jitter_is_gaussian_of_each_event():
    events = recording()
    shifts = EventAugmentation(channel_jitter=20)(events, seeded()).unit - events.unit
    assert float(shifts.double().mean()) == pytest.approx(0, abs=1)
    assert float(shifts.double().std()) == pytest.approx(20, rel=0.03)


def test_events_that_leave_the_units_are_dropped():
    events = recording(middle=False)
    distorted = EventAugmentation(channel_jitter=20)(events, seeded())
    assert 0 <= int(distorted.unit.min()) <= int(distorted.unit.max()) < UNITS
    lost = 1 - len(distorted) / len(events)
    assert lost == pytest.approx(2 * 20 / math.sqrt(2 * math.pi) / UNITS, rel=0.3)


def test_a_channel_shift_is_one_whole_number_for_a_sample():
    events = recording(200, 10)
    shifts = (EventAugmentation(channel_shift=40)(events, seeded()).unit - events.unit).view(200, 10)
    assert bool((shifts == shifts[:, :1]).all())
    assert int(shifts.abs().max()) <= 40
    assert float(shifts.double().std()) == pytest.approx(math.sqrt((81**2 - 1) / 12), rel=0.15)


def test_time_warps_and_shifts_are_those_of_a_sample():
    events = recording(300, 10)
    factors = (EventAugmentation(time_warp=0.25)(events, seeded()).time / events.time).view(300, 10)
    assert torch.allclose(factors, factors[:, :1], rtol=1e-5)
    assert 1 / 1.25 <= float(factors.min()) < 0.83 < 1.2 < float(factors.max()) <= 1.2501
    assert float(factors.log().mean()) == pytest.approx(0, abs=0.02)
    shifts = (EventAugmentation(time_shift=0.1)(events, seeded()).time - events.time).view(300, 10)
    assert torch.allclose(shifts, shifts[:, :1], atol=1e-6)
    assert 0.09 < float(shifts.abs().max()) <= 0.1001


def test_events_before_the_start_are_dropped():
    events = recording(200, 10, middle=False)
    distorted = EventAugmentation(time_shift=0.5)(events, seeded())
    assert len(distorted) < len(events)
    assert float(distorted.time.min()) >= 0


def test_dropping_leaves_the_others_as_they_are():
    events = recording()
    distorted = EventAugmentation(dropping=0.3)(events, seeded())
    assert len(distorted) / len(events) == pytest.approx(0.7, abs=0.02)
    rest = set(zip(events.sample.tolist(), events.unit.tolist(), events.time.tolist(), strict=True))
    assert set(zip(distorted.sample.tolist(), distorted.unit.tolist(), distorted.time.tolist(), strict=True)) <= rest


def test_a_blend_has_half_of_two_samples_at_their_common_centre():
    count = 4000
    random = seeded()
    halves = [
        hx.Spikes(
            torch.zeros(count, dtype=torch.long),
            start + torch.randint(100, (count,), generator=random),
            begin + 0.2 * torch.rand(count, generator=random),
            1,
            UNITS,
        )
        for start, begin in ((200, 0.2), (300, 0.6))
    ]
    batch = hx.Spikes.cat([halves[0], halves[0]])
    blended = blend(batch, torch.tensor([1]), halves[1], random)
    assert torch.equal(blended[[0]].unit, halves[0].unit)
    mixture = blended[[1]]
    assert len(mixture) / count == pytest.approx(1, abs=0.05)
    assert float(mixture.unit.double().mean()) == pytest.approx(300, abs=3)
    assert float(mixture.time.mean()) == pytest.approx(0.5, abs=0.01)
    assert int(mixture.unit.min()) >= 248
    assert int(mixture.unit.max()) <= 352


def test_blends_with_an_empty_sample_stay_where_they_are():
    events = recording(1, 100)
    empty = hx.Spikes([], [], [], 1, UNITS)
    blended = blend(events, torch.tensor([0]), empty, seeded())
    assert 20 < len(blended) < 80
    assert set(blended.unit.tolist()) <= set(events.unit.tolist())
    assert len(blend(empty, torch.tensor([0]), empty, seeded())) == 0


def test_classmates_are_of_the_class():
    labels = torch.tensor([2, 0, 2, 0, 0, 2, 5])
    indices = torch.arange(7).repeat(50)
    partners = Classmates(labels).draw(indices, seeded())
    assert torch.equal(labels[partners], labels[indices])
    for label in (0, 2):
        assert set(partners[labels[indices] == label].tolist()) == set((labels == label).nonzero()[:, 0].tolist())


EVERYTHING = EventAugmentation(
    channel_jitter=5, channel_shift=20, time_warp=0.1, time_shift=0.05, dropping=0.1, blending=0.5
)


def test_equal_generators_give_equal_spikes_in_training_and_none_at_all_in_evaluation():
    source = EventSource(split(), hx.EventEncoder(speedup=2000, first=70, stride=9, jitter=1e-7), EVERYTHING)
    indices = torch.tensor([7, 3, 3, 0, 11])
    spikes, repeated, reseeded = (
        source.spikes(indices, lambda name, seed=seed: generator(seed, name)) for seed in (1, 1, 2)
    )
    assert source.is_random
    for name in ("sample", "unit", "time"):
        assert torch.equal(getattr(spikes, name), getattr(repeated, name))
    assert len(spikes) != len(reseeded) or not torch.equal(spikes.time, reseeded.time)
    assert bool((spikes.sample.diff() >= 0).all())
    plain = EventSource(source.split, source.encoder.without_jitter()).spikes(indices)
    assert torch.equal(source.spikes(indices).time, plain.time)


def test_events_are_jittered_before_units_are_chosen():
    """A unit between the chosen ones reaches an input by jitter alone."""
    events = EventSplit.from_spikes(hx.Spikes(torch.zeros(500), torch.full((500,), 74), torch.rand(500), 1, 700), [0])
    encoder = hx.EventEncoder(first=70, stride=9)
    assert len(EventSource(events, encoder).spikes(torch.tensor([0]))) == 0
    source = EventSource(events, encoder, EventAugmentation(channel_jitter=20))
    assert len(set(source.spikes(torch.tensor([0]), seeded()).unit.tolist())) > 3


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"channel_jitter": -1.0}, "augment.channel_jitter=-1.0 must be finite and not negative"),
        ({"time_warp": math.inf}, "augment.time_warp=inf must be finite"),
        ({"time_shift": math.nan}, "augment.time_shift=nan must be finite"),
        ({"channel_shift": -1}, "augment.channel_shift=-1 must be at least 0"),
        ({"dropping": 1.0}, "augment.dropping=1.0 must be a probability, in 0 <= x < 1"),
        ({"blending": 1.1}, "augment.blending=1.1 must be a probability, in 0 <= x <= 1"),
        ({"blending": math.nan}, "augment.blending=nan must be a probability"),
    ],
)
def test_settings_out_of_range_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        EventAugmentation(**settings)


def test_only_events_are_distorted_so():
    images = hx.Split(torch.zeros(2, 4, 4, dtype=torch.uint8), [0, 1])
    data = hx.Dataset("blank", images, images, ("a", "b"), 4, "", "", "", "")
    with pytest.raises(ValueError, match=r"augment.dropping=0.1: this distorts event samples, not blank 4x4; leave it"):
        data.source(images, hx.LatencyEncoder(), EventAugmentation(dropping=0.1))
    assert not data.source(images, hx.LatencyEncoder(), EventAugmentation()).is_random
    assert not data.source(images, hx.LatencyEncoder(), ImageAugmentation()).is_random
