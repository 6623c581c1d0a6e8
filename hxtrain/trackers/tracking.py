"""A training under observation: what happens in it becomes values, images and files for trackers."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from hxtrain.network import Activity, Network
from hxtrain.runs.metrics import Sums, write_json
from hxtrain.runs.progress import Course, Observer, Progress

from .figures import raster, weights
from .placement import placement
from .tracker import FAILED, FINISHED, INTERRUPTED, TrackedRun, Tracker, require_trackers
from .worker import PATIENCE, Worker

IDENTITY = "tracker.json"
"""File of a run directory with the run's name for all trackers."""
FILES = ("config.yaml", "result.json", "weights.npz", "plots")
"""Files of a run directory that trackers get at the end."""


class Tracking(Observer):
    """Passes on to trackers what happens in a training.

    Args:
        run: The run.
        trackers: Trackers by name, as settings; each run gets copies of them.
        progress: Receiver of warnings.
        net: Network that is trained; None for a training without spikes.
        patience: Longest time of a call of a tracker (s).
    """

    def __init__(
        self,
        run: TrackedRun,
        trackers: Mapping[str, Tracker],
        progress: Progress,
        net: Network | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._net = net
        self._progress = progress
        self._step = run.step
        self._is_first = True
        self._records = 0
        self._logged: dict[str, Sums] = {}
        self.workers = [Worker(name, replace(tracker), progress.warn, patience) for name, tracker in trackers.items()]
        for worker in self.workers:
            settings = worker.tracker
            worker.call("start", replace(run, name=settings.name or run.name, group=settings.group or run.group))
        if net is not None and self._takers("graph"):
            self._send("graph", placement(net))

    def begin(self, course: Course) -> None:
        """Observe a loop from its start, or from where it continues; steps of a second loop follow the first one's."""
        self._step = course.steps_done + (0 if self._is_first else self._step)
        self._is_first = False
        is_between = course.step == 0 and course.records  # the last record may not have been logged
        self._records = len(course.records) - bool(is_between)
        self._logged = dict.fromkeys((worker.name for worker in self.workers), copy.deepcopy(course.sums))
        self._log_records(course)

    def advance(self, course: Course) -> None:
        """Log the values of a finished step, and the record of an epoch that has ended since the last one."""
        self._log_records(course)
        self._step += 1
        is_last = course.step == course.steps_per_epoch
        for worker in self.workers:
            if is_last or course.step % worker.tracker.steps == 0:
                since = self._logged[worker.name]
                self._logged[worker.name] = copy.deepcopy(course.sums)
                means = course.sums.since(since).means()
                worker.call("log", self._step, finite({**means, "learning_rate": course.learning_rate}, "step"))

    def measured(self, course: Course, activity: Activity) -> None:
        """Log a raster of the last batch of an epoch, and the weights after its step."""
        net = self._net
        if net is None or course.step + 1 < course.steps_per_epoch or not self._takers("image"):
            return
        images = {"raster": raster(net, activity)}
        images |= {f"weights/{name.replace('->', '_to_')}": image for name, image in weights(net).items()}
        for name, image in images.items():
            self._send("image", self._step + 1, name, image)

    def end(self, course: Course) -> None:
        """Log the record of the last epoch."""
        self._log_records(course)

    def log(self, step: int, values: Mapping[str, Any], prefix: str = "") -> None:
        """Log values that no loop has; those that are no finite numbers are left out."""
        self._send("log", step, finite(values, prefix))

    def artifacts(self, folder: Path) -> None:
        """Log the files of a finished run: result, settings, weights, plots."""
        for path in (folder / name for name in FILES):
            if path.exists():
                self._send("artifact", path)

    def close(self, status: str) -> None:
        """End the run of each tracker."""
        for worker in self.workers:
            worker.close(status)

    def _log_records(self, course: Course) -> None:
        for record in course.records[self._records :]:
            self._send("log", self._step, finite(record, "epoch"))
        self._records = len(course.records)

    def _takers(self, method: str) -> list[Worker]:
        return [worker for worker in self.workers if worker.tracker.takes(method)]

    def _send(self, method: str, *arguments: Any) -> None:
        for worker in self._takers(method):
            worker.call(method, *arguments)


def finite(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the finite numbers among values, with names such as `epoch/train_loss`; entries of lists are numbered."""
    scope = f"{prefix}/" if prefix else ""
    numbers: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, list):
            numbers |= finite({str(index): entry for index, entry in enumerate(value)}, f"{scope}{name}")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            numbers[f"{scope}{name}"] = float(value)
    return numbers


@contextmanager
def tracked(
    run: TrackedRun,
    trackers: Mapping[str, Tracker],
    progress: Progress,
    net: Network | None = None,
    patience: float = PATIENCE,
) -> Iterator[Tracking]:
    """Track what happens within the block; without trackers, nothing is logged.

    The run gets a unique name, which its directory keeps; errors of trackers become warnings.

    Raises:
        TrackerError: A tracker cannot be used at all, for example since its library is missing.
    """
    require_trackers(trackers, run.folder)
    tracking = Tracking(identified(run) if trackers else run, trackers, progress, net, patience)
    status = FAILED
    try:
        with progress.observed(tracking):
            yield tracking
        status = FINISHED
    except KeyboardInterrupt:
        status = INTERRUPTED
        raise
    finally:
        tracking.close(status)


def identified(run: TrackedRun) -> TrackedRun:
    """Return a run with the unique name that its directory keeps; a new one is written there."""
    file = None if run.folder is None else run.folder / IDENTITY
    if file is None:
        return replace(run, id=new_id())
    if run.is_resumed and file.exists():
        try:
            return replace(run, id=str(json.loads(file.read_text(encoding="utf-8"))["id"]))
        except (ValueError, KeyError, TypeError):
            pass  # damaged: the run gets a new name
    named = replace(run, id=new_id())
    write_json(file, {"id": named.id})
    return named


def new_id() -> str:
    """Return a new unique name, from the system's random numbers."""
    return uuid4().hex[:16]
