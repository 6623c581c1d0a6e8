"""Transfer matrix and sensitivity: the devices of the trainings, and no repetition of finished parts."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from hxtrain.commands.sensitivity import SensitivityConfig, sensitivity, sensitivity_rows
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run
from hxtrain.commands.transfer import POPULATION, TransferConfig, transfer, transfer_rows
from hxtrain.datasets import DataConfig
from hxtrain.execution.config import BackendConfig, ChipConfig
from hxtrain.network import NetworkConfig
from hxtrain.runs.checkpoint import CheckpointError
from hxtrain.runs.progress import Progress
from hxtrain.training.config import TrainerConfig

NETWORK = NetworkConfig(hidden=[40], init_gain=1.4)
TRAINER = TrainerConfig(
    epochs=5, batch_size=50, learning_rate_decay=1.0, progress=False, plots=False, train_samples=600, test_samples=200
)
DIGITS = DataConfig("digits")


def test_a_matrix_of_two_chips_is_not_repeated(tmp_path, monkeypatch):
    config = TransferConfig(
        network=NETWORK, trainer=TRAINER, data=DIGITS, chip=ChipConfig(preset="uncalibrated"), chips=["A1", "B2"]
    )
    results = transfer(config, tmp_path, "hxtrain-transfer", Progress(False))
    assert list(results["accuracy"]) == ["A1", "B2", POPULATION, "software"]
    assert all(list(row) == ["A1", "B2"] for row in results["accuracy"].values())
    assert results["chips"]["A1"] != results["chips"]["B2"]
    # A network is better on the chip of its training than on the other one.
    assert results["summary"]["own_chip"] > results["summary"]["other_chip"] + 0.1
    assert results["summary"][POPULATION] > results["summary"]["other_chip"] + 0.1
    assert (tmp_path / "transfer.png").stat().st_size > 5000
    population = json.loads((tmp_path / "trained" / POPULATION / "result.json").read_text())
    assert population["chip"] == "A1+B2"
    assert len(transfer_rows(results["accuracy"])) == 4

    def fail(*_):
        raise AssertionError("a finished part was done again")

    monkeypatch.setattr(
        sys.modules["hxtrain.commands.train"], "run", fail
    )  # its package exports a function of this name
    monkeypatch.setattr("hxtrain.commands.evaluations.evaluate_checkpoint", fail)
    repeat = transfer(config, tmp_path, "again", Progress(False))
    assert repeat["accuracy"] == results["accuracy"]


def test_a_population_is_trained_with_every_trial_on_a_random_chip(tmp_path):
    backend = BackendConfig().create(ChipConfig("A1+B2", "uncalibrated"))
    assert backend is not None
    drawn = backend.emulated.chip_of(np.arange(4000, dtype=np.uint64))
    assert 0.46 < drawn.mean() < 0.54
    assert np.array_equal(drawn[100:200], backend.emulated.chip_of(np.arange(100, 200, dtype=np.uint64)))


@pytest.mark.parametrize("chips", [[], ["A"], ["A", "A"]])
def test_too_few_chips_are_refused(chips):
    with pytest.raises(ValueError, match="chips="):
        TransferConfig(chips=chips)


def test_devices_without_individuals_are_refused(tmp_path):
    config = TransferConfig(backend=BackendConfig("reference"), chips=["A", "B"])
    with pytest.raises(ValueError, match="backend=reference has no chip individuals"):
        transfer(config, tmp_path, "", Progress(False))


def test_sensitivity_separates_costly_from_harmless_imperfections(tmp_path):
    config = SensitivityConfig(
        network=NETWORK,
        trainer=replace(TRAINER, epochs=4),
        data=DIGITS,
        imperfections=["leak", "spike_jitter"],
        presets=["uncalibrated"],
        tune_epochs=2,
    )
    results = sensitivity(config, tmp_path, "hxtrain-sensitivity", Progress(False))
    cost = {name: results["accuracy"]["uncalibrated"][name] for name in ("none", "leak", "spike_jitter", "all")}
    # Offsets of a quarter of the distance between rest and threshold hurt; 60 ns of jitter do not.
    assert cost["leak"]["deployed"] < cost["none"]["deployed"] - 0.05
    assert abs(cost["spike_jitter"]["deployed"] - cost["none"]["deployed"]) < 0.04
    assert cost["leak"]["in_the_loop"] > cost["leak"]["deployed"] + 0.03
    assert len(sensitivity_rows(results["accuracy"])) == 4


def test_a_run_starts_from_the_weights_of_a_checkpoint(tmp_path):
    config = RunConfig(network=NETWORK, trainer=TRAINER, data=DIGITS, backend=BackendConfig("software"))
    first = run(config, tmp_path / "first", progress=Progress(False))
    tuned = replace(TRAINER, epochs=1, learning_rate=1e-9, initial=str(tmp_path / "first/checkpoint.pt"))
    second = run(replace(config, trainer=tuned), tmp_path / "second", progress=Progress(False))
    assert second["test_accuracy"] == first["test_accuracy"]
    mismatch = replace(config, trainer=tuned, network=replace(NETWORK, hidden=[30]))
    with pytest.raises(CheckpointError, match=r"holds weights .* use the same network settings"):
        run(mismatch, tmp_path / "third", progress=Progress(False))
