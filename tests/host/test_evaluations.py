"""Evaluations of a folder of runs: each is of the checkpoint that is there, whatever the times of files say."""

import io
import json
import os

import pytest
import torch
from rich.console import Console

from hxtrain.config import BackendConfig, NetworkConfig
from hxtrain.datasets import DataConfig
from hxtrain.studies.evaluate import EvaluateConfig
from hxtrain.studies.evaluations import evaluate_all
from hxtrain.training import Progress, RunConfig, TrainerConfig, load_checkpoint, run, save_checkpoint


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


def evaluated(runs):
    """Return the evaluation of the only run, and what was said."""
    console = io.StringIO()
    config = EvaluateConfig(str(runs), BackendConfig("software"), test_samples=50)
    (found,) = evaluate_all(config, runs.parent / "out", "", Progress(False, Console(file=console, width=300)))
    return found, console.getvalue()


def test_a_finished_evaluation_is_not_repeated(runs):
    first, _ = evaluated(runs)
    again, said = evaluated(runs)
    assert again == first
    assert "anew" not in said


def test_another_checkpoint_is_evaluated_anew_however_old_its_file_is(runs):
    first, _ = evaluated(runs)
    checkpoint = runs / "a/checkpoint.pt"
    times, state = checkpoint.stat(), load_checkpoint(checkpoint)
    save_checkpoint(checkpoint, {**state, "model": {name: torch.zeros_like(w) for name, w in state["model"].items()}})
    os.utime(checkpoint, (times.st_atime, times.st_mtime))
    second, said = evaluated(runs)
    assert "is evaluated anew: the existing evaluation is of another checkpoint" in said
    assert second["hidden_spikes_per_sample"] == 0 < first["hidden_spikes_per_sample"]


def test_an_evaluation_that_names_no_checkpoint_is_made_anew(runs):
    evaluated(runs)
    file = runs.parent / "out/a/evaluation.json"
    without = json.loads(file.read_text())
    del without["checkpoint_sha256"]
    file.write_text(json.dumps(without | {"test_accuracy": 1.0}))
    found, said = evaluated(runs)
    assert "does not say which checkpoint it is of" in said
    assert found["test_accuracy"] < 1
