"""A pool of emulated chips, processes that work in it, and their kills."""

from __future__ import annotations

import multiprocessing
import random
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from hxtrain.backends import DeviceError
from hxtrain.backends.addresses import pool_address
from hxtrain.backends.pool import Broker, PoolReport, PoolSettings, ask_pool
from hxtrain.backends.remote import LinkSettings, ask_status

from .processes import START, Service, serve_chip, serve_until_closed

HEARTBEAT = 5.0
PORTS = (20_000, 32_000)
"""Ports below those that the system gives to outgoing connections: a killed process gets its port again."""
ABSENCES = (0.0, 3 * HEARTBEAT)
"""Time for which each killed server is away (s), beside its start: before and after the pool takes its chip back."""
KILLS = ("server", "server", "worker", "worker", "broker")
"""What is killed, once each, in a random order."""


class Fleet:
    """Servers and broker, each in a process that can be killed and comes back at the same address.

    Args:
        chips: Names of the chips, one server each.
        preset: Preset of the chips.
        delay: Time that each run of a chip takes longer (s).
        folder: Folder of the broker's state.

    Attributes:
        broker: Address of the broker.
        pool: Address of the pool for clients.
    """

    def __init__(self, chips: Sequence[str], preset: str, delay: float, folder: Path) -> None:
        self._chips = {_free_address(): chip for chip in chips}
        self._preset = preset
        self._delay = delay
        self._state = str(folder / "pool.json")
        self.broker = _free_address()
        self.pool = pool_address(self.broker)
        self._services: dict[str, Service] = {}

    def start(self) -> None:
        """Start everything, and wait until the chips are free.

        Raises:
            DeviceError: A process does not start.
        """
        for address in [*self._chips, self.broker]:
            self._launch(address)
        for service in self._services.values():
            service.address()
        end = time.monotonic() + START
        while sum(chip.state == "free" for chip in self.report().chips) < len(self._chips):
            if time.monotonic() > end:
                raise DeviceError(f"the chips are not free within {START:g} s; is the machine busy?")
            time.sleep(0.1)

    def restart(self, address: str, absence: float) -> None:
        """Kill the process with an address, and start another one after a time (s)."""
        self._services[address].kill()
        time.sleep(absence)
        self._launch(address)
        self._services[address].address()

    def report(self) -> PoolReport:
        """Return the report of the pool."""
        return ask_pool(LinkSettings(self.pool, patience=START))

    def trials(self) -> int:
        """Return the number of trials that the present servers have run."""
        return sum(ask_status(LinkSettings(address, patience=START)).trials for address in self._chips)

    def stop(self) -> None:
        """End everything, the broker before its servers."""
        for service in reversed(self._services.values()):
            service.end()

    def _launch(self, address: str) -> None:
        """Start the process with an address."""
        if address == self.broker:
            self._services[address] = Service(_broke, address, list(self._chips), self._state)
        else:
            arguments = (address, self._chips[address], self._preset, 1, self._delay)
            self._services[address] = Service(serve_chip, *arguments)


class Worker:
    """A process that carries out one run after the other.

    Args:
        work: Function of the process: gets a connection and `arguments`, receives numbers of runs, and sends each back
            when the run has a result.
        arguments: Arguments of this function.

    Attributes:
        run: Number of the run in progress; None without one.
    """

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.run: int | None = None
        self._connection, remote_end = context.Pipe()
        self._process: BaseProcess = context.Process(target=work, args=(remote_end, *arguments), daemon=True)
        self._process.start()
        remote_end.close()

    @property
    def process_id(self) -> int:
        """Id of the process."""
        return self._process.pid or 0

    def begin(self, run: int) -> None:
        """Have a run carried out."""
        self.run = run
        self._connection.send(run)

    def collect(self) -> int | None:
        """Return the number of a run that has a result now; None if there is none.

        Raises:
            DeviceError: The process has ended by itself: its run failed.
        """
        try:
            if not self._connection.poll():
                return None
            run: int = self._connection.recv()
        except (EOFError, OSError):
            raise DeviceError(f"run {self.run} failed; its reason is above") from None
        self.run = None
        return run

    def kill(self) -> int | None:
        """End the process at once, and return the number of its run; None if that is over."""
        self._process.kill()
        self._process.join()
        run = self.run
        try:
            if self._connection.poll() and self._connection.recv() == run:
                return None
        except (EOFError, OSError):
            pass
        self._connection.close()
        return run


