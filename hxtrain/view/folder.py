"""Run directories as the page sees them. Files are only read: regular ones, by their fixed names, without links."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hxtrain.runs.holder import LOCK, Holder, parse_holder
from hxtrain.runs.plain import CONFIG, LIVE, METRICS, RESULT, check_plain, differing_settings, parse_json
from hxtrain.runs.plain_yaml import check_yaml

MOST_RUNS = 500
"""Number of runs that a page shows; further ones are left out."""
MOST_FOLDERS = 20_000
"""Number of folders that a search for runs visits."""
DEEPEST = 6
"""Depth below the folder in which runs are searched."""
LARGEST = 16 * 2**20
"""Largest file that is read (bytes)."""
LONGEST_SETTINGS = 2**18
"""Largest `config.yaml` that is read (bytes)."""
MOST_DIFFERENCES = 4
"""Number of settings that tell runs apart in their table."""
SEARCH_INTERVAL = 2.0
"""Time between two searches for runs (s)."""
SIGN_OF_LIFE = 120.0
"""Time without a new file after which a run of another machine counts as stopped (s)."""
RESULTS = (
    "test_accuracy", "evaluated_on", "train_accuracy", "epochs", "seconds", "samples_per_second", "backend", "chip",
    "preset", "chip_hash", "data", "data_size", "seed", "chip_seconds_per_sample", "chip_joules_per_sample",
    "decision_seconds", "hidden_spikes_per_sample", "train_samples", "notes", "selected_epoch",
)  # fmt: skip
"""Entries of a result that the page gets."""
RECORDS = (
    "epoch", "train_loss", "train_accuracy", "test_accuracy", "hidden_spikes_per_sample", "samples_per_second",
    "seconds", "chip_seconds", "score", "success", "notes", "dropped_spikes", "retries",
)  # fmt: skip
"""Entries of a record that the page gets."""
_PLACE = re.compile(
    rb'^\{"format":1,"written":([0-9.]+),"epoch":(\d+),"epochs":(\d+),"step":(\d+),"steps_per_epoch":(\d+),'
)
"""Start of a snapshot, see `training/snapshots.py`."""


def read_regular(path: Path, limit: int = LARGEST, length: int | None = None) -> bytes:
    """Return the content of a regular file, or its start.

    Args:
        path: Path of the file.
        limit: Largest size of the file (bytes).
        length: Length of the start; None for all.

    Raises:
        OSError: The file is missing, a link, no regular file, or too large.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            raise OSError(f"{path.name} is no regular file of at most {limit} bytes")
        return file.read(limit if length is None else length)


def _mark(path: Path) -> tuple[int, int, int] | None:
    """Return what changes with a regular file; None if there is none."""
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino) if stat.S_ISREG(status.st_mode) else None


