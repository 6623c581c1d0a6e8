"""Servers killed at random times behind a bad network, and clients that fight: no batch lost, doubled or mixed up."""

import io
import itertools
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from backends_bench import CIRCUIT, READOUT_ONLY, WEIGHTS, stimulus
from remote_bench import CountingBackend, Proxy, connected, port_for_restarts, serving
from rich.console import Console
from soak import soak

from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run
from hxtrain.datasets import DataConfig
from hxtrain.execution.config import BackendConfig, ChipConfig
from hxtrain.network import NetworkConfig
from hxtrain.runs.progress import Progress
from hxtrain.training.config import TrainerConfig
from hxtrain.training.trainer import Trainer

KILLS = soak(2, 20)
STEPS_PER_KILL = 12
SECONDS = soak(3.0, 300.0)
SERVER = """
import sys
from pathlib import Path
from hxtrain.backends import create_backend
from hxtrain.backends.remote import Server, ServerSettings
backend = create_backend("emulator", preset="uncalibrated")
run, run_all, journal = backend.run, backend.run_all, Path(sys.argv[1]).open("w", buffering=1)
def noted(weights, stimulus):
    found = run(weights, stimulus)
    print(stimulus.clock, file=journal)
    return found
def all_noted(weights, stimuli):
    found = run_all(weights, stimuli)
    for stimulus in stimuli:
        print(stimulus.clock, file=journal)
    return found
backend.run, backend.run_all = noted, all_noted
server = Server(backend, ServerSettings(bind=sys.stdin.readline().strip()))
print(server.address, flush=True)
server.serve()
"""


