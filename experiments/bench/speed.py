"""How fast a training step and an answer are: in software, on emulated chips, in other libraries, and at the least.

All are timed in turns in one process, in changing order. Works whose torch threads matter are timed with one and with
two threads, and the better of both medians counts.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hxtrain.backends import create_backend
from hxtrain.experiments.bench.peers.common import Task
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
SOFTWARE, IDEAL, CALIBRATED = OURS + "software", OURS + "ideal emulated chip", OURS + "calibrated emulated chip"
HOST, FLOOR = OURS + "host's share alone", "floor: matrix products"
TRAINING, LARGE = "training step, 100 samples", "training step, 1000 samples"
INFERENCE, THROUGHPUT = "inference, 100 samples", "inference, 1000 samples"
RECURRENT = "recurrent training step, 100 samples"
SIZES = {TRAINING: 100, LARGE: 1000, INFERENCE: 100, THROUGHPUT: 1000, RECURRENT: 100}
"""Samples of each task."""
RECURRENT_NEURONS = 120
"""Hidden neurons of the recurrent network, 256-120-10: as many as fit the chip at once with 376 inputs each."""
TURN = 0.1
"""How long a work's turn lasts at least (s)."""


class Work(NamedTuple):
    """What is timed, and the numbers of torch threads with which it is."""

    run: Callable[[], object]
    threads: tuple[int, ...]


class Speed(NamedTuple):
    """The time of a work on a task (s), and its torch threads."""

    task: str
    work: str
    time: Spread
    threads: int

    @property
    def throughput(self) -> float:
        """Samples per second."""
        return SIZES[self.task] / self.time.middle


def bench_speed(
    config: BenchConfig, folder: Path, command: str, report: Report = lambda done, total: None
) -> list[Speed]:
    """Time all works; write `bench.json` into `folder`.

    Args:
        config: all settings.
        folder: where `bench.json` goes.
        command: how it was started, for the record.
        report: is told how many rounds of how many are done.
    """
    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with ExitStack() as stack:
            works, skipped = _works(config, stack)
            turns = {
                (task, name, threads): _timed(work.run, threads, config.torch_device)
                for (task, name), work in works.items()
                for threads in work.threads
            }
            times = in_turns(turns, config.rounds, report, turn=TURN)
    finally:
        torch.set_num_threads(before)
    found = _best([Speed(task, name, spread(seconds), threads) for (task, name, threads), seconds in times.items()])
    write_json(folder / "bench.json", {**_machine(config, command), "skipped": skipped, "speed": [*map(_plain, found)]})
    return found


def speed_rows(found: list[Speed]) -> list[tuple[str, ...]]:
    """Return the table: task, work, time, quartiles, samples per second and time over that of our software."""
    ours = {speed.task: speed.time.middle for speed in found if speed.work == SOFTWARE}
    return [
        (
            s.task,
            s.work,
            f"{1e3 * s.time.middle:.2f} ms",
            f"{1e3 * s.time.low:.2f}..{1e3 * s.time.high:.2f}",
            f"{s.throughput:,.0f} / s",
            f"{s.time.middle / ours[s.task]:.2f}",
        )
        for s in found
    ]


