"""What a server costs: runs of an emulated chip in this process and behind a server on the same machine, in turns."""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch

from hxtrain.backends import Backend, DeviceError, Spikes, Stimulus, create_backend
from hxtrain.backends.remote import Server, ServerSettings
from hxtrain.config import NetworkConfig
from hxtrain.datasets import load_dataset
from hxtrain.encoders import LatencyEncoder
from hxtrain.placement import place
from hxtrain.training.evaluation import intensities
from hxtrain.training.metrics import write_json
from hxtrain.training.process import keep_freed_memory, tuned
from hxtrain.training.versions import versions

from .bench import BenchConfig

BATCHES = (25, 50, 100)
START = 120.0
"""Longest start of the server (s)."""


class LinkTiming(NamedTuple):
    """Medians of one run (s) here and behind the server, and the throughput there over that here, with quartiles."""

    batch: int
    here: float
    there: float
    ratio: float
    low: float
    high: float


def bench_link(
    config: BenchConfig, folder: Path, command: str, report: Callable[[int, int], None] = lambda done, total: None
) -> list[LinkTiming]:
    """Time runs of a chip with and without a server between; write `bench_link.json` into `folder`.

    Args:
        config: all settings; the batches are `BATCHES`.
        folder: where the result goes.
        command: how it was started, for the record.
        report: is told how many rounds of how many are done.
    """
    images = load_dataset("mnist").train.images[: max(BATCHES)]
    spikes = LatencyEncoder()(intensities(images))
    with tuned(config.threads), ExitStack() as stack:
        address = stack.enter_context(_server(config))
        devices = [create_backend("emulator", chip=config.chip), create_backend("remote", address=address)]
        works = [_runs(stack.enter_context(device), spikes) for device in devices]
        times: dict[int, tuple[list[float], list[float]]] = {batch: ([], []) for batch in BATCHES}
        for done in range(config.rounds + 1):
            for batch, found in times.items():
                pair = list(zip(works, found, strict=True))
                for work, seconds in pair if done % 2 else reversed(pair):
                    begin = time.perf_counter()
                    work(batch)
                    if done:  # the first round compiles and fills caches
                        seconds.append(time.perf_counter() - begin)
            report(done, config.rounds)
    timings = [_timing(batch, *found) for batch, found in times.items()]
    content = {"link": [timing._asdict() for timing in timings], "chip": config.chip, "rounds": config.rounds}
    write_json(folder / "bench_link.json", {**content, "command": command, "versions": versions()})
    return timings


def link_rows(timings: list[LinkTiming]) -> list[tuple[str, ...]]:
    """Return the table: batch, times of a run here and there, ratio of the throughputs and its quartiles."""
    return [
        (
            str(t.batch),
            f"{1e3 * t.here:.1f} ms",
            f"{1e3 * t.there:.1f} ms",
            f"{t.ratio:.2f}",
            f"{t.low:.2f}..{t.high:.2f}",
        )
        for t in timings
    ]


def _runs(backend: Backend, spikes: Spikes) -> Callable[[int], object]:
    """Configure a device and return what is timed: one run of a batch."""
    net = NetworkConfig(init_mean=8e-3).build(spikes.units, 10, seed=0)
    plan = place(net, backend.capabilities)
    backend.configure(plan.circuit)
    pieces = {batch: spikes.split(batch)[0] for batch in BATCHES}
    integers, _ = plan.quantise(net.effective_weights())

    def work(batch: int) -> object:
        with torch.no_grad():
            return backend.run(integers, Stimulus(pieces[batch]))

    return work


def _timing(batch: int, here: list[float], there: list[float]) -> LinkTiming:
    ratios = sorted(a / b for a, b in zip(here, there, strict=True))
    quarter = len(ratios) // 4
    middle = statistics.median
    return LinkTiming(batch, middle(here), middle(there), middle(ratios), ratios[quarter], ratios[-1 - quarter])


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
