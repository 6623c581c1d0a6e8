"""Sources: the input spikes of images and of recorded events, their random numbers, and what does not fit together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bursts import SPEEDUP, UNITS, write

import hxtrain as hx
from hxtrain.datasets import (
    Dataset,
    DatasetError,
    EventSource,
    EventSplit,
    ImageSource,
    Source,
    intensities,
    load_dataset,
)
from hxtrain.datasets.augment import ImageAugmentation
from hxtrain.objectives.distillation import Distillation, Lessons, Teacher
from hxtrain.runs.randomness import generator
from hxtrain.training import Task, evaluate

INDICES = torch.tensor([7, 3, 3, 0])
DIGITS = load_dataset("digits")


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset("folder", folder=write(tmp_path_factory.mktemp("bursts") / "data", 20, 20))


def streams(name: str) -> torch.Generator:
    return generator(5, name, 0, 0)


def assert_equal(first: hx.Spikes, second: hx.Spikes) -> None:
    assert (first.samples, first.units) == (second.samples, second.units)
    for name in ("sample", "unit", "time"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name


@pytest.mark.parametrize("jitter", [0.0, 1e-6])
@pytest.mark.parametrize("rotation", [0.0, 20.0])
def test_images_are_distorted_then_encoded_by_a_stream_each(jitter: float, rotation: float) -> None:
    encoder = hx.LatencyEncoder(jitter=jitter)
    augment = ImageAugmentation(rotation)
    source = ImageSource(DIGITS.train, encoder, augment)
    images = intensities(DIGITS.train.images[INDICES])
    assert (source.units, len(source), source.is_random) == (64, 1297, jitter > 0 or rotation > 0)
    expected = encoder(augment(images, streams("augment")), streams("jitter"))
    assert_equal(source.spikes(INDICES, streams), expected)
    assert_equal(source.spikes(INDICES), hx.LatencyEncoder()(images))
    assert_equal(source.encode(source.intensities(INDICES, streams), streams), expected)
    single = torch.Generator().manual_seed(1)
    copy = torch.Generator().manual_seed(1)
    assert_equal(source.spikes(INDICES, single), encoder(augment(images, copy), copy))


@pytest.mark.parametrize("jitter", [0.0, 1e-6])
def test_events_pass_faster_with_jitter_and_on_a_grid(events: Dataset, jitter: float) -> None:
    assert isinstance(events.train, EventSplit)
    recorded = events.train.events(INDICES)
    source = EventSource(events.train, hx.EventEncoder(speedup=SPEEDUP, jitter=jitter))
    assert (source.units, source.is_random) == (UNITS, jitter > 0)
    plain = source.spikes(INDICES)
    assert torch.equal(plain.time, (recorded.time.double() / SPEEDUP).float())
    assert torch.equal(plain.sample, recorded.sample)
    assert plain.offsets()[1] > 0
    assert plain.offsets()[1] == plain.offsets()[3] - plain.offsets()[2] + plain.offsets()[1], "sample 3 is empty"
    spikes = source.spikes(INDICES, streams)
    assert torch.equal(spikes.unit, plain.unit)
    noise = spikes.time - plain.time
    assert float(noise.std()) == pytest.approx(jitter, rel=0.2)
    assert float(spikes.time.min()) >= 0
    assert_equal(source.spikes(INDICES, streams), spikes)
    grid = hx.EventEncoder(speedup=SPEEDUP, grid=1.7e-6)(recorded)
    assert torch.equal(grid.bins(1.7e-6), plain.bins(1.7e-6))
    assert torch.allclose(grid.time, (grid.bins(1.7e-6) * 1.7e-6).float(), rtol=1e-6, atol=0)


def test_speed_1_keeps_times(events: Dataset) -> None:
    assert isinstance(events.test, EventSplit)
    assert_equal(events.source(events.test, hx.EventEncoder()).spikes(INDICES), events.test.events(INDICES))


class OneSpike(Source):
    """A source of one's own: input n fires at once in samples of class n."""

    units = 3
    labels = torch.tensor([0, 1, 2, 1])
    is_random = False

    def spikes(self, indices: torch.Tensor, generator: Any = None) -> hx.Spikes:
        unit = self.labels[indices]
        return hx.Spikes(torch.arange(len(unit)), unit, torch.zeros(len(unit)), len(unit), self.units)


