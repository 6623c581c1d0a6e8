"""What finished runs and evaluations say, found below folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hxtrain.runs.checkpoint import CheckpointError
from hxtrain.runs.saved import read_result

FILES = "result.json", "evaluation.json"
ABSENT = "absent"


@dataclass(frozen=True)
class Record:
    """A finished run or evaluation.

    Attributes:
        path: of its file.
        values: content of the file.
    """

    path: Path
    values: Mapping[str, Any]

    def get(self, key: str) -> Any:
        """Return a value by key; `absent` where there is none.

        Searched in turn: the file's own entries, its settings, and after `trained.` those of the training.
        """
        trained = self.values.get("trained_settings", {})
        if key.startswith("trained."):
            return trained.get(key.removeprefix("trained."), ABSENT)
        settings = self.values.get("settings", {})
        return self.values.get(key, settings.get(key, ABSENT))

    def below(self, folders: Sequence[str]) -> bool:
        """Return whether it is below one of these folders; below none of none, it is."""
        return not folders or any(self.path.is_relative_to(Path(folder).expanduser()) for folder in folders)

    def matches(self, where: Mapping[str, Any]) -> bool:
        """Return whether all these keys have these values; of a list, any of its values will do."""
        for key, wanted in where.items():
            found = self.get(key)
            if found != wanted and not (isinstance(wanted, list) and found in wanted):
                return False
        return True


def read_records(folders: Sequence[str]) -> list[Record]:
    """Return all results below folders, in the order of their paths.

    Raises:
        CheckpointError: there is none below any of them, or a file is damaged.
    """
    found = sorted({file for folder in folders for name in FILES for file in Path(folder).expanduser().rglob(name)})
    if not found:
        raise CheckpointError(
            f"there is no finished run below {', '.join(folders)}; run the report's commands first, or name other "
            "folders"
        )
    return [Record(file, read_result(file)) for file in found]
