"""Every experiment, sweep and report of the package composes, and its settings are accepted."""

import shlex
from importlib.resources import files
from itertools import product

import pytest
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from hxtrain.experiments.schema import options, register
from hxtrain.experiments.sweeps import jobs

register()
EPOCHS = {
    "digits": ("digits", 20),
    "fashion16": ("fashion", 30),
    "mnist16": ("mnist", 30),
    "mnist16_published": ("mnist", 100),
    "yin_yang": ("yin_yang", 120),
}
"""Data and number of epochs of the experiments that README names."""
VERBS = "train", "ann", "convert", "evaluate", "report"


@pytest.fixture(autouse=True)
def conf():
    with initialize_config_module("hxtrain.experiments.conf", version_base="1.3"):
        yield


NO_GROUPS = ["data.validation_random_groups=0"]
PAIRS = [
    *product(options("experiment"), ["calibrated"]),
    *product(["digits", "eventprop_yin_yang"], options("substrate")),
]
"""Each experiment with one substrate, and each substrate with two experiments."""


@pytest.mark.parametrize(("name", "substrate"), dict.fromkeys(PAIRS))
def test_experiments(name, substrate):
    config = OmegaConf.to_object(
        compose(
            "train", [f"experiment={name}", f"substrate={substrate}", "replica=r1", "data.validation=5", *NO_GROUPS]
        )
    )
    assert (config.seed, config.chip.name, config.chip.seed) == (1, "W62F0", 1)
    assert config.backend.name == ("software" if substrate == "software" else "emulator")
    training = (config.data.name, config.trainer.epochs)
    assert training == EPOCHS.get(name, training)


def sweep_params(name):
    file = files("hxtrain.experiments.conf") / "sweep" / f"{name}.yaml"
    return OmegaConf.create(file.read_text()).hydra.sweeper.params


@pytest.mark.parametrize("name", options("sweep"))
def test_sweeps(name):
    words = [f"{key}={value}" for key, value in sweep_params(name).items()]
    assert jobs(words) > 1
    first = [word.split(",")[0] for word in words]
    config = compose("train", [f"sweep={name}", *first], return_hydra_config=True)
    assert config.hydra.mode.name == "MULTIRUN"
    assert config.hydra.sweep.dir.startswith("results/")
    del config.hydra
    OmegaConf.to_object(config)


@pytest.mark.parametrize("name", options("report"))
def test_reports(name):
    config = OmegaConf.to_object(compose("report", [f"report={name}"]))
    assert config.name == name
    assert all(folder.startswith("results/") for folder in config.folders)
    for command in config.commands:
        program, *words = shlex.split(command)
        assert program == "hxtrain"
        verb = words.pop(0) if words[0].isalpha() else "train"
        assert verb in VERBS
        OverridesParser.create().parse_overrides([word for word in words if word != "--multirun"])
