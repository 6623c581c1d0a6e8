"""Trackers: what they get, that they change nothing, and that a failing one disturbs nobody."""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from rich.console import Console

import hxtrain as hx
from hxtrain.commands.ann import AnnConfig, train_ann
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import complete, run
from hxtrain.datasets import DataConfig
from hxtrain.execution.config import BackendConfig
from hxtrain.network import NetworkConfig
from hxtrain.runs.metrics import Sums
from hxtrain.runs.progress import Observer, Progress
from hxtrain.trackers import TRACKERS, TrackedRun, Tracker, TrackerError, named_trackers, tracked
from hxtrain.trackers.figures import coloured
from hxtrain.trackers.json_lines import JsonLines
from hxtrain.trackers.placement import placement
from hxtrain.trackers.worker import Worker
from hxtrain.training.config import AnnTrainerConfig, TrainerConfig

CALLS: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
KEYS = count()


@dataclass
class Notes(Tracker):
    """Keeps its calls, and those of the copies that runs make."""

    key: str = field(default_factory=lambda: f"notes {next(KEYS)}")

    @property
    def calls(self) -> list[tuple[Any, ...]]:
        return CALLS[self.key]

    def start(self, run: TrackedRun) -> None:
        self.calls.append(("start", run))

    def log(self, step: int, values: Any) -> None:
        self.calls.append(("log", step, values))

    def image(self, step: int, name: str, pixels: Any) -> None:
        self.calls.append(("image", step, name, pixels.shape))

    def graph(self, nodes: Any) -> None:
        self.calls.append(("graph", nodes))

    def artifact(self, path: Path) -> None:
        self.calls.append(("artifact", path.name))

    def end(self, status: str) -> None:
        self.calls.append(("end", status))

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0] == name]


@dataclass
class Broken(Notes):
    """Fails at its first value."""

    def log(self, step: int, values: Any) -> None:
        random.random()
        raise OSError(28, "No space left on device")


@dataclass
class Stuck(Notes):
    """Does not return from its first value until it is released."""

    release: ClassVar[threading.Event] = threading.Event()

    def log(self, step: int, values: Any) -> None:
        self.release.wait(60)


@dataclass
class Slow(Notes):
    """Takes a while for each value."""

    def log(self, step: int, values: Any) -> None:
        time.sleep(0.01)


@dataclass
class Leaving(Notes):
    """Ends its thread, as some libraries do."""

    def log(self, step: int, values: Any) -> None:
        raise SystemExit(1)


def config(epochs: int = 2, resume: bool = False, **parts: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "backend": BackendConfig("reference"),
        "network": NetworkConfig(hidden=[12]),
        "data": DataConfig("digits"),
        "trainer": TrainerConfig(
            epochs, batch_size=20, train_samples=80, test_samples=20, progress=False, plots=False, resume=resume
        ),
    }
    return RunConfig(**(settings | parts))


def quiet() -> Progress:
    return Progress(False, Console(quiet=True))


def global_state() -> tuple[Any, ...]:
    """Return all that a library may change for the whole process."""
    numbers: Any = np.random.get_state()  # noqa: NPY002
    handlers = (signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM))
    plain = random.getstate(), numbers[1].tobytes(), torch.get_rng_state().numpy().tobytes()
    return (*plain, *handlers, sys.excepthook, sys.exit, threading.excepthook)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Notes, Path]:
    folder = tmp_path_factory.mktemp("tracked") / "first"
    tracker = Notes(steps=2)
    run(config(tracker={"notes": tracker, "json_lines": JsonLines(steps=2)}), folder, progress=quiet(), group="sweep/1")
    return tracker, folder


def test_a_tracker_gets_values_images_graph_and_files(notes: tuple[Notes, Path]) -> None:
    tracker, folder = notes
    (start,) = tracker.named("start")
    assert (start[1].name, start[1].group, start[1].folder, start[1].is_resumed) == ("first", "sweep/1", folder, False)
    assert start[1].config["network"]["hidden"] == [12]
    steps = [call[1] for call in tracker.named("log") if "step/loss" in call[2]]
    assert steps == [2, 4, 6, 8]
    epochs = [(call[1], call[2]["epoch/test_accuracy"]) for call in tracker.named("log") if "epoch/epoch" in call[2]]
    assert epochs == [(4 * r["epoch"], r["test_accuracy"]) for r in lines(folder / "metrics.jsonl")]
    assert [call[1:3] for call in tracker.named("image")] == [
        (step, name) for step in (4, 8) for name in ("raster", "weights/input_to_layer0", "weights/layer0_to_layer1")
    ]
    assert all(call[3][2] == 3 and min(call[3]) > 2 for call in tracker.named("image"))
    assert [call[1] for call in tracker.named("artifact")] == ["config.yaml", "result.json", "weights.npz"]
    assert tracker.calls[-1] == ("end", "finished")


