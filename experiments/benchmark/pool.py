"""A pool of emulated chips at work: short runs, in peace and while servers, workers and broker are killed.

All are processes of this machine. What counts is that each run is done once, that its weights are those of a run alone
on the same chip, and how much of the time the chips are leased while work is queued.
"""

from __future__ import annotations

import io
import multiprocessing
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from hxtrain.backends import DeviceError, create_backend
from hxtrain.backends.pool import Broker, PoolReport, PoolSettings, ask_pool
from hxtrain.backends.remote import LinkSettings, Server, ServerSettings, ask_status
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import complete
from hxtrain.datasets import DataConfig
from hxtrain.execution.config import ANY, BackendConfig, ChipConfig
from hxtrain.network import NetworkConfig
from hxtrain.runs.metrics import write_json
from hxtrain.runs.progress import Progress
from hxtrain.runs.saved import read_result
from hxtrain.runs.versions import versions
from hxtrain.training.config import TrainerConfig

from .config import BenchConfig
from .rounds import Report

CHIPS = tuple(f"P{number}" for number in range(8))
"""Names of the chips, one server each."""
RUNS = 24
WORKERS = 12
"""Number of processes that train at the same time; more than chips, so that some wait."""
KILLS = 5
"""Number of kills of the second phase: two servers, two workers and the broker."""
HEARTBEAT = 5.0
PORTS = (20_000, 32_000)
"""Ports below those that the system gives to outgoing connections: a killed process gets its port again."""
START, LIMIT = 180.0, 900.0
"""Time limits of a start, and of all runs (s)."""
SAMPLES, EPOCHS = 500, 2


class PoolTiming(NamedTuple):
    """Outcome of a queue of runs.

    Attributes:
        phase: What happened meanwhile.
        finished: Number of runs with a result.
        equal: Number of runs with the weights of a run alone on the same chip.
        kills: Number of kills that were carried out, of five; a fast machine is through before the last one is due.
        executions: Trials on all chips, in multiples of those of the runs; None if counts were lost with servers.
        busy: Share of time in which fitting chips were leased while someone waited; None if nobody waited.
        granted: Number of leases.
        lost: Leases that ended by a lost server.
        expired: Leases that ended by a vanished client.
        longest_silence: Longest time from a kill of a client to the end of its lease (s).
        seconds: Time for all runs (s).
    """

    phase: str
    finished: int
    equal: int
    kills: int
    executions: float | None
    busy: float | None
    granted: int
    lost: int
    expired: int
    longest_silence: float
    seconds: float


def bench_pool(
    config: BenchConfig, folder: Path, command: str, report: Report = lambda count, total: None
) -> list[PoolTiming]:
    """Work a queue of runs off in a pool, in peace and with kills; write `bench_pool.json` into `folder`.

    Args:
        config: All settings; chips and runs are fixed.
        folder: Folder of `bench_pool.json` and of the runs.
        command: Command that started the benchmark, for the record.
        report: Called with the number of finished runs and the number of all runs.
    """
    timings = [
        _phase(name, folder / name, is_killed, lambda count: report(count, RUNS))
        for name, is_killed in (("peace", False), ("kills", True))
    ]
    content = {"pool": [timing._asdict() for timing in timings], "chips": CHIPS, "heartbeat": HEARTBEAT}
    write_json(folder / "bench_pool.json", {**content, "command": command, "versions": versions()})
    return timings


