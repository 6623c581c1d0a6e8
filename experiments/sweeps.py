"""Sweeps: how far one has come. Hydra calls this when a sweep and each of its jobs begin and end (`conf/train.yaml`).

A job finishes its run: it skips what is finished, continues what was interrupted. So the same command with the same
`hydra.sweep.dir` goes on where it stopped, whichever launcher runs the jobs.
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
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

RESULTS = "result.json", "evaluation.json"
SWEEP = "HXTRAIN_SWEEP"
"""Environment variable by which the jobs of a sweep, in whichever process, know the sweep's own files."""
FOLDER = ".sweeps"


class SweepProgress(Callback):
    """Says after each job of a sweep how many are done, and about how long the rest will take.

    Several sweeps may share a folder at the same time; each counts its own jobs.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write how many jobs there are; say how many results."""
        folder = Path(config.hydra.sweep.dir)
        words = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
        state = {"jobs": jobs([*words, *config.hydra.overrides.task]), "begin": time.time()}
        os.environ[SWEEP] = uuid4().hex
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        _file(folder, "json").write_text(json.dumps(state) + "\n")
        print(f"sweep: {state['jobs']} runs, {finished(folder)} results are in {folder} already", flush=True)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Say how far the sweep has come."""
        folder = Path(config.hydra.sweep.dir)
        if config.hydra.mode != RunMode.MULTIRUN or not _file(folder, "json").exists():
            return
        state = json.loads(_file(folder, "json").read_text())
        anew = any(_newer(Path(config.hydra.runtime.output_dir) / name, state["begin"]) for name in RESULTS)
        with _file(folder, "log").open("a") as file:  # one line per job, from whichever process
            file.write("run\n" if anew else "found\n")
        ended = _file(folder, "log").read_text().splitlines()
        print(progress(state, len(ended), ended.count("run"), time.time()), flush=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Remove the sweep's own files."""
        folder = Path(config.hydra.sweep.dir)
        for kind in ("json", "log"):
            _file(folder, kind).unlink(missing_ok=True)
        with suppress(OSError):  # another sweep has files there
            (folder / FOLDER).rmdir()


def _file(folder: Path, kind: str) -> Path:
    return folder / FOLDER / f"{os.environ.get(SWEEP, 'unknown')}.{kind}"


def _newer(file: Path, begin: float) -> bool:
    return file.exists() and file.stat().st_mtime >= begin


def progress(state: dict[str, Any], ended: int, new: int, now: float) -> str:
    """Return a line on a sweep.

    Args:
        state: that at its beginning.
        ended: jobs that came to their end, finished before or now, or failed.
        new: those of them that gave a result now.
        now: the time (s since 1970).
    """
    left = state["jobs"] - ended
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
