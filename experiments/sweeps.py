"""Progress of sweeps. Hydra calls this at start and end of a sweep and of each of its jobs (`conf/train.yaml`).

A job finishes its run: it skips a finished run, and continues an interrupted one. So the same command with the same
`hydra.sweep.dir` continues an interrupted sweep, with any launcher.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any
from uuid import uuid4

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

RESULTS = ("result.json", "evaluation.json")
SWEEP = "HXTRAIN_SWEEP"
"""Environment variable that tells the jobs of a sweep, in any process, the names of the sweep's files."""
FOLDER = ".sweeps"
REPETITIONS = frozenset({"seed", "chip", "chip.name", "chip.seed", "chip.preset", "backend", "substrate", "replica"})
"""Settings in which the repetitions of a run differ, and the devices that it is run on."""


class SweepProgress(Callback):
    """Reports after each job of a sweep the number of finished jobs, and an estimate of the remaining time.

    Several sweeps may share a folder at the same time; each counts its own jobs.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the number of jobs, and report the number of results."""
        folder = Path(config.hydra.sweep.dir)
        words = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
        words += config.hydra.overrides.task
        state = {"jobs": jobs(words), "begin": time.time()}
        os.environ[SWEEP] = uuid4().hex
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        _file(folder, "json").write_text(json.dumps(state) + "\n")
        print(f"sweep: {state['jobs']} runs, {finished(folder)} results are in {folder} already", flush=True)
        if "data" in config and not holds_out(config):
            print(choice_on_test(words), end="", flush=True)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Report the progress of the sweep."""
        folder = Path(config.hydra.sweep.dir)
        if config.hydra.mode != RunMode.MULTIRUN or not _file(folder, "json").exists():
            return
        state = json.loads(_file(folder, "json").read_text())
        is_new = any(_newer(Path(config.hydra.runtime.output_dir) / name, state["begin"]) for name in RESULTS)
        with _file(folder, "log").open("a") as file:  # one line per job, from any process
            file.write("run\n" if is_new else "found\n")
        lines = _file(folder, "log").read_text().splitlines()
        print(progress(state, len(lines), lines.count("run"), time.time()), flush=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Remove the files of the sweep."""
        folder = Path(config.hydra.sweep.dir)
        for kind in ("json", "log"):
            _file(folder, kind).unlink(missing_ok=True)
        with suppress(OSError):  # another sweep has files there
            (folder / FOLDER).rmdir()


def holds_out(config: DictConfig) -> bool:
    """Return whether the runs of a sweep evaluate held out samples in place of the test samples."""
    names = ("validation", "validation_groups", "validation_random_groups")
    return any(config.data.get(name) for name in names)


def choice_on_test(words: list[str]) -> str:
    """Return a line on a sweep that compares settings by test samples; empty for one that repeats a run.

    Args:
        words: Overrides of the sweep, of runs without held out samples.
    """
    parsed = OverridesParser.create().parse_overrides(words)
    if any(override.get_key_element().startswith("data.validation") for override in parsed):
        return ""
    values = {override.get_key_element(): _values(override) for override in parsed}  # of a key, the last one counts
    varied = {key for key, count in values.items() if count > 1}
    settings = sorted(varied - REPETITIONS)
    if not settings:
        return ""
    return (
        f"note: runs differ in {', '.join(settings)} and are evaluated on test samples: the best of them is chosen on "
        "test samples; to choose, hold out training samples with data.validation=N or data.validation_groups=[...]\n"
    )


def _file(folder: Path, kind: str) -> Path:
    return folder / FOLDER / f"{os.environ.get(SWEEP, 'unknown')}.{kind}"


def _newer(file: Path, begin: float) -> bool:
    return file.exists() and file.stat().st_mtime >= begin


def progress(state: dict[str, Any], ended: int, new: int, clock: float) -> str:
    """Return a line on the progress of a sweep.

    Args:
        state: State at the start of the sweep.
        ended: Number of ended jobs: skipped, finished or failed.
        new: Number of ended jobs with a new result.
        clock: Current time (s since 1970).
    """
    remaining = state["jobs"] - ended
    text = f"sweep: {ended} of {state['jobs']} runs done"
    if new > 0 and remaining > 0:
        text += f", about {(clock - state['begin']) / new * remaining / 60:.0f} min left"
    return text


def finished(folder: Path) -> int:
    """Return the number of runs below a folder that have a result."""
    return len({file.parent for name in RESULTS for file in folder.rglob(name)})


def jobs(words: list[str]) -> int:
    """Return the number of combinations of the overrides of a sweep; of a repeated key, the last one counts."""
    sizes = {}
    for override in OverridesParser.create().parse_overrides(words):
        sizes[override.get_key_element()] = _values(override)
    return prod(sizes.values())


def _values(override: Override) -> int:
    """Return the number of values of an override."""
    return sum(1 for _ in override.sweep_string_iterator()) if override.is_sweep_override() else 1
