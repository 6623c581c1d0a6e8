"""The drift monitor: silent under noise alone, one text when the resting potentials move."""

import io
import json
import re
from dataclasses import replace

import pytest
import torch
from emulated_runs import HEALTHY, replace_runs
from rich.console import Console

from hxtrain import LI, LIF, Device, Linear, Network
from hxtrain.backends import BackendWrapper, Cost, Recording, Spikes, Stimulus, create_backend
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run
from hxtrain.datasets import DataConfig
from hxtrain.execution.drift import DriftMonitor
from hxtrain.network import NetworkConfig
from hxtrain.runs.progress import Progress
from hxtrain.training.config import TrainerConfig

STEPS = 20


def shifted(recording: Recording, clock: int, rate: float) -> Recording:
    """Move all codes by `rate` LSB per trial of the clock, with alternating sign from neuron to neuron."""
    traces = {}
    for name, codes in recording.traces.items():
        trial = clock + torch.arange(len(codes))
        sign = 1 - 2 * (torch.arange(codes.shape[2]) % 2)
        shift = (trial[:, None, None] * rate).round() * sign
        traces[name] = (codes.double() + shift).clamp(0, 255).to(torch.uint8)
    return replace(recording, traces=traces)


class Drifting(BackendWrapper):
    """An uncalibrated chip (noise, mismatch) whose resting potentials move by `rate` LSB per trial."""

    def __init__(self, rate: float) -> None:
        super().__init__(create_backend("emulator", preset="uncalibrated"))
        self.rate = rate

    def map_recording(self, recording: Recording, stimulus: Stimulus) -> Recording:
        return shifted(recording, stimulus.clock, self.rate)


def attached(rate: float, **settings: float) -> tuple[Device, Network]:
    device = Device(Drifting(rate), **settings)
    net = Network(Linear(6, 20, mean=0.25), LIF(20), Linear(20, 4), LI(4), steps=STEPS)
    net.attach(device)
    return device, net


def notes(net: Network, batches: int, size: int = 50) -> list[tuple[int, str]]:
    """Run batches and return each note with the number of its batch."""
    rng = torch.Generator().manual_seed(0)
    records = []
    for batch in range(batches):
        spikes = Spikes.from_times(torch.rand(size, 6, generator=rng) * 15e-6)
        records += [(batch, note) for note in net(spikes).health.notes]
    return records


def test_noise_mismatch_and_activity_are_no_drift() -> None:
    _, net = attached(0.0, drift_limit=0.5)  # a quarter of the default
    assert notes(net, 60) == []


def test_drift_is_reported_once_with_size_and_time() -> None:
    _, net = attached(0.002)  # 2 LSB after 1000 trials
    [(batch, note)] = notes(net, 40)
    assert 20 <= batch < 40
    chip_time = (batch + 1) * 50 * 200e-6
    match = re.fullmatch(
        r"recalibration is due: the resting potentials moved by (\S+) LSB \(rms\) in (\S+) s of chip time; "
        "the thresholds have probably moved alike; recalibrate and attach again",
        note,
    )
    assert match is not None
    assert 2.0 <= float(match[1]) < 3.0
    assert float(match[2]) == pytest.approx(chip_time)


def test_a_new_attachment_starts_from_the_present_potentials() -> None:
    device, net = attached(0.01)
    assert len(notes(net, 20)) == 1
    device.backend.rate = 0.0
    device.clock = 0
    net.attach(device)
    assert notes(net, 20) == []


@pytest.mark.parametrize(("rate", "expected"), [(0.0, []), (0.0005, [True])])
def test_chips_that_take_turns_are_no_drift(rate: float, expected: list[bool]) -> None:
    """If each trial runs on a random one of two dies, a mean takes thousands of trials; drift is still detected."""
    rng = torch.Generator().manual_seed(0)
    dies = torch.randint(80, 160, (2, 30), generator=rng)
    monitor = DriftMonitor()
    texts = []
    for batch in range(600):
        codes = dies[torch.randint(0, 2, (100,), generator=rng)].to(torch.uint8)[:, None]
        recording = Recording({}, {"layer0": codes}, Cost(0.02, None, "measured"))
        texts.append(monitor.add(shifted(recording, 100 * batch, rate)))
    assert [20000 <= 100 * batch <= 50000 for batch, text in enumerate(texts) if text] == expected


def test_small_batches_are_averaged_over() -> None:
    _, net = attached(0.0, drift_limit=0.5)
    assert notes(net, 150, 9) == []
    _, net = attached(0.01)
    [(batch, _)] = notes(net, 150, 9)
    assert batch + 1 == 2 * 29  # two means of at least 256 trials


def test_trials_that_do_not_begin_at_rest_are_not_watched() -> None:
    device, net = attached(0.1)
    assert device.plan is not None
    close = replace(device.plan.circuit, trial_time=40e-6)
    device.plan = net._plan = replace(device.plan, circuit=close)
    assert notes(net, 20) == []
    device.plan = net._plan = replace(device.plan, circuit=replace(close, forced_reset=True))
    assert len(notes(net, 20)) == 1


def test_a_training_run_prints_and_records_it_once(tmp_path, mocker) -> None:
    replace_runs(mocker, lambda self, w, s: shifted(HEALTHY(self, w, s), s.clock, 0.01))
    console = io.StringIO()
    config = RunConfig(
        network=NetworkConfig(hidden=[20]),
        data=DataConfig("digits"),
        trainer=TrainerConfig(2, 50, train_samples=900, test_samples=100, progress=False, plots=False),
    )
    result = run(config, tmp_path, "test", Progress(show=False, console=Console(file=console, width=300)))
    [note] = [note for note in result["notes"] if note.startswith("recalibration is due")]
    assert console.getvalue().count("recalibration is due") == 1
    assert "warning: training, epoch 1, step 16: recalibration is due" in console.getvalue()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["notes"] for line in lines] == [[note], []]


def test_refusals() -> None:
    with pytest.raises(ValueError, match="drift_limit=0 trace units must be positive"):
        Device(create_backend("reference"), drift_limit=0)
