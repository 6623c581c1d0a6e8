"""`experiment=yin_yang` from the command line: features, another code, on the emulated chip and on other devices."""

import json

import pytest
from commands import call
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from hxtrain.datasets.encoders import LatencyEncoder, LinearLatencyEncoder
from hxtrain.experiments.schema import register
from hxtrain.objectives import MeanOverTime

SHORT = ["experiment=yin_yang", "trainer.epochs=2", "trainer.test_samples=200", "hydra.run.dir=one"]


def compose_job(job, *overrides):
    register()
    with initialize_config_module("hxtrain.experiments.conf", version_base="1.3"):
        return OmegaConf.to_object(compose(job, overrides=list(overrides)))


@pytest.mark.parametrize("job", ["train", "transfer", "sensitivity"])
def test_every_job_takes_the_experiment(job):
    config = compose_job(job, "experiment=yin_yang", "encoder.jitter=1e-7")
    assert config.encoder == LinearLatencyEncoder(late=24e-6, bias=10e-6, repeats=5, jitter=1e-7)
    assert config.loss == MeanOverTime(readout_scale=60.0)
    assert (config.network.hidden, config.network.dt) == ([30], 1.7e-6)
    assert compose_job(job).encoder == LatencyEncoder()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("yin_yang")
    trained = call("hxtrain", *SHORT, cwd=place)
    assert trained.returncode == 0, trained.stderr
    assert "network 25-30-3 on yin_yang (4 features), backend emulator" in trained.stdout
    return place


def test_it_trains_on_the_emulated_chip(folder):
    result = json.loads((folder / "one/result.json").read_text())
    assert result["test_accuracy"] > 0.7  # a linear classifier: 0.64
    assert (result["data"], result["data_size"], result["train_samples"]) == ("yin_yang", 4, 5000)
    plots = {path.name for path in (folder / "one/plots").iterdir()}
    assert plots == {f"{name}.png" for name in ("learning_curves", "confusion", "samples", "weights", "plane")}


def test_it_is_resumed(folder):
    process = call("hxtrain", *SHORT, "trainer.resume=true", cwd=folder)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("options", [["chip.preset=uncalibrated"], ["backend=software"]])
def test_its_checkpoint_is_evaluated_on_other_devices(folder, options):
    process = call("hxtrain-evaluate", "checkpoint=one/checkpoint.pt", *options, "hydra.run.dir=two", cwd=folder)
    assert process.returncode == 0, process.stderr
    evaluation = json.loads((folder / "two/evaluation.json").read_text())
    assert (evaluation["data"], evaluation["test_samples"]) == ("yin_yang", 1000)
