"""Progress of sweeps. Hydra calls this at start and end of a sweep and of each of its jobs (`conf/train.yaml`).

A job finishes its run: it skips a finished run, and continues an interrupted one. So the same command with the same
`hydra.sweep.dir` continues an interrupted sweep, with any launcher.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from hxtrain.backends.text import printable

from .mistakes import MistakeError

RESULTS = ("result.json", "evaluation.json")
SWEEP = "HXTRAIN_SWEEP"
"""Environment variable that tells the jobs of a sweep, in any process, the names of the sweep's files."""
FOLDER = ".sweeps"
STOPPED = "stopped"
"""Line of a sweep's log for a run that was not begun."""
MOST_FAILURES = 20
"""Number of failed runs whose reasons are printed at the end."""
REPETITIONS = frozenset({"seed", "chip", "chip.name", "chip.seed", "chip.preset", "backend", "substrate", "replica"})
"""Settings in which the repetitions of a run differ, and the devices that it is run on."""


class SweepProgress(Callback):
    """Reports after each job of a sweep the number of finished jobs, and an estimate of the remaining time.

    Several sweeps may share a folder at the same time; each counts its own jobs.

    Args:
        dry_run: Whether to print the runs in their order, with what is finished, and end.
        on_error: `continue` with the remaining runs after an error, or `stop`.
    """

    def __init__(self, dry_run: bool = False, on_error: str = "continue") -> None:
        self._dry_run = dry_run
        self._on_error = on_error

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the number of jobs, and report the number of results."""
        folder = Path(config.hydra.sweep.dir)
        words = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
        words += config.hydra.overrides.task
        if self._dry_run:
            _end_with_plan(config, words, folder)
        state = {"jobs": jobs(words), "begin": time.time()}
        os.environ[SWEEP] = uuid4().hex
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        _file(folder, "json").write_text(json.dumps(state) + "\n", encoding="utf-8")
        print(f"sweep: {state['jobs']} runs, {finished(folder)} results are in {folder} already", flush=True)
        if "data" in config and not holds_out(config):
            print(choice_on_test(words), end="", flush=True)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Report the progress of the sweep."""
        folder = Path(config.hydra.sweep.dir)
        if config.hydra.mode != RunMode.MULTIRUN or not _file(folder, "json").exists():
            return
        state = json.loads(_file(folder, "json").read_text(encoding="utf-8"))
        place = Path(config.hydra.runtime.output_dir)
        error = job_return._return_value if job_return.status == JobStatus.FAILED else None
        is_new = any(_newer(place / name, state["begin"]) for name in RESULTS)
        line = _failure(place, error) if error is not None else "run" if is_new else "found"
        with _file(folder, "log").open("a", encoding="utf-8") as file:  # one line per job, from any process
            file.write(f"{line}\n")
        if error is not None and self._on_error == "stop" and not isinstance(error, SweepStoppedError):
            _file(folder, "stop").write_text(line, encoding="utf-8")
        lines = _file(folder, "log").read_text(encoding="utf-8").splitlines()
        print(progress(state, len(lines), lines.count("run"), time.time()), flush=True)
        if len(lines) < state["jobs"]:
            return
        for text in failures(lines):
            print(text, flush=True)
        _remove_files(folder)  # Hydra reports no end of a sweep with failures

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Remove the files of the sweep."""
        _remove_files(Path(config.hydra.sweep.dir))


class SweepStoppedError(RuntimeError):
    """A run of a sweep was not begun, since another one failed."""


def require_sweep() -> None:
    """Refuse a run of a sweep that has been stopped; called in the process of the run.

    Raises:
        SweepStoppedError: Another run failed, with `sweep.on_error=stop`.
    """
    file = _file(Path(HydraConfig.get().sweep.dir), "stop")
    if file.exists():
        text = file.read_text(encoding="utf-8")
        raise SweepStoppedError(f"not begun, with sweep.on_error=stop: {text}")


def failures(lines: list[str]) -> list[str]:
    """Return a text on the runs that failed, and on those that were not begun, from the lines of a sweep's log."""
    failed = [line for line in lines if line not in ("run", "found", STOPPED)]
    texts = [f"sweep: {line}" for line in failed[:MOST_FAILURES]]
    if len(failed) > MOST_FAILURES:
        texts.append(f"sweep: and {len(failed) - MOST_FAILURES} more runs failed")
    n_stopped = lines.count(STOPPED)
    return texts + ([f"sweep: {n_stopped} runs were not begun; the same command begins them"] if n_stopped else [])


def _failure(place: Path, error: Any) -> str:
    """Return the line of a run that failed, or was not begun."""
    if isinstance(error, SweepStoppedError):
        return STOPPED
    reason = printable(str(error).partition("\n")[0], 300)
    return f"{place.name} failed: {type(error).__name__}: {reason}"


def _end_with_plan(config: DictConfig, words: list[str], folder: Path) -> NoReturn:
    """Print the runs of a sweep, and end the program."""
    from .dry_run import planned, summary  # what the runs do is not imported for their progress

    try:
        plan = list(planned(config, words))
    except MistakeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    finally:
        _remove_empty(folder.absolute())
    for job in plan:
        print(job)
    print(summary(plan), flush=True)
    sys.exit(2 if any(job.reason for job in plan) else 0)


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


def _remove_empty(folder: Path) -> None:
    """Remove a folder and those above it, up to the first that holds anything or the current one."""
    with suppress(OSError):
        for place in [folder, *folder.parents]:
            if Path.cwd().is_relative_to(place):
                return
            place.rmdir()


def _file(folder: Path, kind: str) -> Path:
    return folder / FOLDER / f"{os.environ.get(SWEEP, 'unknown')}.{kind}"


def _remove_files(folder: Path) -> None:
    """Remove the files of the sweep."""
    for kind in ("json", "log", "stop"):
        _file(folder, kind).unlink(missing_ok=True)
    with suppress(OSError):  # another sweep has files there
        (folder / FOLDER).rmdir()


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
