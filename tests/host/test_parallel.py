"""Processes that share every batch give the result of a single process, up to rounding."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from commands import SCRIPTS, call
from teams import call_together

from hxtrain.commands.evaluate import EvaluateConfig, with_device
from hxtrain.runs.checkpoint import CheckpointError, load_checkpoint
from hxtrain.training import parallel
from hxtrain.training.parallel import Team

SETTINGS = (
    "data=digits", "network.hidden=[40]", "network.init_gain=1.4", "trainer.train_samples=290",
    "trainer.test_samples=75", "trainer.batch_size=48", "trainer.evaluation_batch_size=30", "trainer.epochs=2",
    "trainer.plots=false", "trainer.progress=false", "network.dropout=0.2", "augment.rotation=10",
    "encoder.jitter=2e-7", "chip.preset=uncalibrated",
)  # fmt: skip


def start(folder: Path, processes: int, *words: str) -> "subprocess.Popen[str]":
    """Start torchrun."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [*torchrun, "--no-python", SCRIPTS / "hxtrain", *SETTINGS, f"hydra.run.dir={folder}", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=folder.parent
    )


def alone(folder: Path, *words: str) -> None:
    """Train in this process."""
    process = call("hxtrain", *SETTINGS, f"hydra.run.dir={folder}", *words, cwd=folder.parent)
    assert process.returncode == 0, process.stderr


def together(folder: Path, processes: int, *words: str, status: int = 0) -> str:
    """Train in several processes."""
    settings = *SETTINGS, f"hydra.run.dir={folder}"
    process = call_together("hxtrain", *settings, *words, cwd=folder.parent, processes=processes)
    assert process.returncode == status, process.stdout
    return process.stdout


