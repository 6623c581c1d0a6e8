"""Run directories as the page sees them. Files are only read: regular ones, by their fixed names, without links."""

from __future__ import annotations

import hashlib
import json
import math
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
from hxtrain.runs.plain_yaml import LOADER, check_yaml

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
SHARED_LOOK = 0.3
"""Time in which all who ask for the marks of the runs get those of one look at the files (s)."""
SIGN_OF_LIFE = 120.0
"""Time without a new file after which a run of another machine counts as silent (s)."""
RESULTS = (
    "test_accuracy", "evaluated_on", "train_accuracy", "epochs", "seconds", "samples_per_second", "backend", "chip",
    "preset", "chip_hash", "data", "data_size", "seed", "chip_seconds_per_sample", "chip_joules_per_sample",
    "decision_seconds", "hidden_spikes_per_sample", "train_samples", "notes", "selected_epoch",
    "score", "best_score", "environment",
)  # fmt: skip
"""Entries of a result that the page gets."""
RECORDS = (
    "epoch", "train_loss", "train_accuracy", "test_accuracy", "hidden_spikes_per_sample", "samples_per_second",
    "seconds", "chip_seconds", "score", "success", "output_spikes_per_trial", "trials_per_second", "notes",
    "dropped_spikes", "retries",
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
        path: Path of the directory, without links.
        name: Name on the page.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.id = hashlib.sha256(name.encode(errors="backslashreplace")).hexdigest()[:16]
        self._parsed: dict[str, tuple[Any, Any]] = {}
        self._lock = threading.Lock()
        self._newest = 0
        self._written = 0.0
        self._looked = -math.inf

    def marks(self) -> dict[str, Any]:
        """Return what changes with the content of the run: `run` with all but the snapshot, `live` with it."""
        files = [_mark(self.path / name) for name in (METRICS, RESULT, CONFIG)]
        return {"run": _digest([*files, self._process()[0]]), "live": _digest(_mark(self.path / LIVE))}

    def age(self) -> float | None:
        """Return the time since the training last wrote (s); None if it has not.

        The file's time is by the clock of the machine that trains. It counts within the interval between two looks
        alone, which is by the clock of this process; before the first look there is nothing else.
        """
        newest = max((mark[0] for name in (METRICS, LIVE) if (mark := _mark(self.path / name))), default=0)
        with self._lock:
            clock = time.monotonic()
            if newest != self._newest:
                self._newest = newest
                self._written = clock - min(max(time.time() - newest * 1e-9, 0.0), clock - self._looked)
            self._looked = clock
            return clock - self._written if newest else None

    def live(self) -> bytes:
        """Return the latest snapshot, as it was written; an empty text if there is none."""
        try:
            return self._file(LIVE)
        except OSError:
            return b""

    def _file(self, name: str, **limits: int) -> bytes:
        """Return `read_regular` of a file of the directory, unless a link took the place of the directory."""
        if os.path.realpath(self.path) != str(self.path):
            raise OSError(f"{self.path} is behind a link")
        return read_regular(self.path / name, **limits)

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
        is_scored = "score" in last
        process, machine = self._process()
        age = self.age()
        values = [record.get("score" if is_scored else "test_accuracy") for record in records]
        return {
            "id": self.id,
            "name": self.name,
            "state": self._state(process, records, result),
            "age": None if age is None else round(age, 1),
            "machine": machine,
            "is_live": _mark(self.path / LIVE) is not None,
            "epoch": place.get("epoch", len(records)),
            "epochs": place.get("epochs") or result.get("epochs") or self._epochs(),
            "step": place.get("step", 0),
            "steps_per_epoch": place.get("steps_per_epoch"),
            "finished_epochs": len(records),
            "score": result.get("score", last.get("score")),
            "is_scored": is_scored,
            "accuracy": result.get("test_accuracy", last.get("test_accuracy")),
            "loss": last.get("train_loss"),
            "curve": [value for value in values if isinstance(value, float | int)][-200:],
        }

    def _state(self, process: str | None, records: list[dict[str, Any]], result: Mapping[str, Any]) -> str:
        """Return `finished`, `running`, `silent`, `stopped` (killed), `interrupted` (in order), or `new`."""
        newest = max((mark[0] for name in (METRICS, LIVE) if (mark := _mark(self.path / name))), default=0)
        finished = _mark(self.path / RESULT)
        if result and finished is not None and (process in (None, "stopped") or finished[0] >= newest):
            return "finished"
        return process or ("interrupted" if records or newest else "new")

    def _process(self) -> tuple[str | None, str | None]:
        """Return the state of the process that works in the directory, and its machine if it is another one.

        The state is `running`, `stopped` for one that is gone, or `silent` for one of another machine without news;
        None for no process.
        """
        try:
            holder: Holder | None = parse_holder(self._file(LOCK, limit=4096))
        except OSError:
            return None, None
        if holder is None:
            return None, None
        if holder.is_alive is not None:
            return ("running" if holder.is_alive else "stopped"), None
        age = self.age()
        return ("running" if age is not None and age < SIGN_OF_LIFE else "silent"), holder.host[:200]

    def _place(self, finished_epochs: int) -> dict[str, int]:
        """Return the latest place in the training, of a snapshot or an epoch; nothing without snapshots."""
        try:
            match = _PLACE.match(self._file(LIVE, length=300))
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
        return self._read(METRICS, _parse_records) or []

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
                    value = _finite(parse(self._file(name)))
                except (OSError, ValueError, RecursionError, yaml.YAMLError):
                    value = None
                self._parsed[name] = (mark, value)
            return value


class Folder:
    """A run directory, or a folder with many of them.

    Args:
        path: Path of the folder.

    Attributes:
        path: Path of the folder, without links.
        is_complete: Whether the last search came to its end, below `MOST_RUNS` and `MOST_FOLDERS`.

    Raises:
        ValueError: There is no such folder.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise ValueError(f"{path} is no folder; name a run directory, or a folder with some, such as outputs")
        self.path = path.resolve()
        self.is_complete = True
        self._runs: dict[str, Run] = {}
        self._searched = -SEARCH_INTERVAL
        self._lock = threading.Lock()
        self._marks: dict[str, dict[str, Any]] = {}
        self._looked = -SHARED_LOOK
        self._look_lock = threading.Lock()

    def runs(self) -> list[Run]:
        """Return the runs, sorted by their names; the folder is searched for new ones at most every two seconds."""
        with self._lock:
            if time.monotonic() - self._searched >= SEARCH_INTERVAL:
                paths = self._search()
                runs = [self._run(path) for path in paths]
                self._runs = {run.id: run for run in runs}
                self._searched = time.monotonic()
            return [run for run in self._runs.values() if _is_run(run.path)]

    def marks(self) -> dict[str, dict[str, Any]]:
        """Return the marks of each run by its id; one look at the files serves all that ask at the same time."""
        runs = self.runs()
        with self._look_lock:
            if time.monotonic() - self._looked >= SHARED_LOOK or self._marks.keys() != {run.id for run in runs}:
                self._marks = {run.id: run.marks() for run in runs}
                self._looked = time.monotonic()
            return self._marks

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
        run = self._runs.get(number)
        return run if run is not None and _is_run(run.path) else None

    def _run(self, path: Path) -> Run:
        name = self.path.name if path == self.path else path.relative_to(self.path).as_posix()
        run = Run(path, name)
        return self._runs.get(run.id, run)

    def _search(self) -> list[Path]:
        """Return the folders that hold a `config.yaml` or a snapshot; links are not followed."""
        self.is_complete = True
        if _is_run(self.path):
            return [self.path]
        paths: list[Path] = []
        waiting = [(self.path, 0)]
        visits = 0
        while waiting:
            if visits >= MOST_FOLDERS or len(paths) > MOST_RUNS:
                self.is_complete = False
                break
            path, depth = waiting.pop()
            visits += 1
            try:
                with os.scandir(path) as entries:
                    folders = sorted(
                        Path(entry.path)
                        for entry in entries
                        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
                    )
            except OSError:
                continue
            paths += [folder for folder in folders if _is_run(folder)]
            if depth < DEEPEST:
                waiting += [(folder, depth + 1) for folder in reversed(folders) if not _is_run(folder)]
        self.is_complete &= len(paths) <= MOST_RUNS
        return sorted(paths[:MOST_RUNS])


def _is_run(path: Path) -> bool:
    return any(_mark(path / name) is not None for name in (CONFIG, LIVE))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _chosen(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _parse_records(text: bytes) -> list[dict[str, Any]]:
    """Return the records of a text, one a line; a line that is torn or damaged is left out."""
    records = []
    for line in text.splitlines():
        try:
            record = parse_json(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def _finite(value: Any) -> Any:
    """Return a plain value with a text in the place of each number that JSON has not: infinities, and NaN."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _parse_yaml(text: bytes) -> Any:
    """Return the value of a YAML text.

    Raises:
        ValueError: The text is longer than settings are, has aliases, or values that are not plain.
    """
    if len(text) > LONGEST_SETTINGS:
        raise ValueError(f"it is longer than {LONGEST_SETTINGS} bytes")
    check_yaml(text)
    value = yaml.load(text, LOADER)
    check_plain(value)
    return value