class Lives:
    """Servers of one chip at one address, one after the other; the next one waits to take over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.killed = 0
        self._spare = self._start(0)
        self._current: subprocess.Popen[str] | None = None
        self.address = self.take_over(port_for_restarts())

    def take_over(self, address: str) -> str:
        """Let the waiting server serve, start the next one, and return the address."""
        self._current = self._spare
        assert self._current.stdin is not None
        assert self._current.stdout is not None
        self._current.stdin.write(f"{address}\n")
        self._current.stdin.flush()
        bound = self._current.stdout.readline().strip()
        assert bound, "the server did not start; its error is above"
        self._spare = self._start(self.killed + 1)
        return bound

    def kill(self) -> None:
        """Kill the server, whatever it does, and have the next one take its place."""
        assert self._current is not None
        self._current.kill()
        self._current.communicate()
        assert self._current.returncode == -signal.SIGKILL
        self.killed += 1
        self.take_over(self.address)

    def end(self) -> None:
        for process in (self._current, self._spare):
            assert process is not None
            process.kill()
            process.communicate()

    def journals(self) -> list[list[int]]:
        """Return the clocks of the runs that each server finished."""
        files = (self.folder / f"{life}.txt" for life in range(self.killed + 1))
        return [[int(line) for line in file.read_text().split()] for file in files]

    def _start(self, life: int) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", SERVER, str(self.folder / f"{life}.txt")]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=self.folder
        )  # outside the repository, whose folders are not the package


class Counting(Progress):
    """Counts steps, silently."""

    def __init__(self) -> None:
        super().__init__(show=False, console=Console(file=io.StringIO()))
        self.steps = 0

    def step(self, trainer: Trainer) -> None:
        self.steps += 1


def config(backend: BackendConfig, epochs: int) -> RunConfig:
    return RunConfig(
        backend=backend,
        chip=ChipConfig(preset="uncalibrated"),
        network=NetworkConfig(hidden=[60], init_gain=1.4),
        data=DataConfig("digits"),
        trainer=TrainerConfig(
            epochs=epochs,
            batch_size=50,
            train_samples=50 * STEPS_PER_KILL,
            test_samples=60,
            progress=False,
            plots=False,
        ),
    )


def bad_network() -> Callable[[str, int, list[bytes]], list[int]]:
    """Lose, double, delay and reorder messages; now and then the link is cut for a while."""
    draw = random.Random(5)
    cut = [0]

    def act(way: str, number: int, frames: list[bytes]) -> list[int]:
        if cut[0] == 0 and draw.random() < 0.01:
            cut[0] = 5
        if cut[0]:
            cut[0] -= 1
            return []
        return draw.choice([[], [0, 0], [1], [2, 0], *[[0]] * 12])

    return act


@pytest.mark.timeout(3600)
def test_training_survives_killed_servers_on_a_bad_network(tmp_path: Path) -> None:
    """One epoch for each kill, which comes at a random time in it."""
    run(config(BackendConfig(retries=0), KILLS), tmp_path / "here", "test", Counting())
    draw = random.Random(11)
    progress = Counting()
    lives = Lives(tmp_path)

    def murder() -> None:
        for kill in range(KILLS):
            due = kill * STEPS_PER_KILL + draw.randrange(1, STEPS_PER_KILL)
            while progress.steps < due:
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.05))
            lives.kill()

    killer = threading.Thread(target=murder, daemon=True)
    try:
        with Proxy(lives.address, bad_network()) as proxy:
            killer.start()
            settings = {"address": proxy.address, "timeout": 0.3, "patience": 120.0}
            remote_result = run(
                config(BackendConfig("remote", settings, retries=0), KILLS), tmp_path / "there", "", progress
            )
        killer.join(60)
        assert lives.killed == KILLS
    finally:
        lives.end()
    first, second = (torch.load(tmp_path / name / "checkpoint.pt")["model"] for name in ("here", "there"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert remote_result["retries"] == 0, "what was lost was repeated below the host, which saw every run once"
    journals = lives.journals()
    for clocks in journals:
        assert clocks == sorted(set(clocks)), "no server ran a batch twice"
    trials = KILLS * (50 * STEPS_PER_KILL + 60)
    assert sorted({clock for clocks in journals for clock in clocks})[-1] < trials
    print(f"{lives.killed} servers killed, {sum(map(len, journals))} runs, weights bit-equal")


@pytest.mark.timeout(3600)
def test_two_clients_fight_for_one_chip() -> None:
    """Both want it all the time; each has a circuit of its own, and gets nothing but its own recordings."""
    device = CountingBackend(lambda run: time.sleep(0.002))
    failures: list[BaseException] = []
    counts, longest = [0, 0], [0.0, 0.0]
    end = time.monotonic() + SECONDS

    def work(address: str, number: int) -> None:
        circuit, weights = ((CIRCUIT, WEIGHTS), (READOUT_ONLY, {"input->readout": WEIGHTS["input->hidden"][:2]}))[
            number
        ]
        try:
            with connected(address) as client:
                client.configure(circuit)
                while time.monotonic() < end:
                    begin = time.monotonic()
                    clock = 2 * counts[number] + number  # which tells whose it is, in the codes, too
                    recording = client.run(weights, stimulus(clock=clock))
                    assert set(recording.traces) == {p.name for p in circuit.populations}
                    assert (recording.traces["readout"] == clock % 256).all()
                    longest[number] = max(longest[number], time.monotonic() - begin)
                    counts[number] += 1
        except BaseException as error:
            failures.append(error)

    with serving(device, lease_time=0.1, max_rate=1e6) as server:
        threads = [threading.Thread(target=work, args=(server.address, number)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    for number in (0, 1):
        clocks = [clock for clock in device.clocks if clock % 2 == number]
        assert clocks == list(range(number, 2 * counts[number] + number, 2)), "each batch once, in order"
    turns = [number for number, _ in itertools.groupby(clock % 2 for clock in device.clocks)]
    assert min(turns.count(0), turns.count(1)) > 1, f"turns {turns}: one waits until the other is done"
    print(f"{counts} runs in {SECONDS:g} s, longest waits {longest[0]:.2f} and {longest[1]:.2f} s")
