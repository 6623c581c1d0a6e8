"""Speed of training and inference: in software, on emulated chips, in other libraries, and of matrix products alone.

All works are timed in turns in one process, in random order. Works that use torch threads are timed with one thread and
with all cores, and the better median counts.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from hxtrain.backends import create_backend
from hxtrain.experiments.benchmark.peers.common import Task
from hxtrain.network import Network
from hxtrain.runs.metrics import write_json
from hxtrain.runs.process import keep_freed_memory
from hxtrain.runs.versions import versions

from .config import BenchConfig
from .floor import floor_works
from .peers import PEERS, build, installed
from .replay import ReplayBackend
from .rounds import Report, Spread, in_turns, spread
from .workload import RATE, Workload

log = logging.getLogger(__name__)
OURS = "hxtrain, "
SOFTWARE = OURS + "software"
IDEAL = OURS + "ideal emulated chip"
CALIBRATED = OURS + "calibrated emulated chip"
HOST = OURS + "host's share alone"
FLOOR = "floor: matrix products"
TRAINING, LARGE = "training step, 100 samples", "training step, 1000 samples"
INFERENCE, THROUGHPUT = "inference, 100 samples", "inference, 1000 samples"
RECURRENT = "recurrent training step, 100 samples"
SIZES = {TRAINING: 100, LARGE: 1000, INFERENCE: 100, THROUGHPUT: 1000, RECURRENT: 100}
"""Number of samples of each task."""
TURN = 0.1
"""Shortest turn of a work (s)."""


Works = dict[tuple[str, str], "Work"]
"""Works by task and name."""


class Work(NamedTuple):
    """A timed function, and the numbers of torch threads of its timings."""

    run: Callable[[], object]
    threads: tuple[int, ...]


class Speed(NamedTuple):
    """The time of a work on a task, and its torch threads.

    Attributes:
        task: Task.
        work: Work.
        time: Time of a call (s).
        threads: Number of torch threads.
        cpu: Median time of the processor for a call (s), summed over all threads. It depends less than `time` on other
            work on the machine, and less on the number of cores.
    """

    task: str
    work: str
    time: Spread
    threads: int
    cpu: float

    @property
    def throughput(self) -> float:
        """Samples per second."""
        return SIZES[self.task] / self.time.middle


def bench_speed(
    config: BenchConfig, folder: Path, command: str, report: Report = lambda count, total: None
) -> list[Speed]:
    """Time all works; write `bench.json` into `folder`.

    Args:
        config: All settings.
        folder: Folder of `bench.json`.
        command: Command that started the benchmark, for the record.
        report: Called with the number of finished rounds and the number of all rounds.
    """
    return time_works(config, _works, folder / "bench.json", command, report)


def time_works(
    config: BenchConfig,
    prepare: Callable[[BenchConfig, ExitStack], tuple[Works, dict[str, str]]],
    path: Path,
    command: str,
    report: Report,
) -> list[Speed]:
    """Time works in turns, and write their speeds to a file, with the machine's load average before and after.

    Args:
        config: All settings.
        prepare: Function that returns the works, and the errors of peers that do not work on this machine.
        path: File of the results.
        command: As in `bench_speed`.
        report: As in `bench_speed`.
    """
    keep_freed_memory()
    previous_threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with ExitStack() as stack:
            works, errors = prepare(config, stack)
            cpu_times: dict[tuple[str, str, int], list[float]] = defaultdict(list)
            turns = {
                (task, name, threads): _timed(work.run, threads, config.torch_device, cpu_times[task, name, threads])
                for (task, name), work in works.items()
                for threads in work.threads
            }
            start_load = _load()
            times = in_turns(turns, config.rounds, report, turn=TURN)
            load = [start_load, _load()]
    finally:
        torch.set_num_threads(previous_threads)
    speeds = _best(
        [
            Speed(task, name, spread(seconds), threads, median(cpu_times[task, name, threads]))
            for (task, name, threads), seconds in times.items()
        ]
    )
    write_json(path, {**_machine(config, command), "load": load, "skipped": errors, "speed": [*map(_plain, speeds)]})
    return speeds


def speed_rows(speeds: list[Speed]) -> list[tuple[str, ...]]:
    """Return the table: task, work, time, quartiles, processor time, samples per second, time over our software's."""
    references = {speed.task: speed.time.middle for speed in speeds if speed.work == SOFTWARE}
    return [
        (
            s.task,
            s.work,
            f"{1e3 * s.time.middle:.2f} ms",
            f"{1e3 * s.time.low:.2f}..{1e3 * s.time.high:.2f}",
            f"{1e3 * s.cpu:.2f} ms",
            f"{s.throughput:,.0f} / s",
            f"{s.time.middle / references[s.task]:.2f}",
        )
        for s in speeds
    ]