def test_values_of_steps_are_means_since_the_last_ones(notes: tuple[Notes, Path]) -> None:
    tracker, folder = notes
    losses = [call[2]["step/loss"] for call in tracker.named("log") if "step/loss" in call[2]]
    records = lines(folder / "metrics.jsonl")
    for record, parts in zip(records, (losses[:2], losses[2:]), strict=True):
        assert sum(parts) / 2 == pytest.approx(record["train_loss"])


@pytest.mark.parametrize("steps", [3, 4, 20])
def test_values_of_an_epoch_that_is_shorter_than_the_steps_are_its_means(steps: int, tmp_path: Path) -> None:
    tracker = Notes(steps=steps)
    run(config(3, tracker={"notes": tracker}), tmp_path / "run", progress=quiet())
    logged = [(call[1], call[2]["step/loss"]) for call in tracker.named("log") if "step/loss" in call[2]]
    assert [step for step, _ in logged] == ([3, 4, 7, 8, 11, 12] if steps == 3 else [4, 8, 12])
    records = lines(tmp_path / "run" / "metrics.jsonl")
    losses = [(3 * a[1] + b[1]) / 4 for a, b in zip(logged[::2], logged[1::2], strict=True)] if steps == 3 else []
    losses = losses or [loss for _, loss in logged]
    assert losses == pytest.approx([record["train_loss"] for record in records])


def test_json_lines_read_back(notes: tuple[Notes, Path]) -> None:
    tracker, folder = notes
    entries = lines(folder / "tracker.jsonl")
    assert entries[0]["run"] == json.loads((folder / "tracker.json").read_text(encoding="utf-8"))["id"]
    assert entries[0]["group"] == "sweep/1"
    values = [{"step": call[1], **call[2]} for call in tracker.named("log")]
    assert [entry for entry in entries if "step" in entry] == values
    assert entries[-1] == {"status": "finished"}


def test_the_graph_is_that_of_the_placement(notes: tuple[Notes, Path]) -> None:
    ((_, nodes),) = notes[0].named("graph")
    assert [node.name for node in nodes] == ["input", "input_to_layer0", "layer0", "layer0_to_layer1", "layer1"]
    names = {node.name for node in nodes}
    assert all(set(node.inputs) <= names for node in nodes)
    assert nodes[2].entries["neurons"] == "12"
    assert nodes[-1].kind == "readout"


@pytest.mark.parametrize("recurrent", [False, True])
def test_the_graph_of_a_network_that_takes_several_runs_is_connected(recurrent: bool) -> None:
    recurrence = [hx.Recurrent(40)] if recurrent else []
    large = hx.Linear(40, 600), hx.LIF(600), hx.Linear(600, 10), hx.LI(10)
    net = hx.Network(hx.Linear(64, 40), hx.LIF(40), *recurrence, *large)
    software = placement(net)
    with hx.open_device("reference") as device:
        net.attach(device)
        nodes = placement(net)
    for graph in (software, nodes):
        names = [node.name for node in graph]
        assert len(names) == len(set(names))
        assert all(set(node.inputs) <= set(names[:index]) for index, node in enumerate(graph))
        assert any(node.entries.get("from") == "layer0" and "layer0" in node.name for node in graph) or not recurrent


def test_trackers_change_neither_weights_nor_random_numbers_nor_handlers(
    notes: tuple[Notes, Path], tmp_path: Path
) -> None:
    first = torch.load(notes[1] / "checkpoint.pt", weights_only=True)["model"]
    state = global_state()
    run(config(tracker={"notes": Notes(), "json_lines": JsonLines()}), tmp_path / "tracked", progress=quiet())
    assert global_state() == state
    run(config(), tmp_path / "plain", progress=quiet())
    for name in ("tracked", "plain"):
        model = torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["model"]
        assert all(torch.equal(model[key], first[key]) for key in first)


def test_trackers_that_fail_warn_once_each_and_the_training_goes_on(tmp_path: Path) -> None:
    progress = quiet()
    trackers: dict[str, Tracker] = {"broken": Broken(steps=1), "leaving": Leaving(steps=1), "notes": (notes := Notes())}
    outcome = run(config(tracker=trackers), tmp_path / "run", progress=progress)
    warnings = sorted(remark for remark in progress.remarks if "tracker" in remark)
    assert len(warnings) == 2
    assert "tracker broken failed with OSError: [Errno 28] No space left on device" in warnings[0]
    assert "tracker leaving failed with SystemExit: 1" in warnings[1]
    assert outcome["epochs"] == 2
    assert notes.calls[-1] == ("end", "finished")


