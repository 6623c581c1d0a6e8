"""Input that does not arrive is reported before layers are blamed for it."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import hxtrain as hx
from hxtrain.backends import create_backend
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run
from hxtrain.datasets import DataConfig, intensities, source
from hxtrain.execution.config import BackendConfig
from hxtrain.network import NetworkConfig
from hxtrain.runs.progress import Progress
from hxtrain.training.config import TrainerConfig
from hxtrain.training.diagnosis import Observations, diagnose

DEVICES = (None, "reference", "emulator")


def network() -> hx.Network:
    return hx.Network(hx.Linear(8, 6, gain=1.4), hx.LIF(6), hx.Linear(6, 3), hx.LI(3))


@contextmanager
def open_network(backend: str | None) -> Iterator[hx.Network]:
    net = network()
    if backend is None:
        yield net
        return
    with hx.Device(create_backend(backend)) as device:
        net.attach(device)
        yield net


def spikes(late: int, inside: int, samples: int = 4, end: float = 30e-6, units: int = 8) -> hx.Spikes:
    times = torch.cat([torch.linspace(1e-6, end, inside), torch.full((late,), 3.0)])
    number = torch.arange(len(times))
    return hx.Spikes(number % samples, number // samples % units, times, samples, units)


LATE = (
    r"the input is late: 30 of 40 events lie after the window of 3.4e-05 s "
    r"\(20 steps of 1.7e-06 s\). Take a larger encoder.speedup"
)
SILENT = r"the input is silent: 0 events in 4 samples. Images are to span 0..1"
EARLY = (
    r"the input is early: 80 of 80 events lie in the first 5% of the window of 3.4e-05 s "
    r"\(20 steps of 1.7e-06 s\). Take a smaller encoder.speedup"
)


@pytest.mark.parametrize("backend", DEVICES)
@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize(
    ("batch", "text"),
    [(spikes(30, 10), LATE), (spikes(0, 0), SILENT), (spikes(0, 80, end=1.6e-6), EARLY)],
    ids=["late", "silent", "early"],
)
def test_a_network_warns_once_that_its_input_does_not_arrive(
    backend: str | None, graph: bool, batch: hx.Spikes, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        open_network(backend) as net,
        caplog.at_level(logging.WARNING, "hxtrain.network.arrival"),
        torch.set_grad_enabled(graph),
    ):
        net(spikes(0, 40))
        assert caplog.messages == []
        activity = net(batch)
        net(batch)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(text.replace("\\", ""))
    assert activity.inputs is not None
    assert (activity.inputs.events, activity.inputs.late) == (len(batch.time), int((batch.time > 1).sum()))


@pytest.mark.parametrize(
    "batch",
    [
        spikes(20, 20), spikes(0, 0, samples=1), spikes(0, 1), spikes(0, 0, samples=0),
        spikes(0, 32, end=1e-6),  # one spike of each input
        spikes(0, 80, end=2e-6), spikes(2, 78, end=1e-6), spikes(0, 20, end=1e-6, samples=1),
    ],
)  # fmt: skip
def test_input_that_may_be_intended_raises_no_warning(batch: hx.Spikes, caplog: pytest.LogCaptureFixture) -> None:
    network()(batch)
    assert caplog.messages == []


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize(
    ("batch", "text"),
    [
        (spikes(30, 10), "the input is late"),
        (spikes(0, 0), "the input is silent"),
        (spikes(0, 80, end=1e-6), "the input is early"),
    ],
)
def test_a_diagnosis_looks_at_the_input_first(batch: hx.Spikes, text: str, trained: bool) -> None:
    net = network()
    warnings = diagnose(net, net(batch), trained)
    assert len(warnings) == 1
    assert warnings[0].startswith(text)
    assert "init_gain" not in warnings[0]


def test_a_layer_that_is_silent_with_input_is_still_named() -> None:
    net = hx.Network(hx.Linear(8, 6, gain=1e-3), hx.LIF(6), hx.Linear(6, 3), hx.LI(3))
    assert [text.split(" (")[0] for text in diagnose(net, net(spikes(0, 40)), trained=True)] == ["layer0 is silent"]


@pytest.mark.parametrize("events", [1, 3])
def test_a_layer_that_is_silent_for_a_few_events_blames_the_input(events: int) -> None:
    net = hx.Network(hx.Linear(64, 6, gain=1e-3), hx.LIF(6), hx.Linear(6, 3), hx.LI(3))
    times = torch.arange(events).repeat_interleave(10) * 5e-6
    batch = hx.Spikes([*range(10)] * events, [0] * 10 * events, times, 10, 64)
    text = rf"layer0 is silent .*only {events} input events per sample of 64 inputs arrive.* `threshold` of the encoder"
    (warning,) = diagnose(net, net(batch), trained=True)
    assert re.match(text, warning)
    assert "init_gain" not in warning


def test_passes_are_diagnosed_together_by_their_samples() -> None:
    """A layer that is silent for one of 51 samples is not silent; for a single sample it is."""
    net = hx.Network(hx.Linear(8, 6, mean=0.1, gain=1e-3), hx.LIF(6), hx.Linear(6, 3), hx.LI(3))
    observations = Observations()
    observations.add(net, net(hx.Spikes([], [], [], 1, 8)))
    assert any("layer0 is silent" in text for text in observations.warnings(net, trained=True))
    observations.add(net, net(spikes(0, 400, samples=50, end=3e-6)))
    assert observations.warnings(net, trained=True) == []


class WarningCollector(Progress):
    """Collects warnings."""

    def __init__(self) -> None:
        super().__init__(show=False, console=Console(file=io.StringIO()))
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def train(folder: Path, batch_size: int, samples: int = 50, **encoder: float) -> tuple[list[str], dict[str, Any]]:
    """Train in software; return the warnings and the result."""
    training = TrainerConfig(1, batch_size, train_samples=samples, test_samples=20, progress=False, plots=False)
    config = RunConfig(
        backend=BackendConfig("software"),
        network=NetworkConfig(hidden=[20], init_gain=1.4),
        encoder=hx.LatencyEncoder(**encoder),
        data=DataConfig("digits"),
        trainer=training,
    )
    progress = WarningCollector()
    result = run(config, str(folder), "test", progress)
    return progress.warnings, result


@pytest.mark.parametrize("batch_size", [10, 50])
@pytest.mark.parametrize(
    ("encoder", "text"),
    [({}, "the input is silent"), ({"tau": 8e-3, "shift_first": False}, "the input is late")],
)
def test_a_training_run_names_its_input_and_counts_it(
    tmp_path: Path,
    encoder: dict[str, float],
    text: str,
    batch_size: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "silent" in text:  # images that are divided by 255 twice
        monkeypatch.setattr(source, "intensities", lambda samples: intensities(samples) / 255)
    warnings, result = train(tmp_path, batch_size, **encoder)
    assert [warning[: len(text)] for warning in warnings] == [text]
    assert not [
        record for record in caplog.records if record.name == "hxtrain.network.arrival"
    ]  # the trainer reports it, once
    assert result["input_events_per_sample"] < 1
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    names = ("input_events_per_sample", "late_input_events_per_sample")
    assert [records[-1][name] for name in names] == [result[name] for name in names]
    assert (result["late_input_events_per_sample"] > 10) == ("late" in text)


@pytest.mark.parametrize("samples", [200, 201, 203])
def test_a_small_last_batch_brings_no_warnings_of_its_own(tmp_path: Path, samples: int) -> None:
    counts: list[int] = []
    warnings = Observations.warnings

    def count_samples(observations: Observations, net: hx.Network, trained: bool) -> list[str]:
        counts.append(sum(batch.samples for batch in observations.inputs))
        return warnings(observations, net, trained)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Observations, "warnings", count_samples)
        train(tmp_path, batch_size=50, samples=samples)
    assert min(counts) >= 100
