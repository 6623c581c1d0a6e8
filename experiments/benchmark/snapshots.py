"""Cost of the live view's snapshots: blocks of training steps with and without them, in turns, in one process.

Two figures tell the cost. The ratio of the times of two blocks of the same round holds everything, and the noise of the
machine. The share of the time that passes within the calls of `Snapshots` is exact to a clock's reading, and leaves out
what they do to caches. The first snapshot, which compiles and imports, falls into a round without timing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from hxtrain.backends import Backend, create_backend
from hxtrain.network import Network
from hxtrain.runs.metrics import write_json
from hxtrain.runs.process import tuned
from hxtrain.runs.versions import processor, versions
from hxtrain.training.snapshots import Snapshots

from .config import BenchConfig
from .rounds import Report, Spread, in_turns, ratios, spread
from .workload import RecurrentWorkload, Workload

BATCH = 100
"""Samples of a step."""
BLOCK = 2.0
"""Least time of a block of steps (s); the next snapshot waits for half a second or more."""
TRIAL_STEPS = 5
"""Steps that tell how many make a block."""
LIMIT = 0.01
"""Share of the time that snapshots are meant to take at most."""


class SnapshotTiming(NamedTuple):
    """Cost of snapshots for a network on a device.

    Attributes:
        network: Sizes of the network.
        place: Name of the device.
        step: Median time of a step without snapshots (s).
        write: Median time of a snapshot (s).
        size: Size of a snapshot (bytes).
        written: Number of snapshots.
        share: Share of the time of all blocks with snapshots that passes within the calls of `Snapshots`.
        ratio: Time of a block with snapshots to one without in the same round.
    """

    network: str
    place: str
    step: float
    write: float
    size: int
    written: int
    share: float
    ratio: Spread


class _Block:
    """A block of training steps on a network, with snapshots or without.

    Args:
        net: Network.
        load: Workload with the samples.
        folder: Folder of the snapshots.
    """

    epochs = 10**6
    epoch = 0
    steps_per_epoch = 10**9

    def __init__(self, net: Network, load: Workload, folder: Path) -> None:
        self._step: Callable[[], Any] = load.training(net, BATCH)
        self._labels = load.labels[:BATCH]
        self._passed = 0.0
        self._started: float | None = None
        self.step = 0
        self.snapshots = Snapshots(folder, net, _refuse, clock=self._clock)
        self.writes: list[float] = []
        self.times: list[tuple[float, float]] = []
        self._step()
        start = time.perf_counter()
        for _ in range(TRIAL_STEPS):
            self._step()
        self.count = math.ceil(BLOCK * TRIAL_STEPS / (time.perf_counter() - start))

    def _clock(self) -> float:
        """Return the time that has passed in blocks with snapshots, as in one training."""
        return self._passed + (0.0 if self._started is None else time.perf_counter() - self._started)

    def plain(self) -> None:
        """Run the steps without snapshots."""
        for _ in range(self.count):
            self._step()

    def watched(self) -> None:
        """Run the steps with snapshots."""
        self._started = time.perf_counter()
        inside = 0.0
        for _ in range(self.count):
            start = time.perf_counter()
            self.snapshots.prepare(self)
            between = time.perf_counter()
            step = self._step()
            file = self.snapshots.file
            mark = file.stat().st_mtime_ns if file.exists() else None
            values = {"loss": 1.0, "accuracy": 0.5, "hidden_spikes": 40.0, "samples_per_second": 1e4, "chip_seconds": 1}
            begin = time.perf_counter()
            self.snapshots.add(self, step.activity, self._labels, values)
            call = time.perf_counter() - begin
            self.step += 1
            inside += between - start + call
            if file.stat().st_mtime_ns != mark:
                self.writes.append(call)
        elapsed = time.perf_counter() - self._started
        self._passed += elapsed
        self._started = None
        self.times.append((inside, elapsed))


def bench_snapshots(
    config: BenchConfig, folder: Path, command: str, report: Report = lambda count, total: None
) -> list[SnapshotTiming]:
    """Time blocks of steps in turns; write `bench_snapshots.json` into `folder`.

    Args:
        config: All settings.
        folder: Folder of `bench_snapshots.json`.
        command: Command that started the benchmark, for the record.
        report: Called with the number of finished rounds and the number of all rounds.

    Raises:
        RuntimeError: A snapshot fails.
    """
    with tuned(config.threads), ExitStack() as stack:
        blocks = _blocks(config, stack, Path(stack.enter_context(TemporaryDirectory())))
        works = {
            (*name, is_live): block.watched if is_live else block.plain
            for name, block in blocks.items()
            for is_live in (False, True)
        }
        times = in_turns(works, config.rounds, report)
        timings = [_timing(name, block, times[(*name, False)], times[(*name, True)]) for name, block in blocks.items()]
    content = {"snapshots": [_as_dict(timing) for timing in timings], "limit": LIMIT, "chip": config.chip.name}
    record = {"rounds": config.rounds, "threads": config.threads, "processor": processor(), "command": command}
    write_json(folder / "bench_snapshots.json", {**content, **record, "versions": versions()})
    return timings


def snapshot_rows(timings: list[SnapshotTiming]) -> list[tuple[str, ...]]:
    """Return the table: network, device, step, snapshot, size, number, share and ratio with its quartiles."""
    return [
        (
            timing.network,
            timing.place,
            f"{1e3 * timing.step:.1f} ms",
            f"{1e3 * timing.write:.1f} ms",
            f"{timing.size / 1000:.0f} kB",
            str(timing.written),
            f"{timing.share:.2%}",
            f"{timing.ratio.middle:.3f} ({timing.ratio.low:.3f} to {timing.ratio.high:.3f})",
        )
        for timing in timings
    ]


def _blocks(config: BenchConfig, stack: ExitStack, folder: Path) -> dict[tuple[str, str], _Block]:
    """Return the blocks by network and device."""
    loads = {
        "256-246-10, 20 steps": Workload(stack, BATCH, config.torch_device),
        "70-186-20 recurrent, 100 steps": RecurrentWorkload(stack, BATCH, config.torch_device),
    }
    blocks: dict[tuple[str, str], _Block] = {}
    for network, load in loads.items():
        places: dict[str, Backend | None] = {
            "software": None,
            f"chip {config.chip.name}": create_backend("emulator", chip=config.chip.name, device=config.torch_device),
        }
        for place, backend in places.items():
            run = folder / str(len(blocks))
            run.mkdir()
            blocks[network, place] = _Block(load.network(backend), load, run)
    return blocks


def _timing(name: tuple[str, str], block: _Block, plain: list[float], watched: list[float]) -> SnapshotTiming:
    inside, elapsed = map(sum, zip(*block.times[-len(plain) :], strict=True))
    size = block.snapshots.file.stat().st_size
    writes = block.writes[1:] or block.writes  # the first one compiles and imports
    step = spread(plain).middle / block.count
    written = len(block.writes)
    return SnapshotTiming(*name, step, spread(writes).middle, size, written, inside / elapsed, ratios(watched, plain))


def _as_dict(timing: SnapshotTiming) -> dict[str, Any]:
    return {**timing._asdict(), "ratio": timing.ratio._asdict()}


def _refuse(text: str) -> None:
    raise RuntimeError(text)