def test_a_network_that_cannot_be_drawn_costs_images_and_graph_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hxtrain.trackers.tracking.placement", lambda net: net.nothing)
    monkeypatch.setattr("hxtrain.trackers.tracking.raster", lambda net, activity: net.nothing)
    progress = quiet()
    tracker = Notes(steps=2)
    run(config(1, tracker={"notes": tracker}), tmp_path / "run", progress=progress)
    assert len([remark for remark in progress.remarks if "no images and no graph" in remark]) == 1
    assert tracker.named("graph") == tracker.named("image") == []
    assert [call[1] for call in tracker.named("log")] == [2, 4, 4]


def test_a_tracker_that_hangs_is_given_up_after_a_limit() -> None:
    texts: list[str] = []
    tracker = Stuck()
    tracker.release.clear()
    worker = Worker("stuck", tracker, texts.append, patience=0.05)
    worker.call("log", 1, {})
    worker.end("finished")
    assert worker.wait(5)
    worker.call("log", 2, {})
    worker.end("finished")
    assert worker.wait(0)
    tracker.release.set()
    assert len(texts) == 1
    assert "has not answered for 0.05 s" in texts[0]


def test_calls_that_wait_at_the_end_are_done_as_long_as_each_is_in_time() -> None:
    texts: list[str] = []
    tracker = Slow()
    worker = Worker("slow", tracker, texts.append, patience=0.1)
    for step in range(20):
        worker.call("log", step, {})
    worker.end("finished")
    assert not worker.wait(0)
    assert worker.wait(5)
    assert texts == []
    assert tracker.calls[-1] == ("end", "finished")


def test_a_tracker_that_is_too_slow_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hxtrain.trackers.worker.QUEUE", 3)
    texts: list[str] = []
    tracker = Stuck()
    tracker.release.clear()
    worker = Worker("stuck", tracker, texts.append)
    for step in range(8):
        worker.call("log", step, {})
    worker.end("finished")
    tracker.release.set()
    assert len(texts) == 1
    assert "calls behind" in texts[0]


def test_ctrl_c_ends_the_waiting_for_trackers_but_not_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hxtrain.trackers.tracking.SILENCE", 0.05)
    tracker = Stuck()
    tracker.release.clear()
    progress = quiet()
    texts: list[str] = []

    def interrupted(text: str) -> None:
        texts.append(text)
        raise KeyboardInterrupt

    monkeypatch.setattr(progress, "say", interrupted)
    with tracked(TrackedRun("x"), {"stuck": tracker, "notes": (notes := Notes())}, progress) as tracking:
        tracking.log(1, {"a": 1.0})
    tracker.release.set()
    assert len(texts) == 1
    assert texts[0].startswith("waiting for tracker stuck, which has ")
    assert [remark for remark in progress.remarks if "Ctrl-C ended the waiting" in remark]
    assert notes.calls[-1] == ("end", "finished")


def test_an_observer_that_fails_is_left_out() -> None:
    class Faulty(Observer):
        def begin(self, course: Any) -> None:
            raise KeyError("x")

    progress = quiet()
    net = hx.Network(hx.Linear(64, 8), hx.LIF(8), hx.Linear(8, 10), hx.LI(10))
    with progress.observed(Faulty()):
        hx.fit(net, hx.load_dataset("digits"), epochs=1, train_samples=40, test_samples=10, progress=progress)
    assert [remark for remark in progress.remarks if "Faulty failed with KeyError" in remark]


def test_a_resumed_run_is_the_same_run(tmp_path: Path, notes: tuple[Notes, Path]) -> None:
    folder = tmp_path / "first"
    trackers: dict[str, Tracker] = {"json_lines": JsonLines(steps=2)}
    run(config(1, tracker=trackers), folder, progress=quiet())
    with (folder / "tracker.jsonl").open("a", encoding="utf-8") as file:  # a killed process has logged later steps
        file.write(json.dumps({"step": 6, "step/loss": 9.0}) + '\n{"step": 8, "ste')
    first = (folder / "tracker.json").read_text(encoding="utf-8")
    run(config(2, True, tracker=trackers), folder, progress=quiet())
    assert (folder / "tracker.json").read_text(encoding="utf-8") == first
    timeless = [
        [{name: value for name, value in entry.items() if "second" not in name} for entry in entries if "step" in entry]
        for entries in (lines(folder / "tracker.jsonl"), lines(notes[1] / "tracker.jsonl"))
    ]
    assert timeless[0] == timeless[1]


def test_another_tracker_is_no_other_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(config(1), folder, progress=quiet())
    tracker = Notes()
    complete(config(2, tracker={"notes": tracker}), folder, progress=quiet(), group="lr")
    assert tracker.named("start")[0][1].is_resumed
    assert tracker.named("start")[0][1].step == 4
    assert tracker.named("start")[0][1].group == "lr"


