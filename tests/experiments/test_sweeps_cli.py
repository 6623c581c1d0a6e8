"""Sweeps through Hydra's launchers give what single runs give."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SETTINGS = (
    "data=digits", "network.hidden=[20]", "network.init_gain=1.4", "trainer.train_samples=100",
    "trainer.test_samples=50", "trainer.epochs=1", "trainer.plots=false", "trainer.progress=false",
)  # fmt: skip
HXTRAIN = str(Path(sys.executable).with_name("hxtrain"))


def call(folder: Path, *words: str) -> str:
    done = subprocess.run([HXTRAIN, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(folder / "checkpoint.pt")["model"]
    return found


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_sweep_gives_what_single_runs_give(tmp_path: Path, launcher: str) -> None:
    call(tmp_path, "--multirun", f"hydra/launcher={launcher}", "seed=3,4", *SETTINGS, "hydra.sweep.dir=sweep")
    call(tmp_path, "seed=4", *SETTINGS, "hydra.run.dir=alone")
    alone, swept = weights(tmp_path / "alone"), weights(tmp_path / "sweep/1")
    assert all(torch.equal(alone[name], swept[name]) for name in alone)
    assert (tmp_path / "sweep/0/result.json").exists()


def test_settings_of_a_cluster_compose(tmp_path: Path) -> None:
    found = call(tmp_path, "hydra/launcher=cluster", "hydra.launcher.partition=lab", "--cfg", "hydra")
    assert "submitit_launcher.SlurmLauncher" in found
    assert "partition: lab" in found