def pool_rows(timings: Sequence[PoolTiming]) -> list[tuple[str, ...]]:
    """Return the table."""
    return [
        (
            t.phase,
            f"{t.finished} of {RUNS}",
            f"{t.equal} of {RUNS}",
            f"{t.kills} of {KILLS}" if t.kills else "-",
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


class Fleet:
    """Servers and broker, each in a process that can be killed and comes back at the same address.

    Args:
        folder: Folder of the broker's state.
    """

    def __init__(self, folder: Path) -> None:
        self._context = multiprocessing.get_context("spawn")
        self.servers = [_free_address() for _ in CHIPS]
        self.broker = _free_address()
        self._folder = folder
        self._processes: dict[str, tuple[BaseProcess, Connection]] = {}

    def start(self) -> None:
        """Start everything, and wait until the chips are free.

        Raises:
            DeviceError: A process does not start.
        """
        for address in [*self.servers, self.broker]:
            self.launch(address)
        for address in self._processes:
            self._await(address)
        end = time.monotonic() + START
        while sum(chip.state == "free" for chip in self.report().chips) < len(CHIPS):
            if time.monotonic() > end:
                raise DeviceError(f"the chips are not free within {START:g} s; is the machine busy?")
            time.sleep(0.1)

    def launch(self, address: str) -> None:
        """Start the process with an address."""
        receiver, sender = self._context.Pipe()
        target: Callable[..., None] = _broke
        arguments: tuple[Any, ...] = (sender, address, tuple(self.servers), self._folder / "pool.json")
        if address != self.broker:
            target = _serve
            arguments = (sender, address, CHIPS[self.servers.index(address)])
        process = self._context.Process(target=target, args=arguments, daemon=True)
        process.start()
        sender.close()
        self._processes[address] = (process, receiver)

    def kill(self, address: str, pause: float) -> None:
        """Kill the process with an address, and start another one after a pause (s)."""
        process, connection = self._processes[address]
        process.kill()
        process.join()
        connection.close()
        time.sleep(pause)
        self.launch(address)
        self._await(address)

    def report(self) -> PoolReport:
        """Return the report of the pool."""
        return ask_pool(LinkSettings(self.broker, patience=START))

    def trials(self) -> int:
        """Return the number of trials that the present servers have run."""
        return sum(ask_status(LinkSettings(address, patience=START)).trials for address in self.servers)

    def stop(self) -> None:
        """End everything."""
        for process, connection in self._processes.values():
            connection.close()
            process.join(START)
            process.kill()

    def _await(self, address: str) -> None:
        process, connection = self._processes[address]
        end = time.monotonic() + START
        while not connection.poll(0.1):
            if not process.is_alive() or time.monotonic() > end:
                raise DeviceError(f"the process for {address} did not start; its reason is above")
        connection.recv()


class Crew:
    """Processes that work a queue of runs off; one that is killed is replaced, and its run is done again by another.

    Args:
        pool: Address of the pool.
        folder: Folder of the runs.
    """

    def __init__(self, pool: str, folder: Path) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._pool = pool
        self._folder = folder
        self._queue: Queue[int] = self._context.Queue()
        self._processes: dict[int, tuple[BaseProcess, Any]] = {}
        for number in range(RUNS):
            self._queue.put(number)
        for _ in range(WORKERS):
            self._hire()

    def finished(self) -> int:
        """Return the number of runs with a result."""
        return sum((self._folder / f"{number}" / "result.json").exists() for number in range(RUNS))

    def kill(self, number: int) -> None:
        """Kill the process that has a run, replace it, and put the run back into the queue."""
        for key, (process, current) in list(self._processes.items()):
            if current.value == number:
                process.kill()
                process.join()
                del self._processes[key]
                self._hire()
                self._queue.put(number)

    def require_workers(self) -> None:
        """Check that all processes are at work.

        Raises:
            DeviceError: A process has ended by itself: a run failed.
        """
        for process, current in self._processes.values():
            if not process.is_alive():
                raise DeviceError(f"run {current.value} of {RUNS} failed; its reason is above")

    def running(self) -> list[int]:
        """Return the runs that are in progress."""
        return [current.value for _, current in self._processes.values() if current.value >= 0]

    def process_id(self, number: int) -> int:
        """Return the id of the process that has a run."""
        return next(process.pid or 0 for process, current in self._processes.values() if current.value == number)

    def stop(self) -> None:
        """End all processes."""
        for process, _ in self._processes.values():
            process.kill()
            process.join()

    def _hire(self) -> None:
        current = self._context.Value("i", -1)
        process = self._context.Process(
            target=_work, args=(self._queue, current, self._pool, self._folder), daemon=True
        )
        process.start()
        self._processes[process.pid or 0] = (process, current)


def _phase(name: str, folder: Path, is_killed: bool, report: Callable[[int], None]) -> PoolTiming:
    """Work the queue off once."""
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        fleet = Fleet(folder)
        stack.callback(fleet.stop)
        fleet.start()
        crew = Crew(fleet.broker.replace("tcp://", "pool://"), folder)
        stack.callback(crew.stop)
        begin = time.monotonic()
        disturbance = Disturbance(fleet, crew) if is_killed else None
        while crew.finished() < RUNS:
            if time.monotonic() - begin > LIMIT:
                raise DeviceError(f"{crew.finished()} of {RUNS} runs are finished after {LIMIT:g} s")
            if disturbance is not None:
                disturbance.advance()
            crew.require_workers()
            report(crew.finished())
            time.sleep(0.05)
        seconds = time.monotonic() - begin
        outcome = fleet.report()
        executions = None if is_killed else fleet.trials() / (RUNS * _trials_of_run(folder / "trials"))
    return PoolTiming(
        name,
        RUNS,
        sum(_is_equal(folder / f"{number}", number, folder / "alone" / f"{number}") for number in range(RUNS)),
        0 if disturbance is None else disturbance.kills,
        executions,
        outcome.busy,
        outcome.granted,
        outcome.lost,
        outcome.expired,
        0.0 if disturbance is None else disturbance.longest_silence,
        seconds,
    )


class Disturbance:
    """Kills two servers, two workers and the broker, once each, at random moments of the first two thirds of the work.

    A kill waits for the consequences of the previous one: a server is there again, the lease of a worker is over.

    Args:
        fleet: Servers and broker.
        crew: Workers.
    """

    def __init__(self, fleet: Fleet, crew: Crew) -> None:
        self._fleet = fleet
        self._crew = crew
        self._draw = random.Random(0)
        kills: list[Callable[[], bool]] = [self._kill_server, self._kill_server, self._kill_worker, self._kill_worker]
        kills.append(self._kill_broker)
        self._draw.shuffle(kills)
        counts = sorted(self._draw.randrange(2 * RUNS // 3) for _ in kills)
        self._plan = list(zip(counts, kills, strict=True))
        self._restart: threading.Thread | None = None
        self._killed: dict[str, float] = {}
        self.longest_silence = 0.0

    @property
    def kills(self) -> int:
        """Number of kills so far."""
        return KILLS - len(self._plan)

    def advance(self) -> None:
        """Do what is due, and note the ends of the leases of killed workers."""
        if self._killed:
            holders = " ".join(chip.holder for chip in self._fleet.report().chips)
            for process in [process for process in self._killed if f":{process}" not in holders]:
                elapsed = time.monotonic() - self._killed.pop(process)
                self.longest_silence = max(self.longest_silence, elapsed)
        is_settled = not self._killed and (self._restart is None or not self._restart.is_alive())
        if is_settled and self._plan and self._crew.finished() >= self._plan[0][0] and self._plan[0][1]():
            self._plan.pop(0)

    def _kill_server(self) -> bool:
        leased = [chip.address for chip in self._fleet.report().chips if chip.state == "leased"]
        if not leased:
            return False
        arguments = (self._draw.choice(leased), 3 * HEARTBEAT)
        self._restart = threading.Thread(target=self._fleet.kill, args=arguments, daemon=True)
        self._restart.start()
        return True

    def _kill_broker(self) -> bool:
        self._fleet.kill(self._fleet.broker, HEARTBEAT / 2)
        return True

    def _kill_worker(self) -> bool:
        holders = [chip.holder.rpartition(":")[2].rstrip(")") for chip in self._fleet.report().chips if chip.holder]
        numbers = [number for number in self._crew.running() if str(self._crew.process_id(number)) in holders]
        if not numbers:
            return False
        number = self._draw.choice(numbers)
        self._killed[str(self._crew.process_id(number))] = time.monotonic()
        self._crew.kill(number)
        return True


def _settings(number: int, backend: BackendConfig, chip: ChipConfig) -> RunConfig:
    """Return the settings of a run."""
    course = TrainerConfig(
        epochs=EPOCHS, batch_size=50, train_samples=SAMPLES, test_samples=100, plots=False, progress=False
    )
    net = NetworkConfig(hidden=[30], init_gain=2.0)
    return RunConfig(number, backend=backend, chip=chip, network=net, data=DataConfig("digits"), trainer=course)


def _work(queue: Queue[int], current: Any, pool: str, folder: Path) -> None:
    """Take runs from the queue until this process is killed."""
    backend = BackendConfig("remote", {"address": pool, "patience": START})
    while True:
        current.value = number = queue.get()
        config = _settings(number, backend, ChipConfig(ANY, preset="uncalibrated"))
        complete(config, folder / f"{number}", "hxtrain bench suite=pool", _quiet())
        current.value = -1


def _quiet() -> Progress:
    return Progress(False, Console(file=io.StringIO()))


def _is_equal(folder: Path, number: int, place: Path) -> bool:
    """Return whether a run has the weights of a run alone on the same chip in this process."""
    chip = read_result(folder / "result.json", {"chip": str})["chip"]
    complete(_settings(number, BackendConfig(), ChipConfig(chip, preset="uncalibrated")), place, "", _quiet())
    first, second = (np.load(path / "weights.npz") for path in (folder, place))
    return first.files == second.files and all(np.array_equal(first[name], second[name]) for name in first.files)


def _trials_of_run(folder: Path) -> int:
    """Return the number of trials of a run, as a server counts them."""
    server = Server(create_backend("emulator", preset="uncalibrated"), ServerSettings(bind="tcp://127.0.0.1:*"))
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        config = _settings(0, BackendConfig("remote", {"address": server.address}), ChipConfig())
        complete(config, folder, "", _quiet())
        return ask_status(LinkSettings(server.address)).trials
    finally:
        server.stop()
        thread.join()


def _free_address() -> str:
    draw = random.SystemRandom()
    for _ in range(100):
        port = draw.randrange(*PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return f"tcp://127.0.0.1:{port}"
    raise DeviceError(f"no free port among {PORTS[0]} to {PORTS[1]}")


@contextmanager
def _stopped_with(connection: Connection, stop: Callable[[], None]) -> Iterator[None]:
    """Call a function when the other end of a connection closes."""

    def wait() -> None:
        connection.poll(None)
        stop()

    threading.Thread(target=wait, daemon=True).start()
    yield


def _serve(connection: Connection, address: str, chip: str) -> None:
    server = Server(create_backend("emulator", chip=chip, preset="uncalibrated"), ServerSettings(bind=address))
    connection.send(address)
    with _stopped_with(connection, server.stop):
        server.serve()


def _broke(connection: Connection, address: str, servers: Sequence[str], state: Path) -> None:
    broker = Broker(PoolSettings(bind=address, servers=list(servers), heartbeat=HEARTBEAT, state=str(state)))
    connection.send(address)
    with _stopped_with(connection, broker.stop):
        broker.serve()
