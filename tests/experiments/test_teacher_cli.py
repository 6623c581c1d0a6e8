"""Named experiments that learn from a teacher start without preparation: the teacher is trained first, once."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from hxtrain.ann.teachers import load_ann
from hxtrain.commands.settings import RunConfig
from hxtrain.datasets import DataConfig
from hxtrain.experiments import teacher
from hxtrain.experiments.teacher import with_teacher
from hxtrain.objectives.distillation import Distillation
from hxtrain.runs.checkpoint import CheckpointError
from hxtrain.runs.progress import Progress

SMALL = ["trainer.epochs=1", "trainer.train_samples=100", "trainer.test_samples=50", "trainer.progress=false"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HXTRAIN_CACHE", str(tmp_path / "the cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "the cache"


def student(**data: object) -> RunConfig:
    return RunConfig(distillation=Distillation(experiment="ann/mnist16_teacher"), data=DataConfig(**data))


def test_the_teacher_is_trained_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    progress = Progress(False, Console(file=output, width=400))
    taught = with_teacher(student(validation=1000), progress, SMALL)
    (path,) = taught.distillation.paths
    assert Path(path).is_relative_to(cache / "teachers")
    assert load_ann(Path(path)).settings["data.validation"] == 1000  # the teacher holds out the same samples
    assert "hxtrain ann experiment=ann/mnist16_teacher data.validation=1000" in output.getvalue()
    monkeypatch.setattr(teacher, "_train", None)
    assert with_teacher(student(validation=1000), progress, SMALL) == taught


def test_a_failed_teacher_is_reported(cache: Path) -> None:
    with pytest.raises(CheckpointError, match="could not be trained"):
        with_teacher(student(), Progress(False, Console(file=io.StringIO())), ["trainer.epochs=0"])


def test_a_cache_that_cannot_be_written_is_reported(cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(ValueError, match="name a folder in HXTRAIN_CACHE"):
        with_teacher(student(), Progress(False, Console(file=io.StringIO())))


def test_a_teacher_named_by_its_path_is_left_alone(cache: Path) -> None:
    named = RunConfig(distillation=Distillation("mine.pt", experiment="ann/mnist16_teacher"))
    assert with_teacher(named, Progress(False)) is named
    assert not cache.exists()
