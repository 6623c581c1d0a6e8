"""What a tracker is: a receiver of values, images and files of a training run."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray

from hxtrain.backends import Registry
from hxtrain.checks import check_types, count, mapping, require_kind

FINISHED = "finished"
INTERRUPTED = "interrupted"
FAILED = "failed"
"""How a run ends."""
IDENTITY = "tracker.json"
"""File of a run directory with the run's unique name for all trackers."""


class TrackerError(ValueError):
    """A tracker cannot be used: its library is missing, or a setting is wrong. The text names the remedy."""


class Node(NamedTuple):
    """A node of the graph of a network's placement.

    Attributes:
        name: Unique name; parts of it are separated by `/`.
        kind: What it is: `inputs`, `projection`, `spiking population`, `readout`.
        inputs: Names of the nodes that lead to it.
        entries: What the placement says of it, such as circuits per neuron.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    entries: Mapping[str, str]


@dataclass(frozen=True)
class TrackedRun:
    """A run as trackers know it.

    Attributes:
        name: Name to show.
        group: Name of the sweep or study that the run is part of; empty without one.
        id: Unique name, letters and digits; a resumed run has that of the first start.
        config: All settings, nested mappings of plain values.
        folder: Run directory; None for a training without one.
        step: Number of steps that the run has done; later ones may be logged already by a process that was killed.
        is_resumed: Whether an earlier process has begun the run.
    """

    name: str
    group: str = ""
    id: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    step: int = 0
    is_resumed: bool = False


@dataclass
class Tracker(ABC):
    """Base: a receiver of a run; fields are settings. All methods are called by one thread, which is not the main one.

    A method may raise any error, and may block: the training goes on without the tracker, after one warning.

    Attributes:
        steps: Steps between two values; those of an epoch are always logged.
        name: Name of the run; None: that of its directory.
        group: Group of the run; None: the sweep that it is part of, if any.
    """

    steps: int = field(default=20, kw_only=True)
    name: Optional[str] = field(default=None, kw_only=True)  # noqa: UP045 - OmegaConf resolves these on every Python
    group: Optional[str] = field(default=None, kw_only=True)  # noqa: UP045

    def __post_init__(self) -> None:
        check_types(self, f"tracker {type(self).__name__}: ")
        count(f"tracker {type(self).__name__}: steps", self.steps)

    def check(self, run: TrackedRun) -> None:  # noqa: B027 - a hook
        """Raise `TrackerError` if the tracker cannot be used at all; the caller's thread runs this, before a training.

        Args:
            run: Run to be tracked.
        """

    @abstractmethod
    def start(self, run: TrackedRun) -> None:
        """Start or continue a run."""

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log finite values after a step; steps never decrease."""

    def image(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:  # noqa: B027 - a hook
        """Log an image `[H, W, 3]` after a step; by default nothing."""

    def graph(self, nodes: Sequence[Node]) -> None:  # noqa: B027 - a hook
        """Log the graph of the network's placement; by default nothing."""

    def artifact(self, path: Path) -> None:  # noqa: B027 - a hook
        """Log a file, or a folder of files; by default nothing."""

    @abstractmethod
    def end(self, status: str) -> None:
        """End the run, which is `finished`, `interrupted` or `failed`."""

    def takes(self, method: str) -> bool:
        """Return whether the tracker has a method that is not the one that does nothing."""
        return getattr(type(self), method) is not getattr(Tracker, method)


def check_trackers(trackers: Mapping[str, Tracker]) -> None:
    """Refuse what is no tracker.

    Raises:
        TypeError: The trackers are no mapping, or an entry is none.
    """
    for name, tracker in mapping("tracker", trackers).items():
        require_kind(tracker, Tracker, f"tracker[{name!r}]", "give {'json_lines': JsonLines()}")


def named_trackers(trackers: Iterable[Tracker] | Mapping[str, Tracker]) -> dict[str, Tracker]:
    """Return trackers by name; those of a list have their registered names, with a number from the second of a kind.

    Raises:
        TypeError: An entry is no tracker.
    """
    if isinstance(trackers, Mapping):
        check_trackers(trackers)
        return dict(trackers)
    named: dict[str, Tracker] = {}
    for tracker in trackers:
        require_kind(tracker, Tracker, "trackers", "give [JsonLines(file='log.jsonl')]")
        name = TRACKERS.name_of(type(tracker))
        alike = sum(type(previous) is type(tracker) for previous in named.values())
        named[name if not alike else f"{name}_{alike + 1}"] = tracker
    return named


def require_trackers(trackers: Mapping[str, Tracker], folder: Path | None, is_resumed: bool = False) -> None:
    """Refuse trackers that cannot be used at all, before a training.

    Raises:
        TrackerError: A library is missing, the training has no directory for files, or a file is that of another run;
            the text has the remedy.
    """
    name = saved_id(folder) if is_resumed else None
    for tracker in trackers.values():
        tracker.check(TrackedRun("", id=name or "", folder=folder, is_resumed=is_resumed))


def saved_id(folder: Path | None) -> str | None:
    """Return the unique name of the run in a directory; None if it was never tracked, or if the file is damaged."""
    if folder is None:
        return None
    try:
        name = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))["id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) and name.isalnum() else None


TRACKERS: Registry[type[Tracker]] = Registry("trackers", "tracker", Tracker)
"""Trackers by name."""


def library(name: str, extra: str, silence: str | None = None) -> Any:
    """Return a module of a library that an extra installs.

    Args:
        name: Name of the module.
        extra: Extra of hxtrain that installs the library.
        silence: `NAME=VALUE` of an environment variable by which the library sends its makers no figures of its use; a
            value that the user has set stays.

    Raises:
        TrackerError: It is not installed, or cannot be imported.
    """
    if silence is not None:
        variable, _, value = silence.partition("=")
        os.environ.setdefault(variable, value)
    try:
        return import_module(name)
    except Exception as error:  # a library may raise anything
        raise TrackerError(
            f"tracker={extra} needs the library {name.partition('.')[0]} ({type(error).__name__}: {error}); run: "
            f"pip install 'hxtrain[{extra}]'"
        ) from error


def run_folder(run: TrackedRun, folder: str | None, name: str) -> Path:
    """Return the folder of a tracker's files: a setting of it, or a folder of the run directory.

    Raises:
        TrackerError: The run has no directory, and the setting is missing.
    """
    if folder is not None:
        return Path(folder).expanduser()
    if run.folder is None:
        raise TrackerError(f"tracker={name} needs a folder, since the training has none: give folder=...")
    return run.folder / name
