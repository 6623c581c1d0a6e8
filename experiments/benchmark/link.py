"""Cost of a chip server: the same work on an emulated chip in this process, and through a server on this machine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from hxtrain.backends import create_backend
from hxtrain.network import Network
from hxtrain.runs.metrics import write_json
from hxtrain.runs.process import tuned
from hxtrain.runs.versions import versions

from .config import BenchConfig
from .processes import Service, serve_chip
from .rounds import Report, in_turns, ratios, spread
from .workload import Workload

BATCHES = (25, 100)
"""Trials of single runs; the trace memory holds 25 of them."""
TRAINING = 100
"""Samples of a training step."""
INFERENCE = 500
"""Samples of a batch of evaluation."""


class LinkTiming(NamedTuple):
    """Median times of a work (s), in this process and through the server, and throughput ratio, remote over local."""

    work: str
    local: float
    remote: float
    ratio: float
    low: float
    high: float


def bench_link(
    config: BenchConfig, folder: Path, command: str, report: Report = lambda count, total: None
) -> list[LinkTiming]:
    """Time work on a chip with and without a server; write `bench_link.json` into `folder`.

    Args:
        config: All settings; the numbers of samples are fixed.
        folder: Folder of `bench_link.json`.
        command: Command that started the benchmark, for the record.
        report: Called with the number of finished rounds and the number of all rounds.
    """
    with tuned(config.threads), ExitStack() as stack:
        server = Service(serve_chip, "tcp://127.0.0.1:*", config.chip.name, "calibrated", config.threads)
        stack.callback(server.end)
        address = server.address()
        load = Workload(stack, INFERENCE)
        places = {
            "local": create_backend("emulator", chip=config.chip.name),
            "remote": create_backend("remote", address=address),
        }
        works = {
            (name, place): work
            for place, backend in places.items()
            for name, work in _works(load, load.network(backend)).items()
        }
        times = in_turns(works, config.rounds, report)
    names = list(dict.fromkeys(work for work, _ in works))
    timings = [_timing(name, times[name, "local"], times[name, "remote"]) for name in names]
    content = {"link": [_plain(timing) for timing in timings], "chip": config.chip.name, "rounds": config.rounds}
    write_json(folder / "bench_link.json", {**content, "command": command, "versions": versions()})
    return timings


def link_rows(timings: list[LinkTiming]) -> list[tuple[str, ...]]:
    """Return the table: work, local and remote time, ratio of the throughputs and its quartiles."""
    return [
        (
            t.work,
            f"{1e3 * t.local:.1f} ms",
            f"{1e3 * t.remote:.1f} ms",
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


def _timing(work: str, local: list[float], remote: list[float]) -> LinkTiming:
    return LinkTiming(work, spread(local).middle, spread(remote).middle, *ratios(local, remote))


def _plain(timing: LinkTiming) -> dict[str, str | float]:
    """Return a timing with the keys of the file."""
    names = {"local": "here", "remote": "there"}
    return {names.get(name, name): value for name, value in timing._asdict().items()}