def test_a_source_of_one_s_own_is_evaluated() -> None:
    net = hx.Network(hx.Linear(3, 3), hx.LI(3))
    with torch.no_grad():
        net.stack[0].weight.copy_(torch.eye(3))
    evaluation = evaluate(net, OneSpike(), hx.MaxOverTime(), batch_size=3)
    assert evaluation.accuracy == 1.0
    assert evaluation.confusion.tolist() == [[1, 0, 0], [0, 2, 0], [0, 0, 1]]
    assert repr(OneSpike()) == "OneSpike(4 samples, 3 units)"


def network(inputs: int) -> hx.Network:
    return hx.Network(hx.Linear(inputs, 10), hx.LI(10))


TEACHER = Teacher((torch.nn.Flatten(),), Distillation("x"), ("x",))
MISFITS: dict[str, tuple[Callable[[Dataset], object], type[Exception], str]] = {
    "a code of intensities for events": (
        lambda data: data.source(data.train, hx.LatencyEncoder()),
        DatasetError,
        r"LatencyEncoder takes intensities, but the samples of folder \(700 units\) are event samples; take "
        r"EventEncoder\(speedup=...\) \(encoder=events\)",
    ),
    "recorded events of images": (
        lambda data: DIGITS.source(DIGITS.train, hx.EventEncoder()),
        DatasetError,
        r"EventEncoder takes events, but the samples of digits 8x8 are images; take LatencyEncoder\(\)",
    ),
    "distorted events": (
        lambda data: data.source(data.train, hx.EventEncoder(), ImageAugmentation(rotation=5)),
        ValueError,
        r"augment.rotation=5: this distorts images, not folder \(700 units\); leave it out",
    ),
    "an encoder in words": (
        lambda data: data.source(data.train, "events"),
        DatasetError,
        "encoder: expected an Encoder, got str",
    ),
    "images as events": (
        lambda data: EventSource(DIGITS.train, hx.EventEncoder()),
        DatasetError,
        "takes an EventSplit, not Split; make one by EventSplit.from_spikes",
    ),
    "events as images": (
        lambda data: ImageSource(data.train, hx.LatencyEncoder()),
        DatasetError,
        "ImageSource takes images or feature vectors; the data has event samples",
    ),
    "a task with the code of images": (
        lambda data: Task(network(700), hx.LatencyEncoder(), hx.MaxOverTime(), {}, data),
        DatasetError,
        "LatencyEncoder takes intensities",
    ),
    "a teacher of events": (
        lambda data: Lessons(TEACHER, data.source(data.train, hx.EventEncoder()), 10),
        DatasetError,
        r"a teacher takes images or feature vectors, not the samples of EventSource\(20 samples, 700 units\)",
    ),
    "intensities to the code of events": (
        lambda data: hx.EventEncoder()(torch.rand(2, 3)),
        TypeError,
        "EventEncoder takes Spikes, not Tensor; for intensities take LatencyEncoder",
    ),
    "a seed as randomness": (
        lambda data: data.source(data.train, hx.EventEncoder(jitter=1e-6)).spikes(INDICES, 5),
        TypeError,
        "generator: expected a torch.Generator, or a function from 'jitter' to one, got 5",
    ),
    "no speed": (lambda data: hx.EventEncoder(speedup=0), ValueError, "encoder.speedup=0 is out of range"),
    "a speed that is no number": (
        lambda data: hx.EventEncoder(speedup=float("nan")),
        ValueError,
        "encoder.speedup=nan is out of range",
    ),
}


@pytest.mark.parametrize(("call", "error", "text"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_together_is_refused(
    events: Dataset, call: Callable[[Dataset], object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        call(events)


def test_a_batch_is_the_same_for_any_number_of_processes(events: Dataset, tmp_path: Path) -> None:
    """Parts of a batch are parts of the spikes of the whole batch, jitter included."""
    from hxtrain.runs.progress import Progress
    from hxtrain.training import Trainer, TrainerConfig

    for jitter in (0.0, 1e-6):
        task = Task(network(700), hx.EventEncoder(speedup=SPEEDUP, jitter=jitter), hx.MaxOverTime(), {}, events)
        trainer = Trainer(task, TrainerConfig(epochs=1), 0, tmp_path, {}, Progress(False))
        whole, _ = trainer._batch(INDICES, 0, 4)
        parts = [trainer._batch(INDICES, *edges)[0] for edges in ((0, 1), (1, 3), (3, 4))]
        assert_equal(hx.Spikes.cat(parts), whole)
