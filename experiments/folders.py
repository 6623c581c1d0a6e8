"""Run directories: one per run, held by a single process, with one result."""

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
"""Setting of Hydra: keys that the name of a run in a sweep omits."""


class OwnFolder(Callback):
    """Creates the folder of a run or a sweep in place of Hydra (`conf/common.yaml`), so that none is shared."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Create the folder of a run."""
        folder = _create(config.hydra.run)
        with read_write(config), open_dict(config):
            config.hydra.run.dir = folder

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Create the folder of a sweep, and pass it to the jobs as a setting, since Hydra composes them anew."""
        folder = _create(config.hydra.sweep)
        text = folder.replace("\\", "\\\\").replace("'", "\\'")
        with read_write(config), open_dict(config):
            config.hydra.sweep.dir = folder
            config.hydra.overrides.hydra += [
                f"hydra.sweep.dir='{text}'",
                f"{EXCLUDED}=[{','.join(_omitted_keys(config))}]",
            ]


def _omitted_keys(config: DictConfig) -> list[str]:
    """Return the settings that the names of runs omit: never a setting that varies in the sweep."""
    overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    swept = {override.key_or_group for override in overrides if override.is_sweep_override()}
    swept |= set(config.hydra.sweeper.get("params") or {})
    return [key for key in config.hydra.job.config.override_dirname.exclude_keys if key not in swept]


def _create(node: DictConfig) -> str:
    """Create and return the folder that `dir` names; a name from the clock always gets a new folder."""
    folder = Path(node.dir)
    template = OmegaConf.to_container(node, resolve=False)
    is_by_clock = isinstance(template, dict) and "${now:" in str(template["dir"])
    leads = os.environ.get("RANK", "0") == "0"  # parallel processes share the folder of the first one
    try:
        if is_by_clock and leads:
            return str(_create_new(folder))
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(
            f"error: the run directory {folder} cannot be made: {error.strerror}; name a folder in hydra.run.dir (a "
            "sweep's: hydra.sweep.dir) that can be written",
            file=sys.stderr,
        )
        sys.exit(2)
    return str(folder)


def _create_new(folder: Path) -> Path:
    """Create and return a new folder, with a number after its name if the name is taken."""
    for number in count(1):
        place = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        with suppress(FileExistsError):
            place.mkdir(parents=True)
            return place
    raise AssertionError("unreachable")


class RunLog(logging.FileHandler):
    """Log of a run: created with its first line, never through a link; a full disk stops no run."""

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(self.baseFilename, flags, 0o666)
        return open(descriptor, "a", encoding=self.encoding or "utf-8", errors=self.errors)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, if that is possible."""
        with suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Do nothing: the line is on the terminal."""


class RotatedLog(RunLog, RotatingFileHandler):
    """Log of a command that runs for a long time: a `RunLog` of limited size."""


@contextmanager
def own_directory(*results: str) -> Iterator[Path]:
    """Lock the run directory for this process, and keep existing results under numbered names.

    Args:
        results: Files that the command writes.

    Raises:
        CheckpointError: Another process works in the directory.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    with locked(folder):
        number = next(n for n in count(1) if not any(_numbered(folder / name, n).exists() for name in results))
        archive = {folder / name: _numbered(folder / name, number) for name in results if (folder / name).exists()}
        for file, numbered_file in archive.items():
            file.rename(numbered_file)
        try:
            yield folder
        finally:
            for file, numbered_file in archive.items():
                _settle(file, numbered_file)


def _numbered(file: Path, number: int) -> Path:
    return file.with_name(f"{file.stem}-{number}{file.suffix}")


def _settle(file: Path, older: Path) -> None:
    """Report the new name of an older result; without a new result, restore its name."""
    if file.exists():
        print(f"note: {file} is new, the previous one is {older.name} now", file=sys.stderr)
    else:
        older.rename(file)


def alone(work: Callable[[], Outcome], *results: str) -> Callable[[], Outcome]:
    """Return a function that locks the run directory while it works. The results are those of `own_directory`."""

    def locked_work() -> Outcome:
        with own_directory(*results):
            return work()

    return locked_work
