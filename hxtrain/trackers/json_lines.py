"""Values as lines of JSON, which every program reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Optional

from hxtrain.runs.metrics import write_text

from .tracker import TrackedRun, Tracker, TrackerError

FILE = "tracker.jsonl"
LONGEST = 2**20
"""Length limit of the line that a run begins with (characters)."""


@dataclass
class JsonLines(Tracker):
    """Writes values as lines of JSON.

    The first line has the run: `id`, `name`, `group`, `config`. A later one has `step` and values. The last one has
    `status`; a resumed run continues the file after the last step that counts.

    Attributes:
        file: File of the lines, of one run; None: `tracker.jsonl` in the run directory.
    """

    file: Optional[str] = None  # noqa: UP045 - OmegaConf resolves these on every Python

    def check(self, run: TrackedRun) -> None:
        """Refuse a run without a file, or with a file that holds another run."""
        place = self._place(run)
        if self.file is None or run.folder is None:  # nobody else's; without a directory, the last training counts
            return
        name = first_run(place)
        if name is not None and not (run.is_resumed and name == run.id):
            raise TrackerError(
                f"tracker.json_lines.file={self.file} holds another run already; name another file, or leave it out: "
                f"then each run has {FILE} in its directory"
            )

    def start(self, run: TrackedRun) -> None:
        """Open the file; of a resumed run, remove the lines of steps that are done again."""
        self.check(run)  # another run may have begun the file meanwhile
        place = self._place(run)
        place.parent.mkdir(parents=True, exist_ok=True)
        is_plain = place.is_file()
        lines = kept_lines(place, run.step) if run.is_resumed and is_plain else []
        self._lines = frozenset(lines)
        if is_plain:
            write_text(place, "".join(lines))
        self._stream: TextIOWrapper = place.open("a" if place.exists() else "x", encoding="utf-8", newline="\n")
        if not lines:
            self._write({"run": run.id, "name": run.name, "group": run.group, "config": run.config})

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write a line, so that other programs see it at once."""
        self._write({"step": step, **values})

    def artifact(self, path: Path) -> None:
        """Write a line with the path of a file."""
        self._write({"artifact": str(path)})

    def end(self, status: str) -> None:
        """Write the status, and close the file."""
        self._write({"status": status})
        self._stream.close()

    def _write(self, entries: Mapping[str, Any]) -> None:
        line = json.dumps(entries, allow_nan=False) + "\n"
        if line not in self._lines:  # a resumed run logs its last record again
            self._stream.write(line)
            self._stream.flush()

    def _place(self, run: TrackedRun) -> Path:
        if self.file is not None:
            return Path(self.file).expanduser()
        if run.folder is None:
            raise TrackerError("tracker=json_lines needs a file, since the training has no folder: give file=...")
        return run.folder / FILE


def first_run(file: Path) -> str | None:
    """Return the name of the run that a file begins with; None if there is no such file, or an empty one."""
    if not file.is_file() or file.stat().st_size == 0:
        return None
    with file.open(encoding="utf-8", errors="replace") as lines:
        try:
            return str(json.loads(lines.readline(LONGEST))["run"])
        except (ValueError, TypeError, KeyError):
            return ""


def kept_lines(file: Path, step: int) -> list[str]:
    """Return the whole lines of a file up to a step; without a status, and without what a killed process left."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            entries = json.loads(line)
        except ValueError:
            continue
        if not isinstance(entries, dict) or not isinstance(entries.get("step", 0), int):
            continue
        if line.endswith("\n") and "status" not in entries and entries.get("step", 0) <= step:
            lines.append(line)
    return lines
