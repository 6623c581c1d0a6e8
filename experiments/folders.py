"""Run directories: one for each run, in which one process works, with one result."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from itertools import count
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from hxtrain.runs.lock import locked

Outcome = TypeVar("Outcome")
EXCLUDED = "hydra.job.config.override_dirname.exclude_keys"
"""Setting of Hydra: what a run's name in a sweep leaves out."""


class OwnFolder(Callback):
    """Makes the folder of a run or a sweep before Hydra does (`conf/common.yaml`), so that none is shared by chance."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make the folder of a run."""
        folder = _made(config.hydra.run)
        with read_write(config), open_dict(config):
            config.hydra.run.dir = folder

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make the folder of a sweep, whose jobs are composed anew: they learn of it as of a setting."""
        folder = _made(config.hydra.sweep)
        text = folder.replace("\\", "\\\\").replace("'", "\\'")
        with read_write(config), open_dict(config):
            config.hydra.sweep.dir = folder
            config.hydra.overrides.hydra += [f"hydra.sweep.dir='{text}'", f"{EXCLUDED}=[{','.join(_unnamed(config))}]"]


def _unnamed(config: DictConfig) -> list[str]:
    """Return the settings that names of a sweep's runs leave out: never one that tells its runs apart."""
    overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    swept = {override.key_or_group for override in overrides if override.is_sweep_override()}
    swept |= set(config.hydra.sweeper.get("params") or {})
    return [key for key in config.hydra.job.config.override_dirname.exclude_keys if key not in swept]


def _made(node: DictConfig) -> str:
    """Return the folder that `dir` names, which is there now; a new one beside it if the name comes from the clock."""
    folder, written = Path(node.dir), OmegaConf.to_container(node, resolve=False)
    by_clock = isinstance(written, dict) and "${now:" in str(written["dir"])
    leads = os.environ.get("RANK", "0") == "0"  # of parallel processes the first one's folder counts
    try:
        if by_clock and leads:
            return str(_new(folder))
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(
            f"error: the run directory {folder} cannot be made: {error.strerror}; name a folder in hydra.run.dir (a "
            "sweep's: hydra.sweep.dir) that can be written",
            file=sys.stderr,
        )
        sys.exit(2)
    return str(folder)


def _new(folder: Path) -> Path:
    """Make a folder that was not there, with a number behind its name if it was, and return it."""
    for number in count(1):
        place = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        with suppress(FileExistsError):
            place.mkdir(parents=True)
            return place
    raise AssertionError("unreachable")


class RunLog(logging.FileHandler):
    """A run's log: made with its first line, never through a link; a disk that is full stops no run."""

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(self.baseFilename, flags, 0o666)
        return open(descriptor, "a", encoding=self.encoding or "utf-8", errors=self.errors)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, if that is possible."""
        with suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say nothing: the line is on the terminal."""


class RotatedLog(RunLog, RotatingFileHandler):
    """The log of a command that runs for long: as a `RunLog`, and bounded."""


@contextmanager
def own_directory(*results: str) -> Iterator[Path]:
    """Hold the run directory for this process alone, and keep what results there are already, under a number.

    Args:
        results: files that will be written.

    Raises:
        CheckpointError: another process works there.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    with locked(folder):
        number = next(n for n in count(1) if not any(_numbered(folder / name, n).exists() for name in results))
        older = {folder / name: _numbered(folder / name, number) for name in results if (folder / name).exists()}
        for file, place in older.items():
            file.rename(place)
        try:
            yield folder
        finally:
            for file, place in older.items():
                _settle(file, place)


def _numbered(file: Path, number: int) -> Path:
    return file.with_name(f"{file.stem}-{number}{file.suffix}")


def _settle(file: Path, older: Path) -> None:
    """Say where an older result is; without a new one it stays where it was."""
    if file.exists():
        print(f"note: {file} is new, the one that was there is {older.name} now", file=sys.stderr)
    else:
        older.rename(file)


def alone(work: Callable[[], Outcome], *results: str) -> Callable[[], Outcome]:
    """Return work that holds the run directory for itself; results as those of `own_directory`."""

    def held() -> Outcome:
        with own_directory(*results):
            return work()

    return held
