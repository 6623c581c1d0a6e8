"""A pool of emulated chips at work: short runs, in peace and while servers, workers and broker are killed.

All are processes of this machine. What counts is that each run is done once, that its weights are those of a run alone
on the same chip, and how much of the time the chips are leased while work is queued. In peace, chips change hands as
fast as this machine can train. With kills, chips are slow, so that the runs outlast the kills on any machine; should a
kill be left when the last run begins, further runs follow.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

from hxtrain.backends import DeviceError, create_backend
from hxtrain.backends.remote import LinkSettings, Server, ServerSettings, ask_status
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import complete
from hxtrain.datasets import DataConfig
from hxtrain.execution.config import ANY, BackendConfig, ChipConfig
from hxtrain.network import NetworkConfig
from hxtrain.runs.metrics import write_json
from hxtrain.runs.progress import Progress
from hxtrain.runs.saved import read_records, read_result
from hxtrain.runs.versions import versions
from hxtrain.training.config import TrainerConfig

from .config import BenchConfig
from .fleet import HEARTBEAT, KILLS, Crew, Disturbance, Fleet, Worker
from .processes import START
from .rounds import Report

CHIPS = tuple(f"P{number}" for number in range(8))
"""Names of the chips, one server each."""
PRESET = "uncalibrated"
RUNS = 24
"""Number of runs; with kills, further ones follow until the last kill is carried out."""
WORKERS = 12
"""Number of processes that train at the same time; more than chips, so that some wait."""
DELAY = 0.5
"""Time that each run of a chip takes longer in the phase with kills (s); a training has about 48 runs of its chip."""
LIMIT = 900.0
"""Time limit of all runs (s)."""
SAMPLES, EPOCHS = 500, 2


class PoolTiming(NamedTuple):
    """Outcome of a queue of runs.

    Attributes:
        phase: What happened meanwhile.
        runs: Number of runs.
        single: Number of runs with one result, in which each epoch happened once.
        equal: Number of runs with the weights of a run alone on the same chip.
        planned: Number of planned kills.
        kills: Number of kills that were carried out.
        executions: Trials on all chips, in multiples of those of the runs; None if counts were lost with servers.
        busy: Share of time in which chips were leased, of the time in which their servers counted as present and
            someone waited who could use them; None if nobody waited.
        granted: Number of leases.
        lost: Leases that ended by a lost server.
        expired: Leases that ended by a vanished client.
        longest_silence: Longest time from a kill of a client to the end of its lease (s).
        seconds: Time for all runs (s).
    """

    phase: str
    runs: int
    single: int
    equal: int
    planned: int
    kills: int
    executions: float | None
    busy: float | None
    granted: int
    lost: int
    expired: int
    longest_silence: float
    seconds: float

    @property
    def failures(self) -> list[str]:
        """Texts on what is not as it must be."""
        texts = []
        if self.single < self.runs:
            texts.append(f"{self.runs - self.single} of {self.runs} runs were not done once")
        if self.equal < self.runs:
            texts.append(f"{self.runs - self.equal} of {self.runs} runs have other weights than alone")
        if self.kills < self.planned:
            texts.append(f"{self.planned - self.kills} of {self.planned} kills were not carried out")
        if self.busy is None:
            texts.append("nobody waited for a chip")
        return [f"{self.phase}: {text}" for text in texts]


def bench_pool(
    config: BenchConfig, folder: Path, command: str, report: Report = lambda count, total: None
) -> list[PoolTiming]:
    """Work a queue of runs off in a pool, in peace and with kills; write `bench_pool.json` into `folder`.

    Args:
        config: All settings; chips and runs are fixed.
        folder: Folder of `bench_pool.json` and of the runs.
        command: Command that started the benchmark, for the record.
        report: Called with the number of finished runs and the number of all runs.

    Raises:
        DeviceError: A process does not start, a run fails, or the runs take too long.
    """
    timings = [
        _phase(name, folder / name, is_killed, report) for name, is_killed in (("peace", False), ("kills", True))
    ]
    content = {"pool": [timing._asdict() for timing in timings], "chips": CHIPS, "heartbeat": HEARTBEAT}
    write_json(folder / "bench_pool.json", {**content, "command": command, "versions": versions()})
    return timings


def pool_rows(timings: Sequence[PoolTiming]) -> list[tuple[str, ...]]:
    """Return the table."""
    return [
        (
            t.phase,
            f"{t.single} of {t.runs}",
            f"{t.equal} of {t.runs}",
            f"{t.kills} of {t.planned}" if t.planned else "-",
            "-" if t.executions is None else f"{t.executions:.3f}",
            "-" if t.busy is None else f"{t.busy:.1%}",
            str(t.granted),
            str(t.lost),
            str(t.expired),
            f"{t.longest_silence / HEARTBEAT:.1f}" if t.longest_silence else "-",
            f"{t.seconds:.0f} s",
        )
        for t in timings
    ]


def _phase(name: str, folder: Path, is_killed: bool, report: Report) -> PoolTiming:
    """Work the queue off once."""
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        fleet = Fleet(CHIPS, PRESET, DELAY if is_killed else 0.0, folder)
        stack.callback(fleet.stop)
        fleet.start()
        crew = Crew(WORKERS, RUNS, lambda: Worker(_work, fleet.pool, folder))
        stack.callback(crew.stop)
        begin = time.monotonic()
        disturbance = Disturbance(fleet, crew, RUNS // 2) if is_killed else None
        while not crew.is_finished:
            if time.monotonic() - begin > LIMIT:
                kills = "" if disturbance is None else f" and {disturbance.kills} of {len(KILLS)} kills carried out"
                raise DeviceError(
                    f"{len(crew.results)} of {crew.issued} runs are finished{kills} after {LIMIT:g} s; is the machine "
                    "busy?"
                )
            if disturbance is not None:
                disturbance.advance()
            crew.advance(disturbance is not None and not disturbance.is_over)
            report(len(crew.results), crew.issued)
            time.sleep(0.05)
        seconds = time.monotonic() - begin
        outcome = fleet.report()
        executions = None if is_killed else fleet.trials() / (RUNS * _trials_of_run(folder / "trials"))
    runs = range(crew.issued)
    return PoolTiming(
        name,
        crew.issued,
        sum(crew.results[run] == 1 and _is_done_once(folder / f"{run}") for run in runs),
        sum(_is_equal(folder / f"{run}", run, folder / "alone" / f"{run}") for run in runs),
        0 if disturbance is None else len(KILLS),
        0 if disturbance is None else disturbance.kills,
        executions,
        outcome.busy,
        outcome.granted,
        outcome.lost,
        outcome.expired,
        0.0 if disturbance is None else disturbance.longest_silence,
        seconds,
    )


def _settings(number: int, backend: BackendConfig, chip: ChipConfig) -> RunConfig:
    """Return the settings of a run."""
    course = TrainerConfig(
        epochs=EPOCHS, batch_size=50, train_samples=SAMPLES, test_samples=100, plots=False, progress=False
    )
    net = NetworkConfig(hidden=[30], init_gain=2.0)
    return RunConfig(number, backend=backend, chip=chip, network=net, data=DataConfig("digits"), trainer=course)


def _work(connection: Connection, pool: str, folder: Path) -> None:
    """Carry out runs until this process is killed."""
    backend = BackendConfig("remote", {"address": pool, "patience": START})
    while True:
        run = connection.recv()
        config = _settings(run, backend, ChipConfig(ANY, preset=PRESET))
        complete(config, folder / f"{run}", "hxtrain bench suite=pool", _quiet())
        connection.send(run)


def _quiet() -> Progress:
    return Progress(False, Console(file=io.StringIO()))


def _is_done_once(folder: Path) -> bool:
    """Return whether each epoch of a run happened once."""
    return [record["epoch"] for record in read_records(folder / "metrics.jsonl")] == list(range(1, EPOCHS + 1))


def _is_equal(folder: Path, number: int, place: Path) -> bool:
    """Return whether a run has the weights of a run alone on the same chip in this process."""
    chip = read_result(folder / "result.json", {"chip": str})["chip"]
    complete(_settings(number, BackendConfig(), ChipConfig(chip, preset=PRESET)), place, "", _quiet())
    first, second = (np.load(path / "weights.npz") for path in (folder, place))
    return first.files == second.files and all(np.array_equal(first[name], second[name]) for name in first.files)


def _trials_of_run(folder: Path) -> int:
    """Return the number of trials of a run, as a server counts them."""
    server = Server(create_backend("emulator", preset=PRESET), ServerSettings(bind="tcp://127.0.0.1:*"))
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        config = _settings(0, BackendConfig("remote", {"address": server.address}), ChipConfig())
        complete(config, folder, "", _quiet())
        return ask_status(LinkSettings(server.address)).trials
    finally:
        server.stop()
        thread.join()
