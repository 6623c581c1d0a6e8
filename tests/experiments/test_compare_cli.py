"""`hxtrain-compare`, called from the command line."""

import io
import json
from pathlib import Path

import pytest
from commands import call
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from rich.console import Console

from hxtrain.commands.compare import CompareConfig, compare_checkpoint
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run
from hxtrain.datasets import DataConfig
from hxtrain.execution.config import BackendConfig
from hxtrain.experiments.schema import register
from hxtrain.network import NetworkConfig
from hxtrain.runs.progress import Progress
from hxtrain.training.config import TrainerConfig


def settings(*overrides) -> CompareConfig:
    register()
    with initialize_config_module("hxtrain.experiments.conf", version_base="1.3"):
        return OmegaConf.to_object(compose("compare", overrides=["checkpoint=one.pt", *overrides]))


def quiet() -> Progress:
    return Progress(show=False, console=Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Train on digits in software for an epoch; return the path of the checkpoint."""
    folder = tmp_path_factory.mktemp("trained")
    config = RunConfig(
        backend=BackendConfig("software"),
        network=NetworkConfig(hidden=[60], init_gain=1.4),
        data=DataConfig("digits"),
        trainer=TrainerConfig(epochs=1, batch_size=50, progress=False, plots=False),
    )
    run(config, folder, "test", quiet())
    return folder / "checkpoint.pt"


def test_the_default_is_the_emulated_chip_against_the_reference():
    config = settings()
    assert (config.backend.name, config.chip.preset, config.other_backend.name) == (
        "emulator",
        "calibrated",
        "reference",
    )
    assert config.samples == 500


@pytest.mark.parametrize("backend", ["emulator", "reference", "software"])
def test_both_devices_have_the_same_options(backend):
    first, second = settings(f"backend={backend}"), settings(f"other_backend={backend}")
    assert first.backend == second.other_backend
    assert (first.other_backend.name, second.backend.name) == ("reference", "emulator")
    config = settings("chip=W62F0", "other_chip=W65F4", "other_chip.preset=uncalibrated", "tolerance.gain=0.2")
    assert (config.chip.name, config.other_chip.name, config.other_chip.preset) == ("W62F0", "W65F4", "uncalibrated")
    assert (config.tolerance.gain, config.tolerance.multiple) == (0.2, 3.0)


def test_a_comparison_leaves_numbers_and_a_figure(trained, tmp_path):
    options = "other_backend=emulator", "other_chip.preset=uncalibrated", "other_chip.seed=3", "samples=200"
    words = f"checkpoint={trained}", *options, "hydra.run.dir=out"
    process = call("hxtrain-compare", *words, cwd=tmp_path, columns=160)
    assert process.returncode == 0, process.stderr
    record = json.loads((tmp_path / "out/comparison.json").read_text())
    assert record["verdict"].startswith("layer0 is the first layer that disagrees (")
    for text in ("own gain", "cosine of the gradients", "input->layer0", "of 200 samples", record["verdict"][:80]):
        assert text in process.stdout
    assert record["first_disagreeing"] == "layer0"
    assert (record["first"]["preset"], record["second"]["preset"]) == ("calibrated", "uncalibrated")
    assert record["first"]["chip_hash"] != record["second"]["chip_hash"]
    assert (record["first"]["noise_seed"], record["second"]["noise_seed"], record["seed"]) == (0, 3, 0)
    assert record["trained_on"]["backend"] == "software"
    assert record["command"].startswith(f"hxtrain-compare checkpoint={trained} other_backend=emulator")
    assert record["versions"]["hxtrain"]
    assert record["layers"]["layer0"]["between"]["gain"] > 3 * record["layers"]["layer0"]["repeat"]["gain"]
    assert 0.5 < record["accuracies"][0] <= 1
    assert (tmp_path / "out/comparison.png").read_bytes().startswith(b"\x89PNG")


def test_mistakes_and_options_without_effect_are_named(tmp_path):
    process = call("hxtrain-compare", "checkpoint=nowhere.pt", "other_chip.seed=3", "hydra.run.dir=out", cwd=tmp_path)
    assert process.returncode == 2
    assert "other_chip.seed=3 has no effect: other_backend=reference has no chip individuals" in process.stderr
    assert "there is no checkpoint nowhere.pt" in process.stderr
    assert "Traceback" not in process.stderr


def test_the_twin_can_be_compared(trained, tmp_path):
    config = CompareConfig(str(trained), backend=BackendConfig("software"), samples=50)
    record = compare_checkpoint(config, tmp_path, "test", quiet())
    assert (record["first"]["backend"], record["second"]["backend"], record["repeated"]) == (
        "software",
        "reference",
        "second",
    )
    assert record["layers"]["layer0"]["responses"][0]["gain"] == pytest.approx(1, abs=1e-5)
    assert (record["first"]["clipped_weights"], list(record["second"]["clipped_weights"])) == (
        {},
        ["input->layer0", "layer0->layer1"],
    )


def test_numbers_of_samples_out_of_range_are_refused(trained, tmp_path):
    with pytest.raises(ValueError, match="samples=501 exceeds the 500 available samples"):
        compare_checkpoint(CompareConfig(str(trained), samples=501), tmp_path, "test", quiet())
    with pytest.raises(ValueError, match="samples=-1 must not be negative"):
        CompareConfig(samples=-1)