class Run:
    """A run directory.

    Args:
        path: Path of the directory.
        name: Name on the page.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.id = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:16]
        self._parsed: dict[str, tuple[Any, Any]] = {}
        self._lock = threading.Lock()

    def marks(self) -> dict[str, Any]:
        """Return what changes with the content of the run: `run` with all but the snapshot, `live` with it."""
        files = [_mark(self.path / name) for name in (METRICS, RESULT, CONFIG)]
        return {"run": _digest([*files, self._is_held()]), "live": _digest(_mark(self.path / LIVE))}

    def live(self) -> bytes:
        """Return the latest snapshot, as it was written; an empty text if there is none."""
        try:
            return read_regular(self.path / LIVE)
        except OSError:
            return b""

    def content(self) -> dict[str, Any]:
        """Return what the page shows of the run besides its snapshot."""
        result = self._result()
        return {
            **self.summary(),
            "records": [_chosen(record, RECORDS) for record in self._records()],
            "result": _chosen(result, RESULTS),
            "settings": self.settings(),
        }

    def summary(self) -> dict[str, Any]:
        """Return the line of the run in a table of runs."""
        records = self._records()
        result = self._result()
        place = self._place(len(records))
        last = records[-1] if records else {}
        accuracies = [record.get("test_accuracy") for record in records]
        return {
            "id": self.id,
            "name": self.name,
            "state": self._state(records, result),
            "epoch": place.get("epoch", len(records)),
            "epochs": place.get("epochs") or result.get("epochs") or self._epochs(),
            "step": place.get("step", 0),
            "steps_per_epoch": place.get("steps_per_epoch"),
            "finished_epochs": len(records),
            "accuracy": result.get("test_accuracy", last.get("test_accuracy")),
            "loss": last.get("train_loss"),
            "curve": [value for value in accuracies if isinstance(value, float | int)][-200:],
        }

    def _state(self, records: list[dict[str, Any]], result: Mapping[str, Any]) -> str:
        """Return `finished`, `running`, `stopped` (killed), `interrupted` (in order), or `new`."""
        is_held = self._is_held()
        newest = max((mark[0] for name in (METRICS, LIVE) if (mark := _mark(self.path / name))), default=0)
        finished = _mark(self.path / RESULT)
        if result and finished is not None and (not is_held or finished[0] >= newest):
            return "finished"
        if is_held:
            return "running"
        if is_held is False:
            return "stopped"
        return "interrupted" if records or newest else "new"

    def _is_held(self) -> bool | None:
        """Return whether a process works in the directory: False for one that was killed, None for none."""
        try:
            holder: Holder | None = parse_holder(read_regular(self.path / LOCK, 4096))
        except OSError:
            return None
        if holder is None:
            return None
        if holder.is_alive is not None:
            return holder.is_alive
        newest = max((mark[0] for name in (METRICS, LIVE) if (mark := _mark(self.path / name))), default=0)
        return time.time() - newest * 1e-9 < SIGN_OF_LIFE

    def _place(self, finished_epochs: int) -> dict[str, int]:
        """Return the latest place in the training, of a snapshot or an epoch; nothing without snapshots."""
        try:
            match = _PLACE.match(read_regular(self.path / LIVE, length=300))
        except OSError:
            match = None
        if match is None:
            return {}
        epoch, epochs, step, steps = (int(text[:18]) for text in match.groups()[1:])
        epoch, step = max((epoch, step), (finished_epochs, 0))  # a snapshot may be epochs old
        return {"epoch": epoch, "epochs": epochs, "step": step, "steps_per_epoch": steps}

    def _epochs(self) -> int | None:
        trainer = self.settings().get("trainer")
        value = trainer.get("epochs") if isinstance(trainer, dict) else None
        return value if isinstance(value, int) else None

    def _records(self) -> list[dict[str, Any]]:
        records = self._read(METRICS, lambda text: [parse_json(line) for line in text.splitlines()])
        return [record for record in records or [] if isinstance(record, dict)]

    def _result(self) -> dict[str, Any]:
        result = self._read(RESULT, parse_json)
        return result if isinstance(result, dict) else {}

    def settings(self) -> dict[str, Any]:
        """Return the settings of the run; none if the file is missing or damaged."""
        settings = self._read(CONFIG, _parse_yaml)
        return settings if isinstance(settings, dict) else {}

    def _read(self, name: str, parse: Any) -> Any:
        """Return the parsed content of a file, from memory if it is as before; None if it is missing or damaged."""
        path = self.path / name
        with self._lock:
            mark = _mark(path)
            if mark is None:
                return None
            known_mark, value = self._parsed.get(name, (None, None))
            if known_mark != mark:
                try:
                    value = parse(read_regular(path))
                except (OSError, ValueError, RecursionError, yaml.YAMLError):
                    value = None
                self._parsed[name] = (mark, value)
            return value


class Folder:
    """A run directory, or a folder with many of them.

    Args:
        path: Path of the folder.

    Raises:
        ValueError: There is no such folder.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise ValueError(f"{path} is no folder; name a run directory, or a folder with some, such as outputs")
        self.path = path.resolve()
        self._runs: dict[str, Run] = {}
        self._searched = -SEARCH_INTERVAL
        self._lock = threading.Lock()

    def runs(self) -> list[Run]:
        """Return the runs, sorted by their names; the folder is searched at most every two seconds."""
        with self._lock:
            if time.monotonic() - self._searched >= SEARCH_INTERVAL:
                paths = self._search()
                runs = [self._run(path) for path in paths]
                self._runs = {run.id: run for run in runs}
                self._searched = time.monotonic()
            return list(self._runs.values())

    def table(self) -> list[dict[str, Any]]:
        """Return the summary of each run, with the settings in which it differs from other runs."""
        runs = self.runs()
        lines = [run.summary() for run in runs]
        rows = differing_settings({run.id: run.settings() for run in runs})
        names = [name for name in rows if not name.startswith(("hydra.", "view.")) and name != "live"]
        for index, line in enumerate(lines):
            line["differences"] = {name: rows[name][index] for name in names[:MOST_DIFFERENCES]}
        return lines

    def run(self, number: str) -> Run | None:
        """Return the run of an id; None if there is none."""
        self.runs()
        return self._runs.get(number)

    def _run(self, path: Path) -> Run:
        name = self.path.name if path == self.path else path.relative_to(self.path).as_posix()
        run = Run(path, name)
        return self._runs.get(run.id, run)

    def _search(self) -> list[Path]:
        """Return the folders that hold a `config.yaml` or a snapshot; links are not followed."""
        if _is_run(self.path):
            return [self.path]
        paths: list[Path] = []
        waiting = [(self.path, 0)]
        visits = 0
        while waiting and visits < MOST_FOLDERS and len(paths) < MOST_RUNS:
            path, depth = waiting.pop()
            visits += 1
            try:
                with os.scandir(path) as entries:
                    folders = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
            except OSError:
                continue
            for folder in folders:
                if _is_run(folder):
                    paths.append(folder)
                elif depth < DEEPEST and not folder.name.startswith("."):
                    waiting.append((folder, depth + 1))
        return sorted(paths[:MOST_RUNS])


def _is_run(path: Path) -> bool:
    return any(_mark(path / name) is not None for name in (CONFIG, LIVE))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _chosen(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _parse_yaml(text: bytes) -> Any:
    """Return the value of a YAML text.

    Raises:
        ValueError: The text is longer than settings are, has aliases, or values that are not plain.
    """
    if len(text) > LONGEST_SETTINGS:
        raise ValueError(f"it is longer than {LONGEST_SETTINGS} bytes")
    check_yaml(text)
    value = yaml.safe_load(text)
    check_plain(value)
    return value
