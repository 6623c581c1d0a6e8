"""Fewer bits, no hidden traces and failed neurons on the command line (docs/resolution.md)."""

import json

import pytest
from commands import call
from test_cli import TINY


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resolution")
    options = ["network.weight_bits=4", "network.trace_bits=6", "network.traces=spikes_only"]
    process = call("hxtrain", *TINY, *options, "trainer.plots=false", "hydra.run.dir=run", cwd=folder)
    assert process.returncode == 0, process.stderr
    return folder, process.stdout


def evaluate(folder, *options):
    fixed = ["checkpoint=run/checkpoint.pt", "test_samples=50", "hydra.run.dir=evaluated"]
    return call("hxtrain-evaluate", *fixed, *options, cwd=folder)


def test_a_run_reports_its_resolution(trained):
    folder, text = trained
    assert "resolution of integer weights   4 bits + sign, 4.2 apart" in text
    settings = json.loads((folder / "run/result.json").read_text())["settings"]
    values = [settings[f"network.{name}"] for name in ("weight_bits", "trace_bits", "traces")]
    assert values == [4, 6, "spikes_only"]
    resumed = call("hxtrain", *TINY, "trainer.resume=true", "hydra.run.dir=run", cwd=folder)
    assert resumed.returncode == 2
    assert "network.weight_bits: checkpoint 4, now None" in resumed.stderr


def test_evaluation(trained):
    folder, _ = trained
    process = evaluate(folder, "weight_bits=3", "silenced=0.15", "silenced_seed=3")
    assert process.returncode == 0, process.stderr
    assert "3 bits + sign, 9 apart" in process.stdout
    evaluation = json.loads((folder / "evaluated/evaluation.json").read_text())
    [(layer, count)] = evaluation["silenced_neurons"].items()
    assert (
        evaluation["weight_bits"],
        evaluation["trace_bits"],
        evaluation["silenced"],
        evaluation["silenced_seed"],
    ) == (3, 6, 0.15, 3)
    assert (layer, count) == ("layer0", 15)


def test_software_with_all_bits_and_options_without_effect(trained):
    folder, _ = trained
    process = evaluate(folder, "backend=software", "weight_bits=0", "trace_bits=0", "silenced_seed=3")
    assert process.returncode == 0, process.stderr
    assert "silenced_seed=3 has no effect: silenced=0" in process.stderr
    options = ["backend=software", "network.traces=spikes_only", "trainer.plots=false", "hydra.run.dir=software"]
    process = call("hxtrain", *TINY, *options, cwd=folder)
    assert process.returncode == 0, process.stderr
    assert "network.traces=spikes_only has no effect: membranes of software are the model's" in process.stderr
