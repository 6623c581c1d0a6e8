"""Fewer bits, no hidden traces and failed neurons on the command line (docs/resolution.md)."""

import json

import pytest
from test_cli import TINY, call


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resolution")
    options = ["network.weight_bits=4", "network.trace_bits=6", "network.traces=spikes_only"]
    done = call("hxtrain", *TINY, *options, "trainer.plots=false", "hydra.run.dir=run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def evaluate(folder, *options):
    fixed = ["checkpoint=run/checkpoint.pt", "test_samples=50", "hydra.run.dir=evaluated"]
    return call("hxtrain-evaluate", *fixed, *options, cwd=folder)


def test_a_run_says_what_it_used(trained):
    folder, text = trained
    assert "resolution of integer weights   4 bits + sign, 4.2 apart" in text
    settings = json.loads((folder / "run/result.json").read_text())["settings"]
    found = [settings[f"network.{name}"] for name in ("weight_bits", "trace_bits", "traces")]
    assert found == [4, 6, "spikes_only"]
    again = call("hxtrain", *TINY, "trainer.resume=true", "hydra.run.dir=run", cwd=folder)
    assert again.returncode == 2
    assert "network.weight_bits: checkpoint 4, now None" in again.stderr


def test_evaluation(trained):
    folder, _ = trained
    done = evaluate(folder, "weight_bits=3", "silenced=0.15", "silenced_seed=3")
    assert done.returncode == 0, done.stderr
    assert "3 bits + sign, 9 apart" in done.stdout
    found = json.loads((folder / "evaluated/evaluation.json").read_text())
    [(layer, count)] = found["silenced_neurons"].items()
    assert (found["weight_bits"], found["trace_bits"], found["silenced"], found["silenced_seed"]) == (3, 6, 0.15, 3)
    assert (layer, count) == ("layer0", 15)


REFUSALS = [
    (["weight_bits=7"], "weight_bits=7 has magnitudes up to 127"),
    (["backend=software"], "network.weight_bits=4 and network.trace_bits=6: in software (backend=software) weights"),
    (["silenced=2"], "silenced=2.0 must be a share"),
]


@pytest.mark.parametrize(("options", "text"), REFUSALS, ids=[text for _, text in REFUSALS])
def test_refusals(trained, options, text):
    done = evaluate(trained[0], *options)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_software_with_all_bits_and_options_without_effect(trained):
    folder, _ = trained
    done = evaluate(folder, "backend=software", "weight_bits=0", "trace_bits=0", "silenced_seed=3")
    assert done.returncode == 0, done.stderr
    assert "silenced_seed=3 has no effect: silenced=0" in done.stderr
    options = ["backend=software", "network.traces=spikes_only", "trainer.plots=false", "hydra.run.dir=software"]
    done = call("hxtrain", *TINY, *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "network.traces=spikes_only has no effect: membranes of software are the model's" in done.stderr