def model(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_checkpoint(folder / "checkpoint.pt")["model"]
    return weights


def record(folder: Path) -> dict[str, object]:
    result: dict[str, object] = json.loads((folder / "result.json").read_text())
    return result


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_parts_follow_each_other_and_cover_everything() -> None:
    for size in (1, 2, 3, 7):
        for count in (0, 1, 5, 100):
            parts = [Team(rank, size).part(count) for rank in range(size)]
            assert [first for first, _ in parts] == [0, *(last for _, last in parts[:-1])]
            assert parts[-1][1] == count
    with pytest.raises(ValueError, match=r"parallel.chips has 3 entries, there are 2 processes; give one for each"):
        Team(0, 2).entry(["A", "B", "C"], "chips")
    assert Team(1, 2).entry(["A", "B"], "chips") == "B"
    assert Team(1, 2).entry([], "chips") is None


def test_a_weight_without_gradient_in_any_process_has_none_afterwards(mocker) -> None:
    """An optimiser with momentum would move it by a gradient of zeros."""
    mocker.patch.object(parallel.distributed, "all_reduce", lambda flat: flat.mul_(2))  # two equal processes
    learned, idle = (torch.nn.Parameter(torch.ones(2, 3)) for _ in range(2))
    learned.grad = torch.full((2, 3), 5.0)
    assert Team(0, 2).sum_gradients([learned, idle], 0.5, [1.0, 2.0]) == [2.0, 4.0]
    assert torch.equal(learned.grad, torch.full((2, 3), 5.0))
    assert idle.grad is None


@pytest.mark.timeout(600)
def test_each_process_takes_a_gpu_of_its_own(mocker, monkeypatch) -> None:
    mocker.patch("torch.cuda.is_available", return_value=True)
    mocker.patch("torch.cuda.device_count", return_value=2)
    set_device = mocker.patch("torch.cuda.set_device")
    mocker.patch.object(parallel, "distributed", mocker.MagicMock(get_rank=lambda: 5))
    for name, value in (("WORLD_SIZE", "6"), ("LOCAL_RANK", "3")):
        monkeypatch.setenv(name, value)
    with parallel.team() as team:
        assert team == Team(5, 6)
    set_device.assert_called_once_with(1)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the run in one process."""
    folder = tmp_path_factory.mktemp("parallel") / "single"
    alone(folder)
    return folder


def test_two_processes_equal_one(single: Path, tmp_path: Path) -> None:
    """The run has dropout, augmentation, jitter, noise and mismatch of a chip, and batches that divide unevenly."""
    shared = tmp_path / "shared"
    longer = Path(shutil.copytree(single, tmp_path / "longer", ignore=shutil.ignore_patterns(".lock")))
    process = start(shared, 2)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert output.count("epoch   1") == 1, "one process reports"
    first, second = record(single), record(shared)
    assert first["chip_hash"] == second["chip_hash"]
    for key in ("test_accuracy", "hidden_spikes_per_sample", "train_accuracy", "chip_seconds_per_sample"):
        assert first[key] == pytest.approx(second[key], rel=1e-6), key
    assert distance(model(single), model(shared)) < 1e-5
    # Another number of processes may continue the run.
    alone(longer, "trainer.epochs=3", "trainer.resume=true")
    together(shared, 3, "trainer.epochs=3", "trainer.resume=true")
    assert distance(model(longer), model(shared)) < 1e-4


@pytest.mark.timeout(600)
def test_each_process_has_its_own_chip_and_the_run_on_all_of_them_is_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    chips = "parallel.chips=[W66F3,W62F0]"
    together(folder, 2, chips, "trainer.epochs=1")
    together(folder, 2, chips, "trainer.resume=true")
    result = record(folder)
    assert (result["chip"], result["epochs"]) == ("W66F3|W62F0", 2)
    assert re.fullmatch(r"\w+\|\w+", str(result["chip_hash"]))
    with pytest.raises(CheckpointError, match="was trained on several chips"):
        with_device(EvaluateConfig(checkpoint=str(folder / "checkpoint.pt"), own_chip=True))


@pytest.mark.timeout(600)
def test_a_lost_device_ends_all_processes_and_nothing_is_lost(single: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    output = together(folder, 2, "backend.retries=0", "backend.faults.timeout=0.05", "trainer.epochs=9", status=3)
    assert "another process has failed" in output or "failed 1 times" in output
    together(folder, 2, "backend.faults.timeout=0.05", "backend.retries=20", "trainer.epochs=2", "trainer.resume=true")
    assert distance(model(folder), model(single)) < 1e-5


GATHER = """
from hxtrain.training.parallel import team
with team() as members:
    print(members.gather({"chip": "W66F3"}))
"""
STRANGER = """
import os, sys
from torch import distributed
class Harmful:
    def __reduce__(self):
        return os.system, (f"touch {sys.argv[1]}",)
distributed.init_process_group("gloo")
try:
    distributed.all_gather_object([None, None], Harmful())
finally:
    os._exit(0)
"""


def test_an_object_of_another_process_is_refused_and_nothing_of_it_runs(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    marker = tmp_path / "marker"
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(marker)],
            env={**shared, "RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank, code in enumerate((GATHER, STRANGER))
    ]  # fmt: skip
    try:
        output = processes[0].communicate(timeout=100)[0]  # the other one may wait for it for minutes
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert "ValueError: a process of this run sends something else than JSON" in output
    assert not marker.exists()


@pytest.mark.timeout(600)
def test_an_interruption_stops_all_processes_at_the_same_step(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, 2, "trainer.epochs=100000")
    while not (folder / "metrics.jsonl").exists():
        time.sleep(0.05)
        assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert "the state is saved. Continue with" in output
    assert load_checkpoint(folder / "checkpoint.pt")["epoch"] >= 1


def test_epochs_in_software_do_not_move_the_clock_of_shared_devices(tmp_path: Path) -> None:
    words = "network.dropout=0", "trainer.software_epochs=1"
    alone(tmp_path / "one", *words)
    together(tmp_path / "two", 2, *words)
    clocks = [load_checkpoint(tmp_path / name / "checkpoint.pt")["clock"] for name in ("one", "two")]
    assert clocks[0] == clocks[1] == 290 + 75
