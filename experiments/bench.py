"""`hxtrain-bench`: what the realism of an emulated chip costs, or a server between it and the host."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig
from rich.markup import escape

from hxtrain.studies.bench import bench_link, bench_realism, link_rows, timing_rows
from hxtrain.training import Progress

from .app import command_line, guarded, run_directory, typed
from .schema import register

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="bench")
def main(config: DictConfig) -> None:
    """Time every feature with and without, or runs with and without a server."""
    guarded(lambda: _bench(config))


def _bench(config: DictConfig) -> None:
    settings, folder, progress = typed(config), run_directory(), Progress()
    if settings.suite == "remote":
        table = ("work", "in the process", "behind a server", "ratio of throughputs", "quartiles")
        progress.table("256-246-10", table, link_rows(bench_link(settings, folder, command_line())))
        progress.say(f"bench_link.json: {escape(str(folder))}")
        return
    timings = bench_realism(settings, folder, command_line())
    columns = ("feature", "without", "with", "ratio", "quartiles")
    progress.table(f"one run of {settings.batch} samples, 256-246-10", columns, timing_rows(timings))
    progress.say(f"bench.json: {escape(str(folder))}")
