"""Training runs on events that stay on disk: the same as in memory, and evaluated without naming the folder again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import call
from heidelberg_files import write

ROWS = 40
TINY = [
    "data=shd", "data.folder=files", "encoder=events", "encoder.speedup=1e5", "network.hidden=[5]", "network.steps=10",
    "trainer.epochs=1", "trainer.batch_size=10", "backend=software",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files of a data set."""
    place = tmp_path_factory.mktemp("events")
    (place / "files").mkdir()
    numbers = np.random.default_rng(0)
    for part in ("train", "test"):
        times = [np.sort(numbers.random(50)) for _ in range(ROWS)]
        units = [numbers.integers(0, 700, 50) for _ in range(ROWS)]
        labels = {"labels": np.arange(ROWS) % 3, "extra/speaker": np.arange(ROWS) // 10}
        write(place / "files" / f"shd_{part}.h5", times, units, **labels)
    return place


def test_events_on_disk_train_as_events_in_memory(folder: Path) -> None:
    results = {}
    for name, memory in (("memory", "4e9"), ("disk", "0")):
        process = call("hxtrain", *TINY, f"data.settings.memory={memory}", f"hydra.run.dir={name}", cwd=folder)
        assert process.returncode == 0, process.stderr
        results[name] = json.loads((folder / name / "result.json").read_text())
        assert (folder / name / "plots" / "samples.png").exists()
    for key in ("train_loss", "test_accuracy", "data_sha256", "input_events_per_sample"):
        assert results["disk"][key] == results["memory"][key], key
    process = call("hxtrain", "evaluate", "checkpoint=disk/checkpoint.pt", "backend=software", cwd=folder)
    assert process.returncode == 0, process.stderr
    assert f"test accuracy {results['disk']['test_accuracy']:.2%}" in process.stdout + process.stderr


def test_a_run_on_disk_is_resumed_in_memory(folder: Path) -> None:
    common = ["trainer.plots=false", "hydra.run.dir=resumed"]
    for options in (["data.settings.memory=0"], ["trainer.epochs=2", "trainer.resume=true"]):
        process = call("hxtrain", *TINY, *common, *options, cwd=folder)
        assert process.returncode == 0, process.stderr
    assert json.loads((folder / "resumed" / "result.json").read_text())["epochs"] == 2