def _works(config: BenchConfig, stack: ExitStack) -> tuple[Works, dict[str, str]]:
    """Return all works by task and name, and the errors of peers that do not work on this machine."""
    device = config.torch_device
    load = Workload(stack, max(SIZES.values()), device)
    threads = (config.threads,)
    nets = {
        SOFTWARE: load.network(None),
        IDEAL: load.network(create_backend("emulator", preset="ideal", device=device)),
        CALIBRATED: load.network(create_backend("emulator", chip=config.chip.name, device=device)),
    }
    replay = load.network(ReplayBackend(create_backend("emulator", chip=config.chip.name, device=device)))
    works: Works = {}
    for task in (TRAINING, LARGE):
        works |= {(task, name): Work(load.training(net, SIZES[task]), threads) for name, net in nets.items()}
        works[task, HOST] = Work(load.training(replay, SIZES[task]), threads)
    for task in (INFERENCE, THROUGHPUT):
        works |= {(task, name): Work(load.inference(net, SIZES[task]), threads) for name, net in nets.items()}
    cores = numbers_of_threads(config)
    tasks = {task: task_of(load, nets[SOFTWARE], SIZES[task]) for task in (TRAINING, LARGE, INFERENCE, THROUGHPUT)}
    for task, content in tasks.items():
        floor = floor_works(load.spikes.stretch(0, SIZES[task]), content)
        works[task, FLOOR] = Work(floor["training" if task in (TRAINING, LARGE) else "inference"], cores)
    peers, errors = peer_works(installed() if config.peers else (), tasks, {TRAINING, LARGE}, cores)
    return works | peers, errors


def numbers_of_threads(config: BenchConfig) -> tuple[int, ...]:
    """Return the numbers of torch threads of works that use them: one and all cores, on a GPU that of the settings."""
    is_on_cpu = torch.device(config.torch_device).type == "cpu"
    return tuple(sorted({1, os.cpu_count() or 1})) if is_on_cpu else (config.threads,)


def peer_works(
    names: Iterable[str], tasks: dict[str, Task], trainings: Collection[str], cores: tuple[int, ...]
) -> tuple[Works, dict[str, str]]:
    """Return the works of peers, and the errors of those that do not work on this machine.

    Args:
        names: Peers.
        tasks: Tasks by name.
        trainings: Names of the tasks that are training steps; all others are inference.
        cores: Numbers of torch threads.
    """
    works: Works = {}
    errors: dict[str, str] = {}
    for name in names:
        try:
            works |= _peer_works(name, tasks, trainings, cores)
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {error}"[:200]
            log.warning("%s is installed, but not timed: %s", name, errors[name])
    return works, errors


def _peer_works(name: str, tasks: dict[str, Task], trainings: Collection[str], cores: tuple[int, ...]) -> Works:
    """Return the works of a peer, after a first call of each."""
    threads = cores if PEERS[name].torch_threads else (cores[-1],)
    works: Works = {}
    for task, content in tasks.items():
        peer = build(name, content)
        works[task, name] = Work(peer.train if task in trainings else peer.infer, threads)
        works[task, name].run()
    return works


def task_of(load: Workload, net: Network, samples: int) -> Task:
    """Return the task of the peers: spikes, weights and activity of our software."""
    spikes = load.spikes.stretch(0, samples)
    with torch.no_grad():
        activity = net(spikes).hidden_spikes() / samples
    decay, _ = net.decays(net.layers[0])
    hidden, *feedback, readout = (weight.detach().clone() for weight in net.effective_weights())
    dense = spikes.to_grid(net.dt, net.steps)
    tau = net.layers[0].neurons.tau_mem
    recurrent = feedback[0] if feedback else None
    return Task(dense, load.labels[:samples], hidden, readout, net.dt, tau, decay, activity, RATE, recurrent)


def _timed(run: Callable[[], object], threads: int, device: str, cpu_times: list[float]) -> Callable[[], object]:
    """Return a function with a number of torch threads, which waits for the work that it starts on a GPU.

    Each call appends its time of the processor (s) to `cpu_times`.
    """

    def work() -> object:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        start = time.process_time()
        result = run()
        if device != "cpu":
            torch.cuda.synchronize(device)
        cpu_times.append(time.process_time() - start)
        return result

    return work


def _best(speeds: list[Speed]) -> list[Speed]:
    """Return the speed of each work with its better number of threads, sorted by task and time."""
    best: dict[tuple[str, str], Speed] = {}
    for speed in speeds:
        key = (speed.task, speed.work)
        if key not in best or speed.time.middle < best[key].time.middle:
            best[key] = speed
    return sorted(best.values(), key=lambda speed: ([*SIZES].index(speed.task), speed.time.middle))


def _machine(config: BenchConfig, command: str) -> dict[str, Any]:
    """Return machine, settings and versions of the benchmark."""
    return {
        "command": command,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "processor": _processor(),
        "torch_device": _torch_device(config.torch_device),
        "rounds": config.rounds,
        "chip": config.chip.name,
        "threads": config.threads,
        "versions": {**versions(), **(installed() if config.peers else {})},
    }


def _load() -> float | None:
    """Return the mean number of running processes in the last minute, if the system reports it."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _torch_device(name: str) -> str:
    """Return the name of a torch device, with the name of its card."""
    return name if torch.device(name).type != "cuda" else f"{name}: {torch.cuda.get_device_name(name)}"


def _processor() -> str:
    """Return the name of the processor, if the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _plain(speed: Speed) -> dict[str, Any]:
    return {
        "task": speed.task,
        "work": speed.work,
        **speed.time._asdict(),
        "throughput": speed.throughput,
        "threads": speed.threads,
        "cpu": speed.cpu,
    }
