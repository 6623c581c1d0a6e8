"""`hxtrain convert`: files of a conversion, its evaluation, and training that goes on from it."""

import json

import pytest
import torch
from commands import call
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from hxtrain.commands.convert import complete_conversion
from hxtrain.commands.evaluate import load_trained
from hxtrain.experiments.schema import register
from hxtrain.runs.checkpoint import CheckpointError, load_checkpoint
from hxtrain.runs.progress import Progress

ANN = ["data=digits", "model.hidden=[20]", "trainer.epochs=4", "trainer.learning_rate=1e-2", "trainer.progress=false"]
QUICK = ["measured.gains=[2]", "measured.onsets=[0.5]", "measured.corrections=1", "measured.samples=60"]
SMALL = ["checkpoint=ann/checkpoint.pt", "backend=software", "test_samples=60", "table_samples=40"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("convert")
    trained = call("hxtrain ann", *ANN, "hydra.run.dir=ann", cwd=path)
    assert trained.returncode == 0, trained.stderr
    converted = call("hxtrain convert", *SMALL, *QUICK, "hydra.run.dir=run", cwd=path)
    assert converted.returncode == 0, converted.stderr
    (path / "output").write_text(converted.stdout)
    return path


def test_the_result_has_every_pass(folder):
    result = json.loads((folder / "run/result.json").read_text())
    names = [row["name"] for row in result["passes"]]
    assert names[0] == "original"
    assert names[-1] == "readout: affine map"
    output = (folder / "output").read_text()
    assert all(name in output for name in names)
    assert result["normalised_accuracy"] == result["passes"][names.index("on the device")]["accuracy"]
    assert result["test_accuracy"] > 0.6
    assert result["ann_sha256"]
    assert (folder / "run/weights.npz").is_file()


def test_the_checkpoint_is_an_ordinary_one(folder):
    result = json.loads((folder / "run/result.json").read_text())
    evaluated = call(
        "hxtrain evaluate",
        "checkpoint=run/checkpoint.pt",
        "backend=software",
        "test_samples=60",
        "hydra.run.dir=evaluation",
        cwd=folder,
    )
    assert evaluated.returncode == 0, evaluated.stderr
    evaluation = json.loads((folder / "evaluation/evaluation.json").read_text())
    assert evaluation["backend"] == "software"
    assert evaluation["test_accuracy"] == result["test_accuracy"]
    trained = load_trained(str(folder / "run/checkpoint.pt"))
    assert len(trained.loss.offsets) == 10
    assert trained.encoder.regular


def test_training_goes_on_from_the_converted_network(folder):
    words = ["run=run", "trainer.initial=run/checkpoint.pt", "trainer.epochs=1", "trainer.train_samples=100"]
    further = ["trainer.test_samples=60", "trainer.plots=false", "trainer.progress=false", "trainer.learning_rate=1e-6"]
    process = call("hxtrain", *words, *further, "hydra.run.dir=further", cwd=folder)
    assert process.returncode == 0, process.stderr
    start, end = (load_checkpoint(folder / name / "checkpoint.pt")["model"] for name in ("run", "further"))
    for name, weight in start.items():
        assert not torch.equal(weight, end[name])
        torch.testing.assert_close(end[name], weight, rtol=0, atol=1e-4)


def test_a_finished_conversion_of_a_sweep_is_not_repeated(folder):
    register()
    with initialize_config_module("hxtrain.experiments.conf", version_base="1.3"):
        config, changed = (
            OmegaConf.to_object(compose("convert", [*SMALL, *QUICK, *words])) for words in ([], ["measured.affine=2"])
        )
    result = complete_conversion(config, folder / "run", "", Progress(False))
    assert result == json.loads((folder / "run/result.json").read_text())
    with pytest.raises(CheckpointError, match=r"measured\.affine"):
        complete_conversion(changed, folder / "run", "", Progress(False))


def test_mistakes_name_the_remedy(folder):
    repetition = call("hxtrain convert", *SMALL, "hydra.run.dir=run", cwd=folder)
    assert repetition.returncode == 2
    assert "holds a run already" in repetition.stderr
    spiking = call("hxtrain convert", "checkpoint=run/checkpoint.pt", "hydra.run.dir=other", cwd=folder)
    assert spiking.returncode == 2
    assert "holds a spiking network" in spiking.stderr
    assert "then give checkpoint=DIR/checkpoint.pt" in spiking.stderr


@pytest.mark.parametrize(
    ("word", "text"),
    [("network.hidden=[20]", "are those of the artificial network"), ("encoder.regular=[1]", "give their number with")],
)
def test_what_the_conversion_chooses_cannot_be_set(tmp_path, word, text):
    register()
    with initialize_config_module("hxtrain.experiments.conf", version_base="1.3"):
        config = OmegaConf.to_object(compose("convert", ["checkpoint=none.pt", word]))
    with pytest.raises(ValueError, match=text):
        complete_conversion(config, tmp_path, "", Progress(False))