def _works(config: BenchConfig, stack: ExitStack) -> tuple[dict[tuple[str, str], Work], dict[str, str]]:
    """Return all works by task and name, and the peers that do not work here with the reason."""
    where = config.torch_device
    load = Workload(stack, max(SIZES.values()), where)
    own = (config.threads,)
    nets = {
        SOFTWARE: load.network(None),
        IDEAL: load.network(create_backend("emulator", preset="ideal", device=where)),
        CALIBRATED: load.network(create_backend("emulator", chip=config.chip, device=where)),
    }
    replay = load.network(ReplayBackend(create_backend("emulator", chip=config.chip, device=where)))
    works: dict[tuple[str, str], Work] = {}
    for task in (TRAINING, LARGE):
        works |= {(task, name): Work(load.training(net, SIZES[task]), own) for name, net in nets.items()}
        works[task, HOST] = Work(load.training(replay, SIZES[task]), own)
    for task in (INFERENCE, THROUGHPUT):
        works |= {(task, name): Work(load.inference(net, SIZES[task]), own) for name, net in nets.items()}
    for name, backend in ((SOFTWARE, None), (CALIBRATED, create_backend("emulator", chip=config.chip, device=where))):
        recurrent = load.network(backend, hidden=[RECURRENT_NEURONS], recurrent=True)
        works[RECURRENT, name] = Work(load.training(recurrent, SIZES[RECURRENT]), own)
    cores = tuple(sorted({1, os.cpu_count() or 1})) if load.where.type == "cpu" else own
    tasks = {task: _task(load, nets[SOFTWARE], SIZES[task]) for task in (TRAINING, LARGE, INFERENCE, THROUGHPUT)}
    for task, given in tasks.items():
        floor = floor_works(load.spikes.stretch(0, SIZES[task]), given)
        works[task, FLOOR] = Work(floor["training" if task in (TRAINING, LARGE) else "inference"], cores)
    skipped: dict[str, str] = {}
    for name in installed() if config.peers else ():
        try:
            works |= _peer_works(name, tasks, cores)
        except Exception as error:
            skipped[name] = f"{type(error).__name__}: {error}"[:200]
            log.warning("%s is installed, but not timed: %s", name, skipped[name])
    return works, skipped


def _peer_works(name: str, tasks: dict[str, Task], cores: tuple[int, ...]) -> dict[tuple[str, str], Work]:
    """Return a peer's works; each is tried once."""
    threads = cores if PEERS[name].torch_threads else (cores[-1],)
    works = {}
    for task, given in tasks.items():
        peer = build(name, given)
        works[task, name] = Work(peer.train if task in (TRAINING, LARGE) else peer.infer, threads)
        works[task, name].run()
    return works


def _task(load: Workload, net: Network, samples: int) -> Task:
    """Return what peers are given: the spikes and weights of our software, and its activity."""
    spikes = load.spikes.stretch(0, samples)
    with torch.no_grad():
        activity = net(spikes).hidden_spikes() / samples
    decay, _ = net.decays(net.layers[0])
    hidden, readout = (weight.detach().clone() for weight in net.effective_weights())
    dense = spikes.to_grid(net.dt, net.steps)
    tau = net.layers[0].neurons.tau_mem
    return Task(dense, load.labels[:samples], hidden, readout, net.dt, tau, decay, activity, RATE)


def _timed(run: Callable[[], object], threads: int, where: str) -> Callable[[], object]:
    """Return a call that uses so many torch threads, and waits for what it has started on a GPU."""

    def work() -> object:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        found = run()
        if where != "cpu":
            torch.cuda.synchronize(where)
        return found

    return work


def _best(found: list[Speed]) -> list[Speed]:
    """Keep the better number of threads of each work, and sort by task and time."""
    best: dict[tuple[str, str], Speed] = {}
    for speed in found:
        place = speed.task, speed.work
        if place not in best or speed.time.middle < best[place].time.middle:
            best[place] = speed
    return sorted(best.values(), key=lambda speed: ([*SIZES].index(speed.task), speed.time.middle))


def _machine(config: BenchConfig, command: str) -> dict[str, Any]:
    """Return what it ran on."""
    return {
        "command": command,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "processor": _processor(),
        "torch_device": _torch_device(config.torch_device),
        "rounds": config.rounds,
        "chip": config.chip,
        "threads": config.threads,
        "versions": {**versions(), **(installed() if config.peers else {})},
    }


def _torch_device(name: str) -> str:
    """Return a torch device's name, and that of the card."""
    return name if torch.device(name).type != "cuda" else f"{name}: {torch.cuda.get_device_name(name)}"


def _processor() -> str:
    """Return the processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
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
    }
