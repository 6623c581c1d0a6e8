"""Run directories: never shared by chance, never with two results, and untouched by refused commands."""

import json
import shutil
import subprocess

import pytest
from commands import SCRIPTS, call
from teams import call_at_once

TINY = [
    "experiment=digits", "backend=software", "network.hidden=[10]", "trainer.epochs=1", "trainer.train_samples=50",
    "trainer.test_samples=10", "trainer.plots=false",
]  # fmt: skip
EVALUATE = ["checkpoint=run/checkpoint.pt", "test_samples=10", "backend=software"]
STANDING = "hydra.run.dir='made/${now:%Y}'"
"""A name from a clock that stands still: it holds the year alone."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("folders")
    process = call("hxtrain", *TINY, "hydra.run.dir=run", cwd=place)
    assert process.returncode == 0, process.stderr
    return place


def content(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_runs_at_the_same_time_have_folders_of_their_own(folder):
    processes = call_at_once("hxtrain-evaluate", *EVALUATE, STANDING, cwd=folder, environments=[{}] * 3)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(list((folder / "made").rglob("evaluation.json"))) == 3


def test_a_second_result_in_a_folder_keeps_the_first(folder):
    for samples in (10, 9):
        process = call("hxtrain-evaluate", *EVALUATE, f"test_samples={samples}", "hydra.run.dir=twice", cwd=folder)
        assert process.returncode == 0, process.stderr
    assert "the previous one is evaluation-1.json now" in process.stderr
    saved = [json.loads((folder / "twice" / name).read_text()) for name in ("evaluation-1.json", "evaluation.json")]
    assert [evaluation["test_samples"] for evaluation in saved] == [10, 9]
    failed = call("hxtrain-evaluate", "checkpoint=none.pt", "hydra.run.dir=twice", cwd=folder)
    assert failed.returncode == 2
    assert json.loads((folder / "twice/evaluation.json").read_text()) == saved[1]


@pytest.mark.parametrize("change", ["seed=9", "trainer.initial=none.pt"])
def test_a_refused_resume_changes_nothing(folder, change):
    files = content(folder / "run")
    options = ["trainer.epochs=2", "trainer.resume=true", "hydra.run.dir=run", change]
    process = call("hxtrain", *TINY, *options, cwd=folder)
    assert process.returncode == 2, process.stderr
    assert content(folder / "run") == files


def test_fewer_epochs_than_are_done_are_refused(folder):
    call("hxtrain", *TINY, "trainer.epochs=3", "hydra.run.dir=three", cwd=folder)
    files = content(folder / "three")
    process = call("hxtrain", *TINY, "trainer.epochs=2", "trainer.resume=true", "hydra.run.dir=three", cwd=folder)
    assert process.returncode == 2
    assert "has done 3 epochs, epochs=2 is fewer; give at least 3" in process.stderr
    assert content(folder / "three") == files


@pytest.mark.parametrize("place", ["/proc/none/x", "file"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path, place):
    (tmp_path / "file").touch()
    process = call("hxtrain", *TINY, f"hydra.run.dir={place}", cwd=tmp_path)
    assert process.returncode == 2
    assert f"the run directory {place} cannot be made" in process.stderr
    assert "Traceback" not in process.stderr


def test_a_training_without_finite_weights_saves_none(tmp_path):
    options = ["trainer.epochs=2", "trainer.learning_rate=1e38", "trainer.checkpoint_steps=1", "hydra.run.dir=run"]
    process = call("hxtrain", *TINY, *options, cwd=tmp_path)
    assert process.returncode == 2
    assert "trainer.learning_rate" in process.stderr
    assert not (tmp_path / "run/result.json").exists()


def test_a_process_names_the_processes_for_which_it_waits(tmp_path):
    environment = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    assignments = [f"{key}={value}" for key, value in environment.items()]
    command = ["env", *assignments, SCRIPTS / "hxtrain", *TINY, "hydra.run.dir=run"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        line = next(line for line in process.stdout if "waits" in line)
    finally:
        process.kill()
        process.communicate()
    assert "process 0 waits for 2 processes at 127.0.0.1:0" in line
    assert "unset WORLD_SIZE" in line


def test_runs_of_a_sweep_with_equal_names_have_folders_of_their_own(folder):
    shutil.copytree(folder / "run", folder / "other", ignore=shutil.ignore_patterns(".lock"))
    sweep = ["checkpoint=run/checkpoint.pt,other/checkpoint.pt", *EVALUATE[1:], "hydra.sweep.dir=both"]
    for _ in range(2):
        process = call("hxtrain-evaluate", "--multirun", *sweep, cwd=folder)
        assert process.returncode == 0, process.stderr
        results = [json.loads(file.read_text()) for file in (folder / "both").rglob("evaluation*.json")]
        assert sorted(result["checkpoint"] for result in results) == ["other/checkpoint.pt", "run/checkpoint.pt"]
        assert "anew" not in process.stdout + process.stderr
