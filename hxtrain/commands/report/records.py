"""Records of finished runs and evaluations below folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hxtrain.runs.checkpoint import CheckpointError
from hxtrain.runs.saved import read_result

FILES = ("result.json", "evaluation.json")
ABSENT = "absent"


@dataclass(frozen=True)
class Record:
    """A finished run or evaluation.

    Attributes:
        path: Path of the file.
        values: Content of the file.
    """

    path: Path
    values: Mapping[str, Any]

    def get(self, key: str) -> Any:
        """Return a value by key; `absent` for a missing key.

        The search covers the entries of the file, then its settings. A key `trained.NAME` is a setting of the training.
        """
        trained = self.values.get("trained_settings", {})
        if key.startswith("trained."):
            return trained.get(key.removeprefix("trained."), ABSENT)
        settings = self.values.get("settings", {})
        return self.values.get(key, settings.get(key, ABSENT))

    def below(self, folders: Sequence[str]) -> bool:
        """Return whether the file is below one of the folders; always true for an empty list."""
        return not folders or any(self.path.is_relative_to(Path(folder).expanduser()) for folder in folders)

    def matches(self, conditions: Mapping[str, Any]) -> bool:
        """Return whether all keys have the required values; a list allows any of its values."""
        for key, required in conditions.items():
            value = self.get(key)
            if value != required and not (isinstance(required, list) and value in required):
                return False
        return True


def read_records(folders: Sequence[str]) -> list[Record]:
    """Return all results below folders, in the order of their paths.

    Raises:
        CheckpointError: No folder contains a result, or a file is damaged.
    """
    files = sorted({file for folder in folders for name in FILES for file in Path(folder).expanduser().rglob(name)})
    if not files:
        raise CheckpointError(
            f"there is no finished run below {', '.join(folders)}; run the report's commands first, or name other "
            "folders"
        )
    return [Record(file, read_result(file)) for file in files]
