"""Sweeps through Hydra's launchers: equal to single runs, continued after an interruption, with a progress report."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from commands import SCRIPTS, call, launch
from teams import call_at_once

from hxtrain.experiments.sweeps import jobs, progress

SETTINGS = (
    "data=digits", "network.hidden=[20]", "network.init_gain=1.4", "trainer.train_samples=100",
    "trainer.test_samples=50", "trainer.epochs=1", "trainer.plots=false", "trainer.progress=false",
)  # fmt: skip
SWEEP = ("--multirun", *SETTINGS, "hydra.sweep.dir=sweep")


def output(process: subprocess.CompletedProcess[str]) -> str:
    """Return the output of a command that has succeeded."""
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = torch.load(folder / "checkpoint.pt")["model"]
    return model


OWN_LOSS = """
from dataclasses import dataclass

from hxtrain.objectives import CrossEntropy


@dataclass
class Last(CrossEntropy):
    late: int = 1

    def scores(self, readout):
        return readout[-self.late:].mean(0)
"""


def assert_equal_weights(first: Path, second: Path) -> None:
    alone, swept = weights(first), weights(second)
    assert all(torch.equal(alone[name], swept[name]) for name in alone)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run `alone` of seed 4 and a sweep of seeds 3 and 4, both of this process."""
    place = tmp_path_factory.mktemp("sweeps")
    output(call("hxtrain", "seed=4", *SETTINGS, "hydra.run.dir=alone", cwd=place))
    output(call("hxtrain", *SWEEP, "seed=3,4", "chip=W62F0", cwd=place))
    return place


@pytest.mark.parametrize(("launcher", "seeds"), [("joblib", "3,4"), ("submitit_local", "4")])
def test_a_sweep_gives_what_single_runs_give(tmp_path: Path, launcher: str, seeds: str) -> None:
    """The loss is of a module in the current folder, which the launcher's processes import, too."""
    (tmp_path / "losses.py").write_text(OWN_LOSS)
    words = "loss=losses:Last", "loss.late=4"
    output(launch("hxtrain", *SWEEP, *words, f"hydra/launcher={launcher}", f"seed={seeds}", cwd=tmp_path))
    output(call("hxtrain", "seed=4", *SETTINGS, *words, "hydra.run.dir=alone", cwd=tmp_path))
    last = seeds.count(",")
    assert_equal_weights(tmp_path / "alone", tmp_path / f"sweep/{last}")
    assert len(list(tmp_path.glob("sweep/*/result.json"))) == last + 1


def test_settings_of_a_cluster_compose(tmp_path: Path) -> None:
    words = "hydra/launcher=cluster", "hydra.launcher.partition=lab", "--cfg", "hydra"
    text = output(call("hxtrain", *words, cwd=tmp_path))
    assert "submitit_launcher.SlurmLauncher" in text
    assert "partition: lab" in text


def test_a_sweep_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    words = [*SWEEP, "seed=4", "trainer.epochs=1,100,2"]  # the second is long enough to be interrupted
    process = start(tmp_path, *words)
    deadline = time.time() + 200
    while not (tmp_path / "sweep/1/checkpoint.pt").exists() and time.time() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    text = process.communicate()[0]
    assert process.returncode == 130, text
    assert "The same command continues the sweep, with hydra.sweep.dir=sweep" in text
    assert not (tmp_path / "sweep/2/result.json").exists()
    mtime = (tmp_path / "sweep/0/result.json").stat().st_mtime_ns
    text = output(call("hxtrain", *words, cwd=tmp_path))
    assert (tmp_path / "sweep/0/result.json").stat().st_mtime_ns == mtime, "a finished run is not repeated"
    assert "0: finished before" in text
    assert "sweep: 3 of 3 runs done" in text
    output(call("hxtrain", "seed=4", *SETTINGS, "trainer.epochs=100", "hydra.run.dir=alone", cwd=tmp_path))
    assert_equal_weights(tmp_path / "alone", tmp_path / "sweep/1")


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [SCRIPTS / "hxtrain", *words]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_sweep_folder_of_other_settings_is_refused(folder: Path) -> None:
    process = call("hxtrain", *SWEEP, "seed=3", "chip=W62F0", "encoder.tau=9e-6", cwd=folder)
    assert process.returncode != 0
    assert "encoder.tau: checkpoint 8e-06, now 9e-06" in process.stdout + process.stderr


