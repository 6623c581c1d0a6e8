"""A training run of commit a174854 is read and continued.

`data/run_a174854` is `hxtrain SETTINGS trainer.epochs=1` of that commit; `continued.jsonl` has its record of a
second epoch, which was resumed there, too.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

import hxtrain as hx
from hxtrain.experiments.train import main

SETTINGS = [
    "experiment=digits",
    "network.hidden=[20]",
    "network.init_gain=3",
    "network.init_mean=0.02",
    "trainer.train_samples=300",
    "trainer.test_samples=100",
    "trainer.batch_size=20",
    "trainer.plots=false",
    "backend=emulator",
    "chip=W66F3",
]
OLD = Path(__file__).parent / "data" / "run_a174854"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def test_a_checkpoint_of_an_old_commit_is_loaded(folder: Path) -> None:
    trained = hx.load(folder)
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
    assert [layer.neurons.size for layer in trained.net.layers] == [20, 10]
    assert all(torch.equal(value, saved[name]) for name, value in trained.net.state_dict().items())


def test_a_run_of_an_old_commit_continues_as_it_did_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*SETTINGS, f"hydra.run.dir={folder}", "trainer.resume=true", "trainer.epochs=2", "trainer.progress=false"]
    monkeypatch.setattr("sys.argv", ["hxtrain", *words])
    main()
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in (OLD / "continued.jsonl").read_text().splitlines()]
    assert records[0] == expected[0]
    assert records[1]["train_loss"] == pytest.approx(expected[1]["train_loss"], rel=1e-3)  # last digits: the processor
    assert records[1]["test_accuracy"] == pytest.approx(expected[1]["test_accuracy"], abs=0.02)
