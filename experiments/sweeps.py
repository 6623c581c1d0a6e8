"""Sweeps: how far one has come. Hydra calls this when a sweep and each of its jobs begin and end (`conf/train.yaml`).

A job finishes its run: it skips what is finished, continues what was interrupted. So the same command with the same
`hydra.sweep.dir` goes on where it stopped, whichever launcher runs the jobs.
"""

from __future__ import annotations

import json
import time
from math import prod
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

RESULTS = "result.json", "evaluation.json"
STATE, ENDED = "sweep.json", "sweep.log"


class SweepProgress(Callback):
    """Says after each job of a sweep how many are done, and about how long the rest will take."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write how many jobs there are, and how many results."""
        folder = Path(config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        words = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
        state = {"jobs": jobs([*words, *config.hydra.overrides.task]), "begin": time.time(), "done": finished(folder)}
        (folder / STATE).write_text(json.dumps(state) + "\n")
        (folder / ENDED).write_text("")
        print(f"sweep: {state['jobs']} runs, {state['done']} results are in {folder} already", flush=True)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Say how far the sweep has come."""
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        folder = Path(config.hydra.sweep.dir)
        state = json.loads((folder / STATE).read_text())
        with (folder / ENDED).open("a") as file:  # one line per job, from whichever process
            file.write(f"{config.hydra.job.num} {job_return.status.name}\n")
        ended = len((folder / ENDED).read_text().splitlines())
        print(progress(state, ended, finished(folder), time.time()), flush=True)


def progress(state: dict[str, Any], ended: int, results: int, now: float) -> str:
    """Return a line on a sweep.

    Args:
        state: that at its beginning.
        ended: jobs that came to their end, finished before or now, or failed.
        results: results in its folder now.
        now: the time (s since 1970).
    """
    left, new = state["jobs"] - ended, results - state["done"]
    text = f"sweep: {ended} of {state['jobs']} runs done"
    if new > 0 and left > 0:
        text += f", about {(now - state['begin']) / new * left / 60:.0f} min left"
    return text


def finished(folder: Path) -> int:
    """Return how many runs below a folder have a result."""
    return len({file.parent for name in RESULTS for file in folder.rglob(name)})


def jobs(words: list[str]) -> int:
    """Return how many combinations the overrides of a sweep have; a key that comes twice counts once, the last."""
    sizes = {}
    for override in OverridesParser.create().parse_overrides(words):
        swept = override.is_sweep_override()
        sizes[override.get_key_element()] = sum(1 for _ in override.sweep_string_iterator()) if swept else 1
    return prod(sizes.values())
