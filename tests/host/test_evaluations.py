"""Evaluations of a folder of runs: each belongs to the present checkpoint, whatever the times of the files."""

import io
import json
import os

import pytest
import torch
from rich.console import Console

from hxtrain.commands.evaluate import EvaluateConfig
from hxtrain.commands.evaluations import evaluate_all
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run
from hxtrain.datasets import DataConfig
from hxtrain.execution.config import BackendConfig
from hxtrain.network import NetworkConfig
from hxtrain.runs.checkpoint import load_checkpoint, save_checkpoint
from hxtrain.runs.progress import Progress
from hxtrain.training.config import TrainerConfig


@pytest.fixture
def runs(tmp_path):
    trainer = TrainerConfig(epochs=1, train_samples=100, test_samples=50, plots=False, progress=False)
    config = RunConfig(
        backend=BackendConfig("software"),
        network=NetworkConfig(hidden=[10], init_gain=3.0),
        data=DataConfig("digits"),
        trainer=trainer,
    )
    run(config, tmp_path / "runs/a", "test", Progress(False, Console(file=io.StringIO())))
    return tmp_path / "runs"


def evaluate_runs(runs):
    """Return the evaluation of the only run, and the output."""
    console = io.StringIO()
    config = EvaluateConfig(str(runs), BackendConfig("software"), test_samples=50)
    (evaluation,) = evaluate_all(config, runs.parent / "out", "", Progress(False, Console(file=console, width=300)))
    return evaluation, console.getvalue()


def test_a_finished_evaluation_is_not_repeated(runs):
    first, _ = evaluate_runs(runs)
    second, output = evaluate_runs(runs)
    assert second == first
    assert "anew" not in output


def test_another_checkpoint_is_evaluated_anew_however_old_its_file_is(runs):
    first, _ = evaluate_runs(runs)
    checkpoint = runs / "a/checkpoint.pt"
    times = checkpoint.stat()
    state = load_checkpoint(checkpoint)
    save_checkpoint(checkpoint, {**state, "model": {name: torch.zeros_like(w) for name, w in state["model"].items()}})
    os.utime(checkpoint, (times.st_atime, times.st_mtime))
    second, output = evaluate_runs(runs)
    assert "is evaluated anew: the existing evaluation is of another checkpoint" in output
    assert second["hidden_spikes_per_sample"] == 0 < first["hidden_spikes_per_sample"]


def test_an_evaluation_that_names_no_checkpoint_is_made_anew(runs):
    evaluate_runs(runs)
    file = runs.parent / "out/a/evaluation.json"
    record = json.loads(file.read_text())
    del record["checkpoint_sha256"]
    file.write_text(json.dumps(record | {"test_accuracy": 1.0}))
    evaluation, output = evaluate_runs(runs)
    assert "does not say which checkpoint it is of" in output
    assert evaluation["test_accuracy"] < 1