def test_an_interrupted_run_ends_as_such(tmp_path: Path) -> None:
    class Interrupting(Observer):
        def advance(self, course: Any) -> None:
            signal.raise_signal(signal.SIGINT)

    tracker = Notes()
    progress = quiet()
    with progress.observed(Interrupting()), pytest.raises(KeyboardInterrupt):
        run(config(tracker={"notes": tracker}), tmp_path / "run", progress=progress)
    assert tracker.calls[-1] == ("end", "interrupted")
    assert [call[1] for call in tracker.named("log")] == [1]


def test_fit_and_artificial_networks_take_trackers(tmp_path: Path) -> None:
    net = hx.Network(hx.Linear(64, 8), hx.LIF(8), hx.Linear(8, 10), hx.LI(10))
    data = hx.load_dataset("digits")
    tracker = Notes(steps=1, name="mine")
    hx.fit(net, data, epochs=1, train_samples=40, test_samples=10, progress=quiet(), trackers=[tracker])
    assert tracker.named("start")[0][1].name == "mine"
    assert tracker.named("log")[-1][2]["epoch/epoch"] == 1
    with pytest.raises(TrackerError, match="give file="):
        hx.fit(net, data, epochs=1, trackers=[JsonLines()])
    settings = AnnTrainerConfig(1, train_samples=40, test_samples=10)
    ann = AnnConfig(data=DataConfig("digits"), trainer=settings, tracker={"notes": replace(tracker)})
    train_ann(ann, tmp_path / "ann", "", quiet(), "anns")
    assert tracker.named("start")[-1][1].group == "anns"
    assert tracker.calls[-1] == ("end", "finished")


def test_names_of_a_list_and_mistakes() -> None:
    assert list(named_trackers([JsonLines(file="a"), JsonLines(file="b")])) == ["json_lines", "json_lines_2"]
    with pytest.raises(TypeError, match="JsonLines"):
        named_trackers(["tensorboard"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="steps=0"):
        JsonLines(steps=0)
    with pytest.raises(TypeError, match=r"tracker\['x'\]"):
        RunConfig(tracker={"x": 3})  # type: ignore[dict-item]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_library_is_named_with_its_extra(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (name, "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(TrackerError, match=rf"pip install 'hxtrain\[{name}\]'"):
        run(config(tracker={name: TRACKERS.load(name)()}), tmp_path / "run", progress=quiet())
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_sums_since_a_previous_state() -> None:
    old, new = Sums(), Sums()
    old.add(10, 1.0, 5, 3.0, 0.1, metrics={"m": 1.0})
    new.add(14, 2.0, 1, 1.0, 0.1, metrics={"m": 2.0, "n": 1.0})
    assert new.since(old).samples == 4
    assert new.since(old).metrics == {"m": 1.0, "n": 1.0}


def test_a_file_of_another_run_is_refused_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    tracker: dict[str, Tracker] = {"json_lines": JsonLines(file=str(file), steps=2)}
    run(config(1, tracker=tracker), tmp_path / "first", progress=quiet())
    first = file.read_text(encoding="utf-8")
    with pytest.raises(TrackerError, match="holds another run already"):
        run(config(1, tracker=tracker), tmp_path / "second", progress=quiet())
    run(config(1), tmp_path / "second", progress=quiet())
    with pytest.raises(TrackerError, match="holds another run already"):
        run(config(2, True, tracker=tracker), tmp_path / "second", progress=quiet())
    assert file.read_text(encoding="utf-8") == first
    run(config(2, True, tracker=tracker), tmp_path / "first", progress=quiet())
    assert file.read_text(encoding="utf-8").startswith(first.rpartition('{"artifact')[0].partition('{"artifact')[0])
    file.write_text("notes of mine\n", encoding="utf-8")
    with pytest.raises(TrackerError, match="holds another run already"):
        run(config(1, tracker=tracker), tmp_path / "third", progress=quiet())


def test_weights_as_an_image() -> None:
    image = coloured(np.array([[1.0, -1.0], [0.0, 0.5]]))
    assert image.shape == (32, 32, 3)
    assert [image[row, column].tolist() for row, column in ((0, 0), (0, 31), (31, 0), (31, 31))] == [
        [178, 24, 43],
        [33, 102, 172],
        [255, 255, 255],
        [216, 140, 149],
    ]


def test_values_that_are_no_finite_numbers_are_left_out(tmp_path: Path) -> None:
    tracker = Notes()
    with tracked(TrackedRun("x"), {"notes": tracker}, quiet()) as tracking:
        tracking.log(0, {"a": 1, "b": float("nan"), "c": None, "d": True, "e": [0.5, None, 0.25]}, "p")
    assert tracker.named("log") == [("log", 0, {"p/a": 1.0, "p/e/0": 0.5, "p/e/2": 0.25})]
