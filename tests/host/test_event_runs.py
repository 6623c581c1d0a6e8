"""Data in the shape of the Spiking Heidelberg Digits through the whole chain: training, resumption, evaluation."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bursts import SPEEDUP, UNITS, bursts, write
from commands import call
from rich.console import Console

import hxtrain as hx
from hxtrain.commands.ann import AnnConfig, train_ann
from hxtrain.commands.compare import CompareConfig, compare_checkpoint
from hxtrain.commands.evaluate import EvaluateConfig, evaluate_checkpoint
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run
from hxtrain.datasets import DataConfig, DatasetError
from hxtrain.datasets.augment import ImageAugmentation
from hxtrain.execution.config import BackendConfig
from hxtrain.network import NetworkConfig
from hxtrain.objectives.distillation import Distillation
from hxtrain.runs.checkpoint import load_checkpoint
from hxtrain.runs.progress import Progress
from hxtrain.training import TrainerConfig, evaluate

ENCODER = hx.EventEncoder(speedup=SPEEDUP, jitter=1e-7)


def quiet() -> Progress:
    return Progress(show=False, console=Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("bursts") / "data")


def config(folder: Path, backend: str = "software", **changes: Any) -> RunConfig:
    trainer = TrainerConfig(
        epochs=4, batch_size=20, learning_rate=5e-3, learning_rate_decay=1.0, progress=False, plots=False
    )
    settings = {
        "backend": BackendConfig(backend),
        "network": NetworkConfig(hidden=[30], steps=40, init_gain=1.4),
        "encoder": ENCODER,
        "data": DataConfig("folder", folder=str(folder)),
        "trainer": trainer,
    }
    return RunConfig(**{**settings, **changes})


@pytest.mark.parametrize("backend", ["software", "emulator"])
def test_a_network_learns_events(folder: Path, tmp_path: Path, backend: str) -> None:
    training = config(folder, backend)
    result = run(replace(training, trainer=replace(training.trainer, plots=True)), tmp_path, "test", quiet())
    assert result["test_accuracy"] > 0.8  # chance: 0.25
    assert (result["data_size"], result["train_samples"], result["settings"]["encoder.kind"]) == (
        UNITS, 160, "events",
    )  # fmt: skip
    events = result["input_events_per_sample"] + result["late_input_events_per_sample"]
    assert events == pytest.approx(len(bursts(40, 1)["times"]) / 40)
    assert (tmp_path / "plots/samples.png").stat().st_size > 10_000
    trained = hx.load(tmp_path)
    assert (trained.encoder, trained.net.layers[0].linear.inputs) == (ENCODER, UNITS)
    source = trained.data.source(trained.data.test, trained.encoder)
    accuracy = evaluate(trained.net, source, trained.loss).accuracy
    settings = EvaluateConfig(str(tmp_path / "checkpoint.pt"), BackendConfig("software"))
    assert evaluate_checkpoint(settings, tmp_path, "test", quiet())["test_accuracy"] == accuracy
    if backend == "software":
        assert accuracy == result["test_accuracy"]
        comparison = CompareConfig(settings.checkpoint, settings.backend, other_backend=settings.backend, samples=5)
        assert compare_checkpoint(comparison, tmp_path, "test", quiet())["first_disagreeing"] is None


def test_a_run_on_events_resumes_to_the_very_same_weights(folder: Path, tmp_path: Path) -> None:
    training = config(folder, "emulator")
    training.trainer = replace(training.trainer, epochs=2, train_samples=60)
    run(training, tmp_path / "whole", "test", quiet())
    run(replace(training, trainer=replace(training.trainer, epochs=1)), tmp_path / "broken", "test", quiet())
    run(replace(training, trainer=replace(training.trainer, resume=True)), tmp_path / "broken", "test", quiet())
    whole, broken = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "broken"))
    assert whole["clock"] == broken["clock"]
    assert all(torch.equal(weights, broken["model"][name]) for name, weights in whole["model"].items())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"encoder": hx.LatencyEncoder()}, r"LatencyEncoder takes intensities, .* \(encoder=events\)"),
        (
            {"augment": ImageAugmentation(shift=1)},
            r"augment.shift=1: this distorts images, not folder \(700 units\)",
        ),
        (
            {"distillation": Distillation("x.pt")},
            r"a teacher takes images or feature vectors; folder \(700 units\) has",
        ),
        ({"data": {"size": 16}}, ": size=16, but its samples have 700 units"),
        (
            {"network": {"hidden": [90]}, "backend": BackendConfig("emulator", max_runs=1)},
            r"544 neuron circuits \(layer0 90 x 6, .* use fewer neurons",
        ),
        (
            {"network": {"steps": 300}, "backend": BackendConfig("emulator")},
            r"longer than the 0.0002 s .*set steps=117 or less, or trial_time",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_do_not_fit_events_are_refused(
    folder: Path, tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    training = config(folder)
    for name, value in changes.items():
        changed = replace(getattr(training, name), **value) if isinstance(value, dict) else value
        training = replace(training, **{name: changed})
    with pytest.raises(ValueError, match=text):
        run(training, tmp_path, "test", quiet())
    assert not (tmp_path / "checkpoint.pt").exists()


def test_an_artificial_network_refuses_events(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="an artificial neural network takes images or feature vectors; folder"):
        train_ann(AnnConfig(data=DataConfig("folder", folder=str(folder))), tmp_path / "ann", "test", quiet())


@pytest.mark.parametrize(
    ("speedup", "text", "remedy"),
    [
        (1.0, "the input is late", "Take a larger encoder.speedup"),
        (1000 * SPEEDUP, "the input is early", "Take a smaller encoder.speedup"),
    ],
)
def test_events_on_another_time_scale_are_called_so(
    folder: Path, tmp_path: Path, speedup: float, text: str, remedy: str
) -> None:
    progress = quiet()
    training = config(folder, encoder=hx.EventEncoder(speedup=speedup))
    run(replace(training, trainer=replace(training.trainer, epochs=1)), tmp_path, "test", progress)
    remarks = [remark for remark in progress.remarks if text in remark]
    assert len(remarks) == 1
    assert remedy in remarks[0]
    assert "data.settings.time_unit" in remarks[0]


def test_the_command_line_trains_resumes_and_evaluates(folder: Path, tmp_path: Path) -> None:
    words = [
        "data=folder", f"data.folder={folder}", "encoder=events", f"encoder.speedup={SPEEDUP}", "network.hidden=[20]",
        "network.steps=40", "trainer.batch_size=20", "trainer.train_samples=60", "trainer.plots=false",
        "trainer.progress=false", "backend=emulator", "hydra.run.dir=run",
    ]  # fmt: skip
    assert call("hxtrain", *words, "trainer.epochs=1", cwd=tmp_path).returncode == 0
    process = call("hxtrain", *words, "trainer.epochs=2", "trainer.resume=true", cwd=tmp_path)
    assert "network 700-20-4 on folder (700 units), backend emulator" in process.stdout
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert (result["epochs"], result["settings"]["encoder.speedup"]) == (2, SPEEDUP)
    places = "checkpoint=run/checkpoint.pt", "backend=software", "hydra.run.dir=evaluated"
    assert call("hxtrain evaluate", *places, cwd=tmp_path).returncode == 0
    assert json.loads((tmp_path / "evaluated/evaluation.json").read_text())["test_samples"] == 40
    images = [word for word in words if "encoder" not in word]
    process = call("hxtrain", *images, "hydra.run.dir=refused", cwd=tmp_path)
    assert process.returncode == 2
    assert "take EventEncoder(speedup=...) (encoder=events)" in process.stderr
