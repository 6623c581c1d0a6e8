"""The console scripts, called from the command line."""

import io
import json
import logging

import pytest
from commands import call, launch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from hxtrain.commands.settings import RunConfig
from hxtrain.experiments.schema import register

TINY = ["experiment=digits", "trainer.epochs=1", "trainer.train_samples=200", "trainer.test_samples=50"]


class Closing(logging.StreamHandler):
    """Closes its stream with itself, as the handler of absl does."""

    def close(self):
        self.stream.close()
        super().close()


LIBRARY = Closing(io.StringIO())
"""Handler that is there before a test begins."""


def test_a_command_in_the_process_of_the_tests_leaves_handlers_of_libraries_open(tmp_path):
    assert call("hxtrain", "network.hidden=[0]", cwd=tmp_path).returncode == 2
    assert not LIBRARY.stream.closed


def settings(*overrides) -> RunConfig:
    register()
    with initialize_config_module("hxtrain.experiments.conf", version_base="1.3"):
        return OmegaConf.to_object(compose("train", overrides=list(overrides)))


def test_the_default_is_the_main_job():
    config = settings()
    assert isinstance(config, RunConfig)
    assert (config.data.name, config.backend.name, config.chip.preset) == ("mnist", "emulator", "calibrated")
    assert config.network.hidden == [246]
    assert {name: type(r).__name__ for name, r in config.regularizer.items()} == {
        "burst": "Burst",
        "weight_decay": "WeightDecay",
    }


@pytest.mark.parametrize(("backend", "chip"), [("emulator", "W66F3"), ("reference", "W62F0"), ("software", "W67F5")])
def test_every_group_composes(backend, chip):
    config = settings(
        f"backend={backend}",
        f"chip={chip}",
        "loss=mean_over_time",
        "regularizer=[upper_activity,readout_amplitude]",
    )
    assert (config.backend.name, config.chip.name, type(config.loss).__name__) == (
        backend,
        chip,
        "MeanOverTime",
    )
    assert list(config.regularizer) == ["upper_activity", "readout_amplitude"]


def test_train_evaluate_on_other_devices_and_resume(tmp_path):
    """The installed scripts run in processes of their own here; further devices in this one."""
    trained = launch("hxtrain", *TINY, "hydra.run.dir=one", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "placement" in trained.stdout
    assert "neuron circuits" in trained.stdout
    result = json.loads((tmp_path / "one/result.json").read_text())
    assert (result["epochs"], result["data"]) == (1, "digits")
    assert result["command"] == "hxtrain " + " ".join([*TINY, "hydra.run.dir=one"])
    assert not (tmp_path / "one/.hydra").exists()
    assert (tmp_path / "one/plots/samples.png").is_file()

    second = call("hxtrain", *TINY, "hydra.run.dir=one", cwd=tmp_path)
    assert second.returncode == 2
    assert "holds a run already; continue it with trainer.resume=true" in second.stderr
    assert "Traceback" not in second.stderr

    evaluate = ["hxtrain-evaluate", "checkpoint=one/checkpoint.pt", "test_samples=50", "hydra.run.dir=two"]
    for run, options in (
        (launch, ["chip.preset=uncalibrated"]),
        (call, ["backend=software"]),
        (call, ["backend=reference"]),
    ):
        evaluated = run(*evaluate, *options, cwd=tmp_path)
        assert evaluated.returncode == 0, evaluated.stderr
        evaluation = json.loads((tmp_path / "two/evaluation.json").read_text())
        assert evaluation["trained_on"]["chip_hash"] == result["chip_hash"]
        assert evaluation["test_samples"] == 50
        if options != ["backend=software"]:
            assert evaluation["chip_hash"] != result["chip_hash"]


REFUSALS = [
    (["backend.settings.substeps=2.5"], "substeps=2.5 must be a whole number"),
    (["backend.name=loihi"], "backend='loihi' is not registered; known: brainscales2, emulator, reference"),
    (["chip.preset=perfect"], "preset='perfect' is not known; choose one of ideal, calibrated, uncalibrated (on the"),
    (["network.hidden=[500]", "backend.max_runs=1"], "(layer0 500 x 1, layer1 10 x 4) exceed 512 by 28"),
    (["data.folder=/nowhere", "data=mnist"], "/nowhere"),
    (["trainer.resume=true"], "holds no checkpoint.pt"),
]
"""Settings that are refused once device, data or run directory are opened; `mistakes_table` has the others."""


@pytest.mark.parametrize(("options", "text"), REFUSALS, ids=[" ".join(r[0]) for r in REFUSALS])
def test_mistakes_end_with_a_text_that_names_them(tmp_path, options, text):
    process = call("hxtrain", *TINY, *options, "hydra.run.dir=run", cwd=tmp_path)
    assert process.returncode != 0
    assert text in process.stderr
    assert "Traceback" not in process.stderr


def test_options_without_effect_warn(tmp_path):
    process = call("hxtrain", *TINY, "backend=software", "chip.preset=uncalibrated", "hydra.run.dir=run", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "chip.preset=uncalibrated has no effect: backend=software has no chip individuals" in process.stderr


def test_info(tmp_path):
    process = call("hxtrain-info", "--json", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    info = json.loads(process.stdout)
    assert set(info["backends"]) >= {"emulator", "reference"}
    assert info["backends"]["emulator"]["capabilities"]["neuron_circuits"] == 512
    assert len({chip["chip_hash"] for chip in info["chips"]}) == 12  # six chips, calibrated and not
    assert "neuron_circuits" in call("hxtrain-info", cwd=tmp_path).stdout
