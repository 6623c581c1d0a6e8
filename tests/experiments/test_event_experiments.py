"""`experiment=shd`, `shd_augmented` and `ssc` from files in the layout of the Heidelberg data sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import call

from hxtrain.backends import create_backend
from hxtrain.datasets.events import HeidelbergWriter
from hxtrain.execution import place
from hxtrain.experiments.sweeps import choice_on_test
from hxtrain.network import NetworkConfig

SHORT = ["backend=software", "network.hidden=[12]", "trainer.epochs=2", "trainer.batch_size=10", "trainer.plots=false"]


def write(path: Path, samples: int, classes: int, speakers: range) -> None:
    """Write spoken words of up to 1.4 s, one after the other by all speakers, whose units rise with the class."""
    rng = np.random.default_rng(samples)
    labels = np.arange(samples) % classes
    times = [np.sort(rng.uniform(0, 1.399, 300)) for _ in labels]
    units = [rng.integers(600 * label // classes, 100 + 600 * label // classes, 300) for label in labels]
    people = np.array([speakers[number % len(speakers)] for number in range(samples)])
    with HeidelbergWriter(path, [f"word {number}" for number in range(classes)]) as file:
        file.append(times, units, labels, people)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = tmp_path_factory.mktemp("files")
    for name, classes in (("shd", 20), ("ssc", 35)):
        for part, samples in (("train", 2 * classes), ("test", classes), ("valid", classes)):
            write(files / f"{name}_{part}.h5", samples, classes, range(4, 6) if part == "test" else range(6, 10))
    return files


@pytest.mark.parametrize(
    ("name", "words", "selected_on", "classes"),
    [
        ("shd", [], "validation: groups ", 20),
        (
            "shd_augmented",
            ["data.validation_random_groups=0", "data.validation_groups=[7]"],
            "validation: groups 7",
            20,
        ),
        ("ssc", ["data.validation=30"], "validation: 30 samples of the validation part", 35),
    ],
)
def test_it_runs_from_files(
    folder: Path, tmp_path: Path, name: str, words: list[str], selected_on: str, classes: int
) -> None:
    process = call(
        "hxtrain", f"experiment={name}", f"data.folder={folder}", *SHORT, *words, "hydra.run.dir=run", cwd=tmp_path
    )
    assert process.returncode == 0, process.stderr
    assert f"network 70-12-{classes} on {name[:3]} (700 units)" in process.stdout
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    settings = result["settings"]
    assert result["selected_on"].startswith(selected_on)
    assert (result["evaluated_on"], result["test_samples"]) == ("test", classes)
    assert result["retrained"] == (name != "ssc")
    assert (settings["encoder.first"], settings["encoder.stride"], settings["encoder.pooled"]) == (70, 9, False)
    assert settings["augment.channel_jitter"] == (20 if name == "shd_augmented" else 0)
    assert result["late_input_events_per_sample"] == 0, "1.4 s pass within the window"
    assert 25 < result["input_events_per_sample"] < 40, "a tenth of the events"
    evaluated = call("hxtrain evaluate", "checkpoint=run/checkpoint.pt", "backend=software", cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    assert f"test accuracy {result['test_accuracy']:.2%}" in evaluated.stdout
    if name == "shd":
        training = call(
            "hxtrain evaluate", "checkpoint=run/checkpoint.pt", "backend=software", "part=train", cwd=tmp_path
        )
        assert "train accuracy" in training.stdout
        assert "evaluation.json: " in training.stdout


@pytest.mark.parametrize(("classes", "circuits"), [(20, 412), (35, 442)])
def test_the_networks_fit_a_chip(classes: int, circuits: int) -> None:
    net = NetworkConfig(hidden=[186], recurrent=True, tau_mem=10e-6, tau_syn=5e-6, steps=412).build(70, classes, 0)
    plan = place(net, create_backend("emulator").capabilities, trial_time=0.8e-3)
    assert sum(population.size * population.merged for population in plan.circuit.populations) == circuits


def test_a_sweep_that_chooses_on_test_samples_says_so() -> None:
    assert choice_on_test(["replica=r0,r1", "seed=1,2", "trainer.epochs=3"]) == ""
    assert choice_on_test(["mask.fan_in=6,16", "mask.fan_in=choice(6)"]) == ""
    assert "runs differ in network.hidden, trainer.epochs and" in choice_on_test(
        ["seed=1,2", "trainer.epochs=3,4", "network.hidden=[1],[2]"]
    )
    assert choice_on_test(["trainer.epochs=3,4", "data.validation_groups=[3],[4]"]) == ""


def test_a_note_comes_with_such_a_sweep(tmp_path: Path) -> None:
    words = ["experiment=digits", "backend=software", "network.hidden=[5]", "trainer.train_samples=20"]
    words += ["trainer.test_samples=10", "trainer.epochs=1", "trainer.plots=false", "hydra.sweep.dir=sweep"]
    learning = call("hxtrain", "--multirun", "trainer.learning_rate=1e-3,2e-3", *words, cwd=tmp_path)
    assert "note: runs differ in trainer.learning_rate and are evaluated on test samples" in learning.stdout
    held_out = call(
        "hxtrain", "--multirun", "trainer.learning_rate=1e-3,2e-3", *words, "data.validation=20", cwd=tmp_path
    )
    assert "note: runs differ" not in held_out.stdout
