"""Training over a faulty link: retries do not change the weights, and giving up loses nothing."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import call
from rich.console import Console

from hxtrain.backends import DeviceError
from hxtrain.commands.evaluate import EvaluateConfig, evaluate_checkpoint
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run as train
from hxtrain.datasets import DataConfig
from hxtrain.execution.config import SOFTWARE, BackendConfig, ChipConfig
from hxtrain.network import NetworkConfig
from hxtrain.runs.checkpoint import load_checkpoint
from hxtrain.runs.progress import Progress
from hxtrain.training.config import TrainerConfig

LOSSES = {"timeout": 0.1, "partial_run": 0.1, "lost_samples": 0.05, "late_samples": 0.05}
STEPS = 10


def config(retries: int = 20, resume: bool = False, **faults: float) -> RunConfig:
    return RunConfig(
        backend=BackendConfig("emulator", retries=retries, faults=faults),
        network=NetworkConfig(hidden=[60], init_gain=3.0),
        data=DataConfig("digits"),
        trainer=TrainerConfig(
            1, 50, train_samples=50 * STEPS, test_samples=100, resume=resume, progress=False, plots=False
        ),
    )


def run(settings: RunConfig, folder: Path) -> dict:
    return train(settings, folder, "test", Progress(show=False, console=Console(file=io.StringIO())))


def model(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoint.pt")["model"]


def equal(first: Path, second: Path) -> bool:
    return all(torch.equal(weight, model(second)[name]) for name, weight in model(first).items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(config(), folder)


def test_lost_trials_do_not_change_the_weights(tmp_path, whole):
    folder, expected = whole
    result = run(config(**LOSSES), tmp_path)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["clock"] == 50 * STEPS + 100
    assert equal(tmp_path, folder)
    assert result["retries"] > 20
    assert expected["retries"] == 0
    for key in ("test_accuracy", "train_accuracy", "hidden_spikes_per_sample", "dropped_spikes", "chip_hash"):
        assert result[key] == expected[key]
    assert result["chip_seconds_per_sample"] > expected["chip_seconds_per_sample"]
    assert result["faults"].startswith("late_samples(p=0.05, latest=3) lost_samples(p=0.05) ")
    assert result["settings"]["backend.faults.timeout"] == 0.1


def test_dropped_spikes_change_the_weights(tmp_path, whole):
    result = run(config(dropped_spikes=0.1), tmp_path)
    assert not equal(tmp_path, whole[0])
    assert result["retries"] == 0
    [line] = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert line["dropped_spikes"] == result["dropped_spikes"] > 100


def test_a_run_that_fails_for_good_is_resumed_as_if_it_had_not(tmp_path):
    """The same trials meet the same faults in every process, dropped spikes included."""
    faults = {**LOSSES, "dropped_spikes": 0.05}
    patient = run(config(**faults), tmp_path / "patient")
    with pytest.raises(DeviceError, match=r"failed 2 times, last: .*The state before the failed step is saved"):
        run(config(retries=1, **faults), tmp_path / "broken")
    state = load_checkpoint(tmp_path / "broken/checkpoint.pt")
    assert (state["epoch"], state["clock"]) == (0, 50 * state["step"])
    assert state["step"] < STEPS
    resumed = run(config(resume=True, **faults), tmp_path / "broken")
    assert equal(tmp_path / "broken", tmp_path / "patient")
    for key in ("dropped_spikes", "retries", "test_accuracy"):
        assert resumed[key] == patient[key]


def test_other_faults_are_other_settings(tmp_path):
    with pytest.raises(DeviceError):
        run(config(retries=0, timeout=0.9), tmp_path)
    with pytest.raises(Exception, match=r"backend.faults.timeout: checkpoint 0.9, now 0.0\n.*identity.faults"):
        run(config(resume=True), tmp_path)


def test_an_evaluation_counts_its_faults(tmp_path, whole):
    settings = EvaluateConfig(
        str(whole[0] / "checkpoint.pt"),
        BackendConfig("emulator", retries=20, faults={**LOSSES, "dropped_spikes": 0.1}),
        test_samples=100,
    )
    evaluate_checkpoint(settings, tmp_path, "test", Progress(show=False, console=Console(file=io.StringIO())))
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    assert evaluation["retries"] > 0
    assert evaluation["dropped_spikes"] > 10
    assert [note.split(" (")[0] for note in evaluation["notes"]] == ["note: faults are injected into the link"]
    assert "timeout(p=0.1)" in evaluation["faults"]


def test_losses_are_warned_of_once_per_epoch(tmp_path):
    console = io.StringIO()
    settings = config(dropped_spikes=0.5, timeout=0.2)
    train(settings, tmp_path, "test", Progress(show=False, console=Console(file=console, width=200)))
    assert console.getvalue().count("the device dropped") == 1


def test_the_command_ends_with_status_3_and_names_its_continuation(tmp_path):
    options = ["experiment=digits", "trainer.epochs=1", "backend=emulator_faulty", "backend.faults={lost_samples: 0.9}"]
    process = call("hxtrain", *options, "hydra.run.dir=run", cwd=tmp_path)
    assert process.returncode == 3
    assert "of 25 trials did not arrive whole (trial" in process.stderr
    assert "or allow more repeats than backend.retries=5" in process.stderr
    assert "Continue with: hxtrain experiment=digits" in process.stderr
    assert (tmp_path / "run/checkpoint.pt").is_file()
    settings = (tmp_path / "run/config.yaml").read_text()
    assert "lost_samples: 0.9" in settings
    assert "late_samples: 0.01" in settings  # the preset's


def test_faults_in_the_configuration_are_checked():
    with pytest.raises(ValueError, match=r"backend\.faults: fault 'time_out' is not known; choose among timeout"):
        BackendConfig(faults={"time_out": 0.1})
    with pytest.raises(ValueError, match=r"backend\.faults: fault timeout: p=-1 must be in"):
        BackendConfig(faults={"timeout": -1})
    with pytest.raises(ValueError, match=r"backend\.faults: timeout cannot happen in software"):
        BackendConfig(SOFTWARE, faults={"timeout": 0.1, "partial_run": 0.0})
    assert "faults" not in replace(BackendConfig(), faults={"timeout": 0.0}).create(ChipConfig()).identity
