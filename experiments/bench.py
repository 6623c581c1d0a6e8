"""`hxtrain bench`: time training beside other libraries, the features of an emulated chip, or a chip server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from omegaconf import DictConfig

from hxtrain.backends import DeviceError
from hxtrain.runs.progress import Progress

from .app import command_line, guarded, run_directory, typed_settings
from .benchmark import (
    BenchConfig,
    bench_link,
    bench_pool,
    bench_realism,
    bench_recurrent,
    bench_rules,
    bench_scale,
    bench_snapshots,
    bench_speed,
    link_rows,
    plot_scale,
    plot_speed,
    pool_rows,
    rule_rows,
    scale_rows,
    snapshot_rows,
    speed_rows,
    timing_rows,
)
from .benchmark.snapshots import BATCH
from .command import command
from .folders import own_directory


@command("bench")
def main(config: DictConfig) -> None:
    """Run a suite."""
    guarded(lambda: _bench(config))


def _bench(config: DictConfig) -> None:
    settings = typed_settings(config)
    progress = Progress()
    suite, result = SUITES[settings.suite]
    with own_directory(f"{result}.json", f"{result}.png") as folder:
        outcome = suite(settings)
    progress.table(outcome.title, outcome.columns, outcome.rows)
    progress.say(f"results: {folder}")
    if outcome.failures:
        raise DeviceError("; ".join(outcome.failures))


class Outcome(NamedTuple):
    """A table of results, and texts on what is not as it must be."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    failures: Sequence[str] = ()


SPEED_COLUMNS = ("task", "who", "time", "quartiles", "processor time", "samples", "time / our software's")


def _speed(config: BenchConfig) -> Outcome:
    speeds = bench_speed(config, run_directory(), command_line())
    plot_speed(speeds, run_directory() / "bench.png")
    return Outcome("256-246-10 on 16x16 MNIST, 20 steps", SPEED_COLUMNS, speed_rows(speeds))


def _recurrent(config: BenchConfig) -> Outcome:
    speeds = bench_recurrent(config, run_directory(), command_line())
    plot_speed(speeds, run_directory() / "bench_recurrent.png")
    return Outcome("70-186-20 with recurrence on random events, 100 steps", SPEED_COLUMNS, speed_rows(speeds))


def _scale(config: BenchConfig) -> Outcome:
    growths = bench_scale(config, run_directory(), command_line())
    plot_scale(growths, run_directory() / "bench_scale.png")
    columns = ("what", "axis", "size", "time per step", "samples", "memory", "exponent")
    return Outcome("training step, 256-246-10 at batch 100 and 20 steps but for one axis", columns, scale_rows(growths))


def _realism(config: BenchConfig) -> Outcome:
    timings = bench_realism(config, run_directory(), command_line())
    columns = ("feature", "without", "with", "ratio", "quartiles")
    return Outcome(f"one run of {config.batch} samples, 256-246-10", columns, timing_rows(timings))


def _remote(config: BenchConfig) -> Outcome:
    timings = bench_link(config, run_directory(), command_line())
    columns = ("work", "in the process", "behind a server", "ratio of throughputs", "quartiles")
    return Outcome("256-246-10", columns, link_rows(timings))


def _rules(config: BenchConfig) -> Outcome:
    timings, refusals = bench_rules(config, run_directory(), command_line())
    rows = [*rule_rows(timings), *((place, "", rule, reason, "", "", "") for rule, place, reason in refusals)]
    columns = ("device", "network", "rule", "epoch", "ratio to surrogate gradients", "quartiles", "limit")
    return Outcome("an epoch of 16x16 MNIST, batches of 100", columns, rows)


def _pool(config: BenchConfig) -> Outcome:
    timings = bench_pool(config, run_directory(), command_line())
    columns = (
        "phase",
        "done once",
        "bit-equal",
        "kills",
        "trials / needed",
        "busy while queued",
        "leases",
        "lost",
        "expired",
        "longest silence (heartbeats)",
        "time",
    )
    failures = [text for timing in timings for text in timing.failures]
    return Outcome("short runs in a pool of chips", columns, pool_rows(timings), failures)


def _snapshots(config: BenchConfig) -> Outcome:
    timings = bench_snapshots(config, run_directory(), command_line())
    columns = ("network", "device", "step", "snapshot", "size", "written", "share of the time", "ratio of blocks")
    return Outcome(f"steps of {BATCH} samples, with and without snapshots", columns, snapshot_rows(timings))


SUITES = {
    "speed": (_speed, "bench"),
    "recurrent": (_recurrent, "bench_recurrent"),
    "scale": (_scale, "bench_scale"),
    "realism": (_realism, "bench"),
    "remote": (_remote, "bench_link"),
    "rules": (_rules, "bench_rules"),
    "pool": (_pool, "bench_pool"),
    "snapshots": (_snapshots, "bench_snapshots"),
}
"""Suites by name, each with the name of its result files."""
