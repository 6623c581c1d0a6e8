"""An evaluation takes the device of the training, unless another one is named or settings might run foreign code."""

from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from test_training import digits, quiet

from hxtrain.commands.evaluate import EvaluateConfig, evaluate_checkpoint, with_device
from hxtrain.commands.train import run
from hxtrain.execution.config import BackendConfig, ChipConfig
from hxtrain.runs.checkpoint import CheckpointError

CHIP = ChipConfig("W62F0", "uncalibrated", seed=4)


def trained(folder: Path, backend: BackendConfig, chip: ChipConfig = CHIP) -> EvaluateConfig:
    config = replace(digits(1, train_samples=50, test_samples=20), backend=backend, chip=chip)
    run(config, folder, "test", quiet())
    return EvaluateConfig(str(folder / "checkpoint.pt"), own_device=None, test_samples=20)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> EvaluateConfig:
    return trained(tmp_path_factory.mktemp("emulated"), BackendConfig(settings={"substeps": 2}))


def edited(config: EvaluateConfig, folder: Path, **backend: object) -> EvaluateConfig:
    """Copy the files of a run with another `config.yaml`; return the evaluation of the copy."""
    source = Path(config.checkpoint).parent
    (folder / "checkpoint.pt").write_bytes((source / "checkpoint.pt").read_bytes())
    run_config = OmegaConf.load(source / "config.yaml")
    run_config.backend.update(backend)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(run_config))
    return replace(config, checkpoint=str(folder / "checkpoint.pt"))


def test_the_device_of_the_run_is_used_with_its_settings(emulated: EvaluateConfig, tmp_path: Path) -> None:
    config = with_device(emulated)
    assert (config.backend.name, config.backend.settings, config.chip) == ("emulator", {"substeps": 2}, CHIP)
    assert evaluate_checkpoint(emulated, tmp_path, "test", quiet())["chip"] == "W62F0"


def test_a_device_of_any_name_is_used(tmp_path: Path) -> None:
    config = trained(tmp_path, BackendConfig("reference"))
    assert evaluate_checkpoint(config, tmp_path, "test", quiet())["backend"] == "reference"


def test_another_device_can_be_named(emulated: EvaluateConfig) -> None:
    chosen = replace(emulated, own_device=False, backend=BackendConfig("reference"))
    assert with_device(chosen) == chosen


def test_a_run_in_software_is_evaluated_on_the_device_that_the_command_names(tmp_path: Path) -> None:
    config = trained(tmp_path, BackendConfig("software"))
    assert with_device(config).backend.name == "emulator"


def test_settings_that_name_files_code_or_addresses_are_taken_only_when_asked_for(
    emulated: EvaluateConfig, tmp_path: Path
) -> None:
    for settings in ({"hw_routing_func": "evil:route"}, {"calibration": "/tmp/x.pkl"}, {"address": "tcp://a:1"}):
        config = edited(emulated, tmp_path, name="brainscales2", settings=settings)
        with pytest.raises(CheckpointError, match=r"use them with own_device=true if you trust .*config.yaml"):
            with_device(config)


def test_a_device_of_other_settings_than_the_checkpoint_is_refused(emulated: EvaluateConfig, tmp_path: Path) -> None:
    config = edited(emulated, tmp_path, settings={"substeps": 8})
    with pytest.raises(CheckpointError, match=r"backend.settings.substeps: checkpoint 2, now 8"):
        with_device(config)


def test_a_run_without_its_settings_needs_a_name_when_its_device_is_asked_for(
    emulated: EvaluateConfig, tmp_path: Path
) -> None:
    config = edited(emulated, tmp_path)
    (tmp_path / "config.yaml").unlink()
    assert with_device(config).backend == BackendConfig()
    with pytest.raises(CheckpointError, match=r"own_device=true needs .*config.yaml, which is missing"):
        with_device(replace(config, own_device=True))