class Crew:
    """Workers and their runs; a worker that is killed is replaced, and its run goes on at another one.

    Args:
        size: Number of workers.
        runs: Number of runs; more of them follow if the work has to last longer.
        hire: Function that starts a worker.

    Attributes:
        results: Number of results by run: each run shall have one.
        issued: Number of runs so far, with those that wait for a worker.
    """

    def __init__(self, size: int, runs: int, hire: Callable[[], Worker]) -> None:
        self._hire = hire
        self._waiting = deque(range(runs))
        self.issued = runs
        self.results: Counter[int] = Counter()
        self.workers = [hire() for _ in range(size)]

    @property
    def is_finished(self) -> bool:
        """Whether all runs have a result."""
        return len(self.results) == self.issued

    def advance(self, is_extended: bool) -> None:
        """Collect results, and give runs to workers that have none.

        Args:
            is_extended: Whether to issue further runs, so that nobody is idle.

        Raises:
            DeviceError: A run failed.
        """
        for worker in self.workers:
            result = worker.collect()
            if result is not None:
                self.results[result] += 1
            if worker.run is None and not self._waiting and is_extended:
                self._waiting.append(self.issued)
                self.issued += 1
            if worker.run is None and self._waiting:
                worker.begin(self._waiting.popleft())

    def kill(self, worker: Worker) -> None:
        """Kill a worker, replace it, and let another one go on with its run."""
        run = worker.run
        remainder = worker.kill()
        if remainder is not None:
            self._waiting.appendleft(remainder)
        elif run is not None:
            self.results[run] += 1
        self.workers[self.workers.index(worker)] = self._hire()

    def stop(self) -> None:
        """End all processes."""
        for worker in self.workers:
            worker.kill()


class Disturbance:
    """Kills two servers, two workers and the broker, once each, after random numbers of results, the first with none.

    A kill waits for the consequences of the previous one: a server is there again, the lease of a worker is over.

    Args:
        fleet: Servers and broker.
        crew: Workers.
        latest: Number of results after which the last kill is due.

    Attributes:
        kills: Number of kills so far.
        longest_silence: Longest time from a kill of a worker to the end of its lease (s).
    """

    def __init__(self, fleet: Fleet, crew: Crew, latest: int) -> None:
        self._fleet = fleet
        self._crew = crew
        self._draw = random.Random(0)
        self._absences = list(ABSENCES)
        targets = list(KILLS)
        self._draw.shuffle(targets)
        counts = [0, *sorted(self._draw.randrange(latest + 1) for _ in KILLS[1:])]
        self._plan = list(zip(counts, targets, strict=True))
        self._executor = ThreadPoolExecutor(1)
        self._restart: Future[None] | None = None
        self._killed: tuple[str, float] | None = None
        self.longest_silence = 0.0

    @property
    def kills(self) -> int:
        """Number of kills so far."""
        return len(KILLS) - len(self._plan)

    @property
    def is_over(self) -> bool:
        """Whether all kills are carried out, and their consequences past."""
        return not self._plan and self._killed is None and self._restart is None

    def advance(self) -> None:
        """Do what is due, and note the ends of the leases of killed workers.

        Raises:
            DeviceError: A process does not start again.
        """
        if self._restart is not None and self._restart.done():
            self._restart.result()
            self._restart = None
        if self._restart is not None:
            return
        if self._killed is not None:
            process, moment = self._killed
            if all(_process_of(chip.holder) != process for chip in self._fleet.report().chips):
                self.longest_silence = max(self.longest_silence, time.monotonic() - moment)
                self._killed = None
        if self._killed is not None or not self._plan or len(self._crew.results) < self._plan[0][0]:
            return
        kill = {"server": self._kill_server, "worker": self._kill_worker, "broker": self._kill_broker}
        if kill[self._plan[0][1]]():
            self._plan.pop(0)

    def _kill_server(self) -> bool:
        leased = [chip.address for chip in self._fleet.report().chips if chip.state == "leased"]
        if not leased:
            return False
        self._restart = self._executor.submit(self._fleet.restart, self._draw.choice(leased), self._absences.pop(0))
        return True

    def _kill_broker(self) -> bool:
        self._restart = self._executor.submit(self._fleet.restart, self._fleet.broker, HEARTBEAT / 2)
        return True

    def _kill_worker(self) -> bool:
        holders = {_process_of(chip.holder) for chip in self._fleet.report().chips}
        workers = [worker for worker in self._crew.workers if str(worker.process_id) in holders]
        if not workers:
            return False
        worker = self._draw.choice(workers)
        self._killed = str(worker.process_id), time.monotonic()
        self._crew.kill(worker)
        return True


def _process_of(label: str) -> str:
    """Return the process in the label of a client, `user@host:process`."""
    return label.rpartition(":")[2]


def _free_address() -> str:
    draw = random.SystemRandom()
    for _ in range(100):
        port = draw.randrange(*PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return f"tcp://127.0.0.1:{port}"
    raise DeviceError(f"no free port among {PORTS[0]} to {PORTS[1]}")


def _broke(connection: Connection, address: str, servers: list[str], state: str) -> None:
    """Run a broker; the function of a process."""
    settings = PoolSettings(bind=address, servers=servers, heartbeat=HEARTBEAT, state=state)
    serve_until_closed(connection, Broker(settings))
