"""Generated events: spike patterns with random classes, and target spike trains."""

from typing import Any

import pytest
import torch

from hxtrain.backends import Spikes
from hxtrain.datasets import DatasetError, load_dataset

HASHES = {
    "spike_patterns": "7d6b7499d48a748841930870c90abcb49bb12bd64e23a10ab7935721d47eb7f5",
    "target_trains": "bad90da37f13798abe093799ded1b6b31121c26126e6912f97dab5c249c28e1a",
}


def loaded(name: str, **settings: Any) -> Any:
    return load_dataset(name, settings=settings)


@pytest.mark.parametrize("name", HASHES)
def test_the_default_data_never_change(name: str) -> None:
    assert loaded(name).sha256 == HASHES[name]


@pytest.mark.parametrize("name", HASHES)
def test_a_seed_draws_other_data(name: str) -> None:
    assert loaded(name, seed=1).sha256 not in (HASHES[name], loaded(name, seed=2).sha256)


def test_every_input_of_a_pattern_spikes_as_often_as_asked() -> None:
    data = loaded("spike_patterns", inputs=7, patterns=5, classes=3, spikes=2, duration=1e-5)
    events = data.train.events(slice(None))
    assert torch.equal(events.to_grid(1e-5, 1)[0], torch.full((5, 7), 2.0))
    assert data.classes == ("0", "1", "2")
    assert data.targets is None


def test_patterns_have_random_classes_of_about_equal_size() -> None:
    data = loaded("spike_patterns", inputs=1, patterns=1000)
    assert data.classes == ("silent", "fires")
    assert 420 < int(data.train.labels.sum()) < 580


def test_targets_keep_their_distance_and_their_start() -> None:
    settings = {"outputs": 3, "patterns": 4, "target_spikes": 5, "interval": 2e-5, "start": 3e-5, "duration": 2e-4}
    data = loaded("target_trains", inputs=2, **settings)
    targets = data.targets
    assert (targets.samples, targets.units, len(data.classes)) == (4, 3, 4)
    times = targets.time[torch.argsort(targets.sample * 3 + targets.unit, stable=True)].view(12, 5)
    assert float(times.min()) >= 3e-5
    assert float(times.max()) < 2e-4
    assert float(times.diff(dim=1).min()) >= 2e-5 * (1 - 1e-5)


def test_inputs_fire_at_their_rate() -> None:
    events = loaded("target_trains", inputs=1000, patterns=5, rate=2e4, duration=1.5e-4).train.events(slice(None))
    assert len(events) / 5000 == pytest.approx(3.0, rel=0.05)
    assert float(events.time.max()) < 1.5e-4


@pytest.mark.parametrize("name", HASHES)
def test_without_noise_both_parts_are_the_patterns(name: str) -> None:
    data = loaded(name, inputs=10, patterns=3, trials=2)
    assert len(data.train) == len(data.test) == 6
    assert torch.equal(data.train.time, data.test.time)
    assert torch.equal(data.train.labels[:3], data.train.labels[3:])
    assert torch.equal(data.train[:3].time, data.train[3:].time)


def times_by_unit(events: Spikes) -> torch.Tensor:
    return events.time[torch.argsort(events.unit, stable=True)]


@pytest.mark.parametrize("name", HASHES)
def test_noise_differs_from_trial_to_trial(name: str) -> None:
    quiet = loaded(name, inputs=200, patterns=2)
    noisy = loaded(name, inputs=200, patterns=2, trials=2, jitter=1e-6)

    quiet_times, noisy_times = (times_by_unit(data.train.events([0])) for data in (quiet, noisy))
    assert float((noisy_times - quiet_times).std()) == pytest.approx(1e-6, rel=0.3)
    assert not torch.equal(noisy.train[:2].time, noisy.train[2:].time)
    assert not torch.equal(noisy.train.time, noisy.test.time)


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("spike_patterns", {"inputs": 0}, "data=spike_patterns: data.settings.inputs=0 must be positive"),
        ("spike_patterns", {"classes": 1}, "data.settings.classes=1 must be at least 2"),
        ("spike_patterns", {"seed": -1}, "data.settings.seed=-1 must be in 0..4294967295"),
        ("spike_patterns", {"jitter": -1.0}, "data.settings.jitter=-1.0 must not be negative"),
        ("spike_patterns", {"spike": 2}, "has no setting data.settings.spike=2; it accepts: inputs, patterns"),
        ("target_trains", {"rate": "fast"}, "data=target_trains: data.settings.rate='fast' must be a number"),
        ("target_trains", {"trials": 1.5}, "data.settings.trials=1.5 must be a whole number"),
        (
            "target_trains",
            {"target_spikes": 40},
            "40 target spikes 8e-06 s apart .* do not fit .*; lower target_spikes",
        ),
    ],
)
def test_refused_settings(name: str, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(DatasetError, match=text):
        loaded(name, **settings)
