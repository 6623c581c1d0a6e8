"""Values as lines of JSON, which every program reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Optional

from .tracker import TrackedRun, Tracker, TrackerError

FILE = "tracker.jsonl"


@dataclass
class JsonLines(Tracker):
    """Writes values as lines of JSON.

    The first line has the run: `id`, `name`, `group`, `config`. A later one has `step` and values. The last one has
    `status`; a resumed run continues the file after the last step that counts.

    Attributes:
        file: File of the lines; None: `tracker.jsonl` in the run directory.
    """

    file: Optional[str] = None  # noqa: UP045 - OmegaConf resolves these on every Python

    def check(self, run: TrackedRun) -> None:
        """Refuse a run without a file."""
        self._place(run)

    def start(self, run: TrackedRun) -> None:
        """Open the file; of a resumed run, remove the lines of steps that are done again."""
        place = self._place(run)
        place.parent.mkdir(parents=True, exist_ok=True)
        lines = kept_lines(place, run.step) if run.is_resumed and place.exists() else []
        self._lines = frozenset(lines)
        self._stream: TextIOWrapper = place.open("w", encoding="utf-8", newline="\n")
        self._stream.write("".join(lines))
        if not lines:
            self._write({"run": run.id, "name": run.name, "group": run.group, "config": run.config})
        self._stream.flush()

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


def kept_lines(file: Path, step: int) -> list[str]:
    """Return the whole lines of a file up to a step; without a status, and without what a killed process left."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            entries = json.loads(line)
        except ValueError:
            continue
        is_current = isinstance(entries, dict) and "status" not in entries and entries.get("step", 0) <= step
        if is_current and line.endswith("\n"):
            lines.append(line)
    return lines