def test_a_swept_config_names_its_folders_and_all_below_are_evaluated(folder: Path) -> None:
    (folder / "sweep/unfinished").mkdir()
    shutil.copy(folder / "sweep/0/checkpoint.pt", folder / "sweep/unfinished")

    def evaluate(*words: str) -> subprocess.CompletedProcess[str]:
        return call("hxtrain-evaluate", "checkpoint=sweep", "own_chip=true", *words, cwd=folder)

    for _ in range(2):
        text = output(evaluate("steps=10", "hydra.run.dir=early"))
    assert "2 of 2: 1 " in text
    assert "sweep/unfinished is left out: the run is not finished" in text
    files = sorted((folder / "early").rglob("evaluation.json"))
    evaluations = [json.loads(file.read_text()) for file in files]
    assert [evaluation["seed"] for evaluation in evaluations] == [3, 4]
    assert {evaluation["chip"] for evaluation in evaluations} == {"W62F0"}
    assert evaluations[0]["trained_settings"]["chip.name"] == "W62F0"
    output(evaluate("steps=10", "match=*0", "hydra.run.dir=some"))
    assert [file.parent.name for file in (folder / "some").rglob("evaluation.json")] == ["0"]
    assert_refused(evaluate("match=none", "hydra.run.dir=early"), "without any finished run that matches 'none'")
    assert_refused(evaluate("steps=9", "hydra.run.dir=early"), "steps: checkpoint 10, now 9")
    file = folder / "sweep/0/config.yaml"
    file.write_text(file.read_text().replace("name: W62F0", "name: W63F1"))
    assert_refused(evaluate("steps=10", "hydra.run.dir=other"), "chip.name: checkpoint 'W62F0', now 'W63F1'")


def assert_refused(process: subprocess.CompletedProcess[str], text: str) -> None:
    assert process.returncode == 2
    assert text in process.stderr


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["seed=1"], 1),
        (["seed=1,2", "chip=A,B,C"], 6),
        (["seed=range(4)", "seed=1,2"], 2),
        (["regularizer.burst.strength=0,1e-3", "network.hidden=[3]"], 2),
    ],
)
def test_jobs_of_a_sweep_are_counted(words: list[str], count: int) -> None:
    assert jobs(words) == count


def test_progress_tells_the_remaining_time() -> None:
    state = {"jobs": 10, "begin": 0.0}
    assert progress(state, 4, 2, 120.0) == "sweep: 4 of 10 runs done, about 6 min left"
    assert progress(state, 2, 0, 120.0) == "sweep: 2 of 10 runs done"
    assert progress(state, 10, 10, 120.0) == "sweep: 10 of 10 runs done"


def test_two_sweeps_in_one_folder_count_their_own_jobs(tmp_path: Path) -> None:
    name = "hydra.sweep.subdir=${hydra.job.override_dirname}"
    variants = ["seed=1"], ["seed=2,3"]
    sweeps = call_at_once("hxtrain", *SWEEP, name, cwd=tmp_path, variants=variants)
    texts = [sweep.stdout for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], texts
    assert "sweep: 1 of 1 runs done" in texts[0]
    assert "sweep: 2 of 2 runs done" in texts[1]
    assert len(list((tmp_path / "sweep").rglob("result.json"))) == 3
    assert not (tmp_path / "sweep/.sweeps").exists()


def test_a_dry_run_lists_the_runs_with_their_state(folder: Path) -> None:
    words = [*SWEEP, "seed=3,4,5", "chip=W62F0"]
    text = output(call("hxtrain", *words, "sweep.dry_run=true", cwd=folder))
    lines = [line.split() for line in text.splitlines()]
    assert [line[:3] for line in lines[:3]] == [
        ["0", "finished", "seed=3"],
        ["1", "finished", "seed=4"],
        ["2", "new", "seed=5"],
    ]
    assert "sweep: 3 runs: 2 finished, 1 new; sweep.dry_run=true, nothing was started" in text
    assert not (folder / "sweep/2").exists()
    output(call("hxtrain", *words, "sweep.dry_run=true", "hydra.sweep.dir=new/deep", cwd=folder))
    assert not (folder / "new").exists()
    process = call("hxtrain", *words, "encoder.tau=9e-6", "sweep.dry_run=true", cwd=folder)
    assert process.returncode == 2
    assert "refused" in process.stdout
    assert "encoder.tau: checkpoint 8e-06, now 9e-06" in process.stdout


@pytest.mark.parametrize(("mode", "results"), [("stop", []), ("continue", ["1", "2"])])
def test_an_error_ends_a_sweep_or_not(tmp_path: Path, mode: str, results: list[str]) -> None:
    """The first of three runs fails."""
    words = ["--multirun", *SETTINGS, "hydra.sweep.dir=sweep", "seed=1", f"sweep.on_error={mode}"]
    process = call("hxtrain", *words, "trainer.train_samples=999999,50,60", cwd=tmp_path)
    assert process.returncode == 2
    assert "sweep: 0 failed: ValueError: trainer.train_samples=999999 exceeds" in process.stdout
    assert [place.parent.name for place in sorted((tmp_path / "sweep").glob("*/result.json"))] == results
    assert ("sweep: 2 runs were not begun" in process.stdout) == (mode == "stop")
    assert not (tmp_path / "sweep/.sweeps").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["hxtrain", "sweep.dry_run=true"], "sweep.dry_run=true is for sweeps: add --multirun"),
        (["hxtrain", "-m", "sweep.dry_run=perhaps"], "sweep.dry_run=perhaps: choose one of true, false"),
        (["hxtrain", "-m", "sweep.dry=true"], "choose among sweep.dry_run, sweep.on_error"),
        (["hxtrain fit", "-m", "sweep.on_error=stop"], "sweep.on_error is for the sweeps of hxtrain, hxtrain ann"),
    ],
)
def test_settings_of_sweeps_are_checked(tmp_path: Path, words: list[str], text: str) -> None:
    process = call(*words, cwd=tmp_path)
    assert process.returncode == 2
    assert text in process.stderr
