"""A folder of recordings, one file per sample and one folder per class, read as they are needed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from ..errors import DatasetError
from .address import Addresses, AddressLayout
from .files import require_unchanged, stamp
from .formats import READERS, read_recording
from .store import Events, EventStore, Integers


class RecordingFolder(EventStore):
    """The recordings `CLASS/*` of a folder, ordered by class and name.

    Args:
        folder: folder with a folder per class.
        classes: names of the classes, which are those of the folders.
        layout: meaning of the fields.
        pattern: regular expression whose group finds the speaker or subject in the name of a file; None: unknown.

    Raises:
        DatasetError: there is no recording, or the pattern does not fit the name of a file.
    """

    def __init__(self, folder: Path, classes: Sequence[str], layout: AddressLayout, pattern: str | None = None) -> None:
        self.title = str(folder)
        self.layout = layout
        self.units = layout.total_units
        self._files: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            files = sorted(file for file in (folder / name).glob("*") if file.suffix.lower() in READERS)
            self._files.extend(files)
            labels.extend([label] * len(files))
        if not labels:
            raise DatasetError(f"{folder}: expected recordings CLASS/* ({', '.join(READERS)}), found none")
        self._stamps = [stamp(file) for file in self._files]
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self.groups = None if pattern is None else _groups(self._files, pattern)

    def read(self, numbers: Integers) -> Events:
        """Return the events of some samples, see `EventStore`: one file is read for each."""
        recordings = [self._recording(int(number)) for number in numbers]
        counts = np.array([len(recording.time) for recording in recordings], np.int64)
        time = np.concatenate([np.zeros(0), *(recording.time for recording in recordings)])
        unit = np.concatenate([np.zeros(0, np.int64), *(recording.unit for recording in recordings)])
        return Events(counts, time, unit)

    @property
    def identity(self) -> str:
        """Hash of the paths and stamps of all files, and the layout."""
        files = zip(self._files, self._stamps, strict=True)
        digest = sha256("\n".join(f"{file.resolve()} {stamp}" for file, stamp in files).encode())
        return f"{digest.hexdigest()} {self.layout}"

    @property
    def newest(self) -> float:
        """Time of the last change of a file (s since 1970)."""
        return max(stamp.time for stamp in self._stamps) * 1e-9

    def place(self, number: int) -> str:
        """Return the path of a sample."""
        return str(self._files[number])

    def _recording(self, number: int) -> Addresses:
        """Return the events of a file."""
        file = self._files[number]
        require_unchanged(file, self._stamps[number])
        columns = read_recording(file)
        names = self.layout.names(columns, str(file))
        fields = {role: columns[name] for role, name in names.items()}
        return self.layout.convert(fields, np.array([len(fields["t"])]), str(file))


def _groups(files: Sequence[Path], pattern: str) -> torch.Tensor:
    """Return the number of the speaker or subject that each file name tells, in the order of their names."""
    try:
        finder = re.compile(pattern)
    except re.error as error:
        raise DatasetError(f"data.settings.groups={pattern!r} is no regular expression ({error})") from None
    if finder.groups != 1:
        raise DatasetError(
            f"data.settings.groups={pattern!r} has {finder.groups} groups, expected one, as in '(s[0-9]+)'"
        )
    matches = [finder.search(file.name) for file in files]
    names: list[str] = []
    for file, match in zip(files, matches, strict=True):
        if match is None:
            raise DatasetError(f"{file}: data.settings.groups={pattern!r} does not fit its name")
        names.append(str(match.group(1)))
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return torch.tensor([numbers[name] for name in names], dtype=torch.int64)
