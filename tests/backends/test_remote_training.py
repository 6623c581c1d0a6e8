"""Training on a chip behind a server ends with the same bits as on one in the process."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from remote_bench import PATIENT, serving
from rich.console import Console

from hxtrain.backends import create_backend
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run
from hxtrain.datasets import DataConfig
from hxtrain.execution.config import BackendConfig, ChipConfig
from hxtrain.network import NetworkConfig
from hxtrain.runs.checkpoint import CheckpointError
from hxtrain.runs.progress import Progress
from hxtrain.training.config import TrainerConfig

STEPS, BATCH = 10, 50
UNCALIBRATED = ChipConfig(preset="uncalibrated")


def train(folder: Path, backend: BackendConfig, chip: ChipConfig = UNCALIBRATED, **trainer: Any) -> dict[str, Any]:
    sizes = {"batch_size": BATCH, "train_samples": STEPS * BATCH, "test_samples": 60}
    config = RunConfig(
        backend=backend,
        chip=chip,
        network=NetworkConfig(hidden=[60], init_gain=1.4),
        data=DataConfig("digits"),
        trainer=TrainerConfig(**{"epochs": 1, "progress": False, "plots": False, **sizes, **trainer}),
    )
    return run(config, folder, "test", Progress(show=False, console=Console(file=io.StringIO())))


def remote(address: str) -> BackendConfig:
    return BackendConfig("remote", {"address": address, **PATIENT})


def test_training_over_loopback_is_bit_equal(tmp_path: Path) -> None:
    local = train(tmp_path / "here", BackendConfig())
    with serving(create_backend("emulator", preset="uncalibrated")) as server:
        served = train(tmp_path / "there", remote(server.address))
    first, second = (torch.load(tmp_path / name / "checkpoint.pt")["model"] for name in ("here", "there"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    weights, arrived = (np.load(tmp_path / name / "weights.npz") for name in ("here", "there"))
    assert all(np.array_equal(weights[name], arrived[name]) for name in weights.files)
    for key in ("test_accuracy", "hidden_spikes_per_sample", "chip", "chip_hash", "backend"):
        assert local[key] == served[key]
    assert served["address"] == server.address


def test_a_run_may_be_resumed_at_another_address_of_the_same_chip_only(tmp_path: Path) -> None:
    for chip in ("W66F3", "W66F3", "W62F0"):
        with serving(create_backend("emulator", preset="uncalibrated", chip=chip)) as server:
            epochs = 2 if (tmp_path / "checkpoint.pt").exists() else 1
            if chip == "W66F3":
                train(tmp_path, remote(server.address), epochs=epochs, resume=epochs == 2)
                continue
            with pytest.raises(CheckpointError, match="chip"):
                train(tmp_path, remote(server.address), epochs=3, resume=True)
