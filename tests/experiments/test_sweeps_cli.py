"""Sweeps through Hydra's launchers: equal to single runs, continued after an interruption, with a progress report."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hxtrain.experiments.sweeps import jobs, progress

SETTINGS = (
    "data=digits", "network.hidden=[20]", "network.init_gain=1.4", "trainer.train_samples=100",
    "trainer.test_samples=50", "trainer.epochs=1", "trainer.plots=false", "trainer.progress=false",
)  # fmt: skip
HXTRAIN = str(Path(sys.executable).with_name("hxtrain"))


def call(folder: Path, *words: str) -> str:
    process = subprocess.run([HXTRAIN, *words], cwd=folder, capture_output=True, text=True, check=False)
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


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_sweep_gives_what_single_runs_give(tmp_path: Path, launcher: str) -> None:
    (tmp_path / "losses.py").write_text(OWN_LOSS)
    words = ["loss=losses:Last", "loss.late=4", *SETTINGS]
    call(tmp_path, "--multirun", f"hydra/launcher={launcher}", "seed=3,4", *words, "hydra.sweep.dir=sweep")
    call(tmp_path, "seed=4", *words, "hydra.run.dir=alone")
    alone, swept = weights(tmp_path / "alone"), weights(tmp_path / "sweep/1")
    assert all(torch.equal(alone[name], swept[name]) for name in alone)
    assert (tmp_path / "sweep/0/result.json").exists()


def test_settings_of_a_cluster_compose(tmp_path: Path) -> None:
    output = call(tmp_path, "hydra/launcher=cluster", "hydra.launcher.partition=lab", "--cfg", "hydra")
    assert "submitit_launcher.SlurmLauncher" in output
    assert "partition: lab" in output


def test_a_sweep_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    words = [HXTRAIN, "--multirun", "seed=3,4,5", *SETTINGS, "trainer.epochs=150", "hydra.sweep.dir=sweep"]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.time() + 200
    while not (tmp_path / "sweep/1/checkpoint.pt").exists() and time.time() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    text = process.communicate()[0]
    assert process.returncode == 130, text
    assert "The same command continues the sweep, with hydra.sweep.dir=sweep" in text
    assert not (tmp_path / "sweep/2/result.json").exists()
    mtime = (tmp_path / "sweep/0/result.json").stat().st_mtime_ns
    text = call(tmp_path, *words[1:])
    assert (tmp_path / "sweep/0/result.json").stat().st_mtime_ns == mtime, "a finished run is not repeated"
    assert "0: finished before" in text
    assert "sweep: 3 of 3 runs done" in text
    call(tmp_path, "seed=4", *SETTINGS, "trainer.epochs=150", "hydra.run.dir=alone")
    alone, swept = weights(tmp_path / "alone"), weights(tmp_path / "sweep/1")
    assert all(torch.equal(alone[name], swept[name]) for name in alone)


def test_a_sweep_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    call(tmp_path, "--multirun", "seed=3", *SETTINGS, "hydra.sweep.dir=sweep")
    process = subprocess.run(
        [HXTRAIN, "--multirun", "seed=3", "encoder.tau=9e-6", *SETTINGS, "hydra.sweep.dir=sweep"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert process.returncode != 0
    assert "encoder.tau: checkpoint 8e-06, now 9e-06" in process.stdout + process.stderr


def test_a_swept_config_names_its_folders_and_all_below_are_evaluated(tmp_path: Path) -> None:
    call(tmp_path, "--multirun", "seed=3,4", "chip=W62F0", *SETTINGS, "hydra.sweep.dir=sweep")
    (tmp_path / "sweep/unfinished").mkdir()
    shutil.copy(tmp_path / "sweep/0/checkpoint.pt", tmp_path / "sweep/unfinished")
    evaluate = str(Path(sys.executable).with_name("hxtrain-evaluate"))
    words = [evaluate, "checkpoint=sweep", "own_chip=true", "steps=10", "hydra.run.dir=early"]
    for _ in range(2):
        process = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stdout + process.stderr
    assert "2 of 2: 1 " in process.stdout
    assert "sweep/unfinished is left out: the run is not finished" in process.stdout
    files = sorted((tmp_path / "early").rglob("evaluation.json"))
    evaluations = [json.loads(file.read_text()) for file in files]
    assert [evaluation["seed"] for evaluation in evaluations] == [3, 4]
    assert {evaluation["chip"] for evaluation in evaluations} == {"W62F0"}
    assert evaluations[0]["trained_settings"]["chip.name"] == "W62F0"
    selection = subprocess.run(
        [*words[:-1], "match=*0", "hydra.run.dir=some"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert selection.returncode == 0, selection.stdout + selection.stderr
    assert [file.parent.name for file in (tmp_path / "some").rglob("evaluation.json")] == ["0"]
    mismatch = subprocess.run(
        [*words, "match=none"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240
    )
    assert mismatch.returncode == 2
    assert "checkpoint=sweep is a folder without any finished run that matches 'none'" in mismatch.stderr
    process = subprocess.run([*words, "steps=9"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert "steps: checkpoint 10, now 9" in process.stderr
    file = tmp_path / "sweep/0/config.yaml"
    file.write_text(file.read_text().replace("name: W62F0", "name: W63F1"))
    words[-1] = "hydra.run.dir=other"
    process = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert "chip.name: checkpoint 'W62F0', now 'W63F1'" in process.stderr


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
    def start(*seeds: int) -> subprocess.Popen[str]:
        words = [HXTRAIN, "--multirun", f"seed={','.join(map(str, seeds))}", *SETTINGS]
        words += ["hydra.sweep.dir=sweep", "hydra.sweep.subdir=${hydra.job.override_dirname}"]
        return subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    sweeps = start(1), start(2, 3)
    texts = [sweep.communicate()[0] for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], texts
    assert "sweep: 1 of 1 runs done" in texts[0]
    assert "sweep: 2 of 2 runs done" in texts[1]
    assert len(list((tmp_path / "sweep").rglob("result.json"))) == 3
    assert not (tmp_path / "sweep/.sweeps").exists()
