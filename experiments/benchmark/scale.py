"""Growth of the cost of a training step with batch, time steps, neurons and layers, and throughput of parallel chips.

Every point is measured in a separate process, which also reports its peak memory.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hxtrain.backends import create_backend
from hxtrain.datasets import intensities, load_dataset
from hxtrain.datasets.encoders import LatencyEncoder
from hxtrain.execution import Device
from hxtrain.network import NetworkConfig
from hxtrain.objectives import Burst, MaxOverTime
from hxtrain.rules import train_step
from hxtrain.runs.metrics import write_json
from hxtrain.runs.process import tuned
from hxtrain.runs.versions import versions

from .config import BenchConfig
from .rounds import Report
from .workload import INIT_MEAN, RATE

KINDS = ("software", "calibrated emulated chip")
SHORTEST = 0.5
"""Shortest time of the measurement of a point (s), which has `rounds` steps or more."""


@dataclass(frozen=True)
class Point:
    """A training step of a certain size.

    Attributes:
        kind: One of `KINDS`.
        axis: Name of the varied quantity.
        batch: Number of samples.
        steps: Number of time steps.
        hidden: Sizes of hidden layers.
        processes: Number of processes that train at the same time.
    """

    kind: str
    axis: str
    batch: int = 100
    steps: int = 20
    hidden: tuple[int, ...] = (246,)
    processes: int = 1

    @property
    def size(self) -> int:
        """Value of the varied quantity."""
        sizes = {"batch": self.batch, "time steps": self.steps, "layers": len(self.hidden), "processes": self.processes}
        return sizes.get(self.axis, self.hidden[0])


class Scaling(NamedTuple):
    """A point, its time per step (s), throughput of all processes (samples / s) and peak memory of one (bytes).

    The memory is None on systems that do not report it.
    """

    point: Point
    seconds: float
    throughput: float
    memory: int | None


@dataclass(frozen=True)
class Growth:
    """Growth of time: `seconds ~ size ** exponent` over the larger half of the points."""

    kind: str
    axis: str
    exponent: float
    points: list[Scaling] = field(default_factory=list)


def points() -> list[Point]:
    """Return all points: up to the steps of a trial on the chip, and beyond its neurons; layers have 64 neurons."""
    grid = []
    for kind in KINDS:
        grid += [Point(kind, "batch", batch=batch) for batch in (25, 50, 100, 200, 400, 800, 1600)]
        grid += [Point(kind, "time steps", steps=steps) for steps in (7, 14, 28, 56, 112)]
        grid += [Point(kind, "neurons", hidden=(size,)) for size in (32, 64, 128, 246, 492, 984)]
        grid += [Point(kind, "layers", hidden=(64,) * count) for count in (1, 2, 3, 4, 6)]
        grid += [Point(kind, "processes", processes=count) for count in (1, 2, 4)]
    return grid


def bench_scale(
    config: BenchConfig,
    folder: Path,
    command: str,
    report: Report = lambda count, total: None,
    selection: Sequence[Point] | None = None,
) -> list[Growth]:
    """Measure all points; write `bench_scale.json` into `folder`.

    Args:
        config: All settings; `rounds` is the smallest number of steps of a point.
        folder: Folder of `bench_scale.json`.
        command: Command that started the benchmark, for the record.
        report: Called with the number of finished points and the number of all points.
        selection: Points to measure; None for `points()`.
    """
    grid = points() if selection is None else list(selection)
    scalings = []
    for count, point in enumerate(grid, 1):
        scalings.append(_measure(point, config))
        report(count, len(grid))
    groups = dict.fromkeys((scaling.point.kind, scaling.point.axis) for scaling in scalings)
    growths = [_growth(*group, [s for s in scalings if (s.point.kind, s.point.axis) == group]) for group in groups]
    content = {"growth": [asdict(growth) for growth in growths], "chip": config.chip.name, "rounds": config.rounds}
    write_json(folder / "bench_scale.json", {**content, "command": command, "versions": versions()})
    return growths


def scale_rows(growths: list[Growth]) -> list[tuple[str, ...]]:
    """Return the table: kind, axis, size, time, throughput, memory and exponent."""
    return [
        (
            growth.kind,
            growth.axis,
            str(s.point.size),
            f"{1e3 * s.seconds:.2f} ms",
            f"{s.throughput:,.0f} / s",
            "unknown" if s.memory is None else f"{s.memory / 2**20:,.0f} MiB",
            f"{growth.exponent:.2f}" if s is growth.points[-1] else "",
        )
        for growth in growths
        for s in growth.points
    ]


def _measure(point: Point, config: BenchConfig) -> Scaling:
    """Measure a point in fresh processes, which train at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(point.processes)
    with ProcessPoolExecutor(point.processes, context, initializer=_meet, initargs=(barrier,)) as pool:
        works = [pool.submit(_work, point, config) for _ in range(point.processes)]
        results = [work.result() for work in works]
    times, memory = zip(*results, strict=True)
    throughput = sum(point.batch / seconds for seconds in times)
    return Scaling(point, statistics.median(times), throughput, _largest(memory))


_barrier: Any = None


def _meet(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _work(point: Point, config: BenchConfig) -> tuple[float, int | None]:
    """Return the median time of a training step (s) and the peak memory of this process (bytes)."""
    with tuned(config.threads), ExitStack() as stack:
        images = load_dataset("mnist").train
        spikes = LatencyEncoder()(intensities(images.images[: point.batch]))
        labels = images.labels[: point.batch]
        settings = NetworkConfig(hidden=list(point.hidden), steps=point.steps, init_mean=INIT_MEAN)
        net = settings.build(spikes.units, 10, seed=0)
        if point.kind != KINDS[0]:
            net.attach(stack.enter_context(Device(create_backend("emulator", chip=config.chip.name))))
        optimizer = torch.optim.Adam(net.parameters(), lr=RATE, fused=True)

        def step() -> float:
            start = time.perf_counter()
            train_step(net, MaxOverTime(), [Burst()], optimizer, spikes, labels)
            return time.perf_counter() - start

        step()
        _barrier.wait()
        times = [step() for _ in range(2)][1:]
        while len(times) < config.rounds or sum(times) < SHORTEST:
            times.append(step())
    return statistics.median(times), peak_memory()


def peak_memory() -> int | None:
    """Return the peak memory of this process (bytes); None on Windows, where Python cannot measure it."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _largest(memory: Sequence[int | None]) -> int | None:
    return max((size for size in memory if size is not None), default=None)


def _growth(kind: str, axis: str, scalings: list[Scaling]) -> Growth:
    upper = scalings[len(scalings) // 2 :] if len(scalings) > 3 else scalings
    x = [math.log(s.point.size) for s in upper]
    y = [math.log(s.seconds) for s in upper]
    x_mean, y_mean = statistics.mean(x), statistics.mean(y)
    spread = sum((a - x_mean) ** 2 for a in x)
    slope = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / spread if spread else math.nan
    return Growth(kind, axis, slope, scalings)
