"""`hxtrain-ann`, and `hxtrain` with its network as a teacher, from the command line."""

import json

from commands import call
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from test_cli import TINY

from hxtrain.ann.models import CNNConfig, MLPConfig
from hxtrain.commands.ann import AnnConfig
from hxtrain.experiments.schema import options, register

ANN = ["data=digits", "trainer.epochs=2", "trainer.batch_size=50", "trainer.progress=false"]


def settings(*overrides) -> AnnConfig:
    register()
    with initialize_config_module("hxtrain.experiments.conf", version_base="1.3"):
        return OmegaConf.to_object(compose("ann", overrides=list(overrides)))


def test_the_default_is_the_network_of_the_same_size():
    config = settings()
    assert (config.data.name, config.model, config.trainer.epochs) == ("mnist", MLPConfig([246]), 50)
    assert not config.augment.active


def test_experiments_compose():
    names = options("experiment/ann")
    assert names == ["digits", "fashion16_teacher", "mnist16_rotated", "mnist16_teacher"]
    configs = {name: settings(f"experiment=ann/{name}", "trainer.epochs=2") for name in names}
    assert [type(config.model) for config in configs.values()] == [MLPConfig, CNNConfig, MLPConfig, CNNConfig]
    assert all(config.trainer.epochs == 2 for config in configs.values())


def test_a_teacher_is_trained_and_teaches(tmp_path):
    process = call("hxtrain-ann", *ANN, "hydra.run.dir=teacher", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    result = json.loads((tmp_path / "teacher/result.json").read_text())
    assert result["command"] == "hxtrain-ann " + " ".join([*ANN, "hydra.run.dir=teacher"])
    assert f"test accuracy {result['test_accuracy']:.2%}" in process.stdout
    assert (tmp_path / "teacher/config.yaml").is_file()

    swept = call("hxtrain-ann", "--multirun", "seed=0,1", *ANN, "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert "sweep: 2 of 2 runs done" in swept.stdout, swept.stderr
    swept_result = json.loads((tmp_path / "sweep/0/result.json").read_text())
    assert swept_result["test_accuracy"] == result["test_accuracy"]

    for teacher in ("teacher/checkpoint.pt", "[teacher/checkpoint.pt,sweep/1/checkpoint.pt]"):
        words = [f"distillation.teacher={teacher}", "distillation.temperature=3", "trainer.plots=false"]
        student = call("hxtrain", *TINY, *words, f"hydra.run.dir=run{len(teacher)}", cwd=tmp_path)
        assert student.returncode == 0, student.stderr
        assert student.stdout.count("teacher MLP (") == 1 + teacher.count(",")
        assert f"test accuracy {result['test_accuracy']:.2%}" in student.stdout
