"""What a server costs: the same work on an emulated chip in this process and behind a server on this machine."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from hxtrain.backends import DeviceError, create_backend
from hxtrain.backends.remote import Server, ServerSettings
from hxtrain.network import Network
from hxtrain.runs.metrics import write_json
from hxtrain.runs.process import keep_freed_memory, tuned
from hxtrain.runs.versions import versions

from .config import BenchConfig
from .rounds import Report, in_turns, ratios, spread
from .workload import Workload

BATCHES = (25, 100)
"""Trials of single runs; the trace memory holds 25 of them."""
TRAINING, INFERENCE = 100, 500
"""Samples of a training step and of a batch of evaluation."""
START = 120.0
"""Longest start of the server (s)."""


class LinkTiming(NamedTuple):
    """Medians of the time of a work here and behind the server (s), and of the throughput there over that here."""

    work: str
    here: float
    there: float
    ratio: float
    low: float
    high: float


def bench_link(
    config: BenchConfig, folder: Path, command: str, report: Report = lambda done, total: None
) -> list[LinkTiming]:
    """Time work on a chip with and without a server between; write `bench_link.json` into `folder`.

    Args:
        config: all settings; the numbers of samples are fixed.
        folder: where the result goes.
        command: how it was started, for the record.
        report: is told how many rounds of how many are done.
    """
    with tuned(config.threads), ExitStack() as stack:
        address = stack.enter_context(_server(config))
        load = Workload(stack, INFERENCE)
        places = {
            "here": create_backend("emulator", chip=config.chip),
            "there": create_backend("remote", address=address),
        }
        works = {
            (name, place): work
            for place, backend in places.items()
            for name, work in _works(load, load.network(backend)).items()
        }
        times = in_turns(works, config.rounds, report)
    names = list(dict.fromkeys(work for work, _ in works))
    timings = [_timing(name, times[name, "here"], times[name, "there"]) for name in names]
    content = {"link": [timing._asdict() for timing in timings], "chip": config.chip, "rounds": config.rounds}
    write_json(folder / "bench_link.json", {**content, "command": command, "versions": versions()})
    return timings


def link_rows(timings: list[LinkTiming]) -> list[tuple[str, ...]]:
    """Return the table: work, times here and there, ratio of the throughputs and its quartiles."""
    return [
        (
            t.work,
            f"{1e3 * t.here:.1f} ms",
            f"{1e3 * t.there:.1f} ms",
            f"{t.ratio:.2f}",
            f"{t.low:.2f}..{t.high:.2f}",
        )
        for t in timings
    ]


def _works(load: Workload, net: Network) -> dict[str, Callable[[], object]]:
    return {
        f"training step, {TRAINING} samples": load.training(net, TRAINING),
        f"evaluation, {INFERENCE} samples": load.inference(net, INFERENCE),
        **{f"one run, {batch} samples": load.single_run(net, batch) for batch in BATCHES},
    }


def _timing(work: str, here: list[float], there: list[float]) -> LinkTiming:
    return LinkTiming(work, spread(here).middle, spread(there).middle, *ratios(here, there))


@contextmanager
def _server(config: BenchConfig) -> Iterator[str]:
    """Serve the chip in a process of its own; yields the address."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, config.chip, config.threads), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(START):
            raise DeviceError(f"the server did not start within {START:g} s; is the machine busy?")
        yield ours.recv()
    finally:
        ours.close()
        process.join(START)


def _serve(connection: Connection, chip: str, threads: int) -> None:
    """Serve until the other end of the connection closes."""
    keep_freed_memory()
    settings = ServerSettings(bind="tcp://127.0.0.1:*", threads=threads)
    server = Server(create_backend("emulator", chip=chip), settings)
    connection.send(server.address)

    def wait() -> None:
        connection.poll(None)
        server.stop()

    threading.Thread(target=wait, daemon=True).start()
    server.serve()
