"""Snapshots of a training: what they hold, what they cost, and that they change nothing."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import hxtrain as hx
from hxtrain.network.firing import neuron_firing
from hxtrain.network.samples import pass_sample
from hxtrain.runs.progress import Progress
from hxtrain.training import Task, Trainer, TrainerConfig
from hxtrain.training import snapshots as module
from hxtrain.training.snapshots import Snapshots

CONFIG = TrainerConfig(epochs=2, batch_size=50, train_samples=200, test_samples=50, progress=False)


def network() -> hx.Network:
    layers = hx.Linear(64, 12, gain=6.0), hx.LIF(12), hx.Dropout(0.2), hx.Linear(12, 10, autoscale=True), hx.LI(10)
    return hx.Network(*layers, seed=3)


def train(folder: Path, is_live: bool, device: hx.Device | None = None) -> tuple[Trainer, Progress]:
    data = hx.load_dataset("digits")
    net = network()
    if device is not None:
        net.attach(device)
    progress = Progress(False)
    folder.mkdir()
    task = Task(net, hx.LatencyEncoder(), hx.MaxOverTime(), {"burst": hx.Burst()}, data)
    trainer = Trainer(task, CONFIG, 5, folder, {}, progress)
    if is_live:
        trainer.snapshots = Snapshots(folder, net, progress.warn, progress.remarks, clock=lambda: 0.0)
    trainer.fit()
    return trainer, progress


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """Return a training in the loop with a snapshot after its last step, and its run directory."""
    folder = tmp_path_factory.mktemp("live")
    with hx.open_device("emulator", chip="W66F3") as device:
        trainer, _ = train(folder / "with", True, device)
        yield trainer, folder


def test_a_training_with_snapshots_is_bit_equal(live):
    trainer, folder = live
    with hx.open_device("emulator", chip="W66F3") as device:
        plain, _ = train(folder / "without", False, device)
    state, expected = trainer.task.net.state_dict(), plain.task.net.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    for record, counterpart in zip(trainer.records, plain.records, strict=True):
        times = ("seconds", "samples_per_second")
        assert {k: v for k, v in record.items() if k not in times} == {
            k: v for k, v in counterpart.items() if k not in times
        }
    assert not (folder / "without" / "live.json").exists()


def test_the_last_step_is_in_the_snapshot(live):
    trainer, folder = live
    content = json.loads((folder / "with" / "live.json").read_text())
    assert [content[name] for name in ("epoch", "epochs", "step", "steps_per_epoch")] == [1, 2, 4, 4]
    assert content["steps"]["step"] == list(range(1, 9))
    assert sum(content["steps"]["loss"][4:]) / 4 == pytest.approx(trainer.records[-1]["train_loss"], rel=1e-4)
    total = sum(record["chip_seconds"] for record in trainer.records)
    assert content["steps"]["chip_seconds"][-1] == pytest.approx(total) == pytest.approx(8 * 50 * 200e-6)
    assert [train["name"] for train in content["sample"]["trains"]] == ["input", "layer0"]
    hidden, readout = content["sample"]["membranes"]
    assert len(hidden["measured"]) == len(hidden["modelled"]) == module.HIDDEN_TRACES
    assert len(readout["measured"][0]) == trainer.task.net.steps
    assert [matrix["shape"] for matrix in content["weights"]] == [[12, 64], [10, 12]]
    assert sum(content["weights"][0]["counts"]) == 12 * 64
    assert content["chip"]["circuits"] == 512
    assert content["chip"]["neurons"] == [0] * 12 + [1] * 10
    assert ["neuron circuits", "22", "512"] in content["placement"]


def test_a_failing_snapshot_warns_once_and_the_training_goes_on(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "replacing", full)
    trainer, progress = train(tmp_path / "run", True)
    assert len(trainer.records) == 2
    warnings = [text for text in progress.remarks if "live view" in text]
    assert len(warnings) == 1
    assert "No space left on device; the training goes on" in warnings[0]


def test_snapshots_wait_for_200_times_their_cost(tmp_path, monkeypatch):
    clock_time = 0.0
    writes = []

    def write(*_: object) -> None:
        nonlocal clock_time
        writes.append(clock_time)
        clock_time += 0.02

    monkeypatch.setattr(Snapshots, "_write", write)
    snapshots = Snapshots(tmp_path, network(), print, clock=lambda: clock_time)
    course = SimpleNamespace(epoch=0, epochs=9, step=0, steps_per_epoch=10**6)
    for _ in range(1000):
        snapshots.prepare(course)
        snapshots.add(course, None, None, {"loss": 1.0})
        clock_time += 0.01
    assert writes[1] - writes[0] == pytest.approx(module.INTERVAL, abs=0.05)  # the first one costs what it does once
    assert all(second - first >= 4.0 for first, second in pairwise(writes[1:]))
    assert len(writes) * 0.02 < 0.0055 * clock_time + 0.02 * 2


def test_a_sample_of_a_pass_is_that_of_the_model_for_measured_spikes():
    net = network().eval()
    data = hx.load_dataset("digits")
    spikes = data.source(data.test, hx.LatencyEncoder()).spikes(torch.arange(20))
    with torch.no_grad(), net.twin.recording():
        activity = net(spikes)
    views = pass_sample(net, activity, 7)
    assert [train.size for train in views.trains] == [64, 12]
    assert int(activity.layers[0].counts[7].sum()) == len(views.trains[1].times)
    for layer, membranes in zip(activity.layers, views.membranes, strict=True):
        assert membranes.measured is None
        torch.testing.assert_close(membranes.modelled, layer.trace[:, 7])
    ranks = views.trains[1].ranks()
    order = torch.argsort(ranks)
    first = [min(views.trains[1].times[views.trains[1].units == n].tolist(), default=9.0) for n in order]
    assert first == sorted(first)
    with pytest.raises(ValueError, match=r"sample=20 is not in 0..19"):
        pass_sample(net, activity, 20)
    with pytest.raises(ValueError, match=r"activity.inputs is None"):
        pass_sample(net, replace(activity, inputs=None), 0)


def test_silent_and_saturated_neurons():
    net = network()
    counts = torch.zeros(5, 12)
    counts[:, 1] = 9.0
    counts[0, 2] = 1.0
    layer = SimpleNamespace(counts=counts)
    readout = SimpleNamespace(counts=None, trace=torch.tensor([0.0, 2.0]).repeat(20, 5, 5))
    activity = SimpleNamespace(layers=[layer, readout], cost=object())
    hidden, output = neuron_firing(net, activity)
    assert hidden.silent.tolist() == [True, False, False] + [True] * 9
    assert hidden.saturated.tolist() == [False, True] + [False] * 10
    assert output.saturated.tolist() == [False, True] * 5
    assert output.spikes is None
