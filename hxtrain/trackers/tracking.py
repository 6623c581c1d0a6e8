"""A training under observation: what happens in it becomes values, images and files for trackers."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
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
from .tracker import FAILED, FINISHED, IDENTITY, INTERRUPTED, TrackedRun, Tracker, require_trackers, saved_id
from .worker import PATIENCE, Worker

SILENCE = 5.0
"""Time of waiting for trackers at the end that needs no explanation (s)."""
LONGEST_END = 600.0
"""Longest time that all trackers together may take at the end (s)."""
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
        self._logged: dict[str, Sums | None] = {}
        self.workers = [Worker(name, replace(tracker), progress.warn, patience) for name, tracker in trackers.items()]
        for worker in self.workers:
            settings = worker.tracker
            worker.call("start", replace(run, name=settings.name or run.name, group=settings.group or run.group))
        if net is not None and self._takers("graph"):
            self._draw(lambda: self._send("graph", placement(net)))

    def begin(self, course: Course) -> None:
        """Observe a loop from its start, or from where it continues; steps of a second loop follow the first one's."""
        self._step = course.steps_done + (0 if self._is_first else self._step)
        self._is_first = False
        is_between = course.step == 0 and course.records  # the last record may not have been logged
        self._records = len(course.records) - bool(is_between)
        sums = copy.deepcopy(course.sums)
        self._logged = dict.fromkeys((worker.name for worker in self.workers), sums if course.step else None)
        self._log_records(course)

    def advance(self, course: Course) -> None:
        """Log the values of a finished step, and the record of an epoch that has ended since the last one."""
        self._log_records(course)
        self._step += 1
        is_last = course.step == course.steps_per_epoch
        for worker in self.workers:
            if is_last or course.step % worker.tracker.steps == 0:
                self._log_means(worker, course)
                self._logged[worker.name] = None if is_last else copy.deepcopy(course.sums)

    def measured(self, course: Course, activity: Activity) -> None:
        """Log a raster of the last batch of an epoch, and the weights after its step."""
        net = self._net
        if net is not None and course.step + 1 >= course.steps_per_epoch and self._takers("image"):
            self._draw(lambda: self._send_images(net, activity))

    def end(self, course: Course) -> None:
        """Log the record of the last epoch, or the values of a last stretch that is shorter."""
        self._log_records(course)
        for worker in self.workers if course.step > 0 else []:
            self._log_means(worker, course)

    def log(self, step: int, values: Mapping[str, Any], prefix: str = "") -> None:
        """Log values that no loop has; those that are no finite numbers are left out."""
        self._send("log", step, finite(values, prefix))

    def artifacts(self, folder: Path) -> None:
        """Log the files of a finished run: result, settings, weights, plots."""
        for path in (folder / name for name in FILES):
            if path.exists():
                self._send("artifact", path)

    def close(self, status: str) -> None:
        """End the run of each tracker, and wait for that; Ctrl-C ends the waiting."""
        for worker in self.workers:
            worker.end(status)
        limit = time.monotonic() + LONGEST_END
        try:
            for worker in self.workers:
                if worker.wait(SILENCE):
                    continue
                self._progress.say(
                    f"waiting for tracker {worker.name}, which has {worker.n_waiting} calls to do; Ctrl-C goes on "
                    "without it"
                )
                if not worker.wait(limit - time.monotonic()):
                    worker.give_up(f"does not end within {LONGEST_END:g} s")
        except KeyboardInterrupt:
            for worker in self.workers:
                if not worker.wait(0):
                    worker.give_up(f"had {worker.n_waiting} calls to do when Ctrl-C ended the waiting")

    def _log_means(self, worker: Worker, course: Course) -> None:
        """Log the means over the steps since the last values of this epoch."""
        since = self._logged[worker.name]
        sums = course.sums if since is None else course.sums.since(since)
        if sums.samples:
            worker.call("log", self._step, finite({**sums.means(), "learning_rate": course.learning_rate}, "step"))

    def _send_images(self, net: Network, activity: Activity) -> None:
        images = {"raster": raster(net, activity)}
        images |= {f"weights/{name.replace('->', '_to_')}": image for name, image in weights(net).items()}
        for name, image in images.items():
            self._send("image", self._step + 1, name, image)

    def _draw(self, work: Callable[[], None]) -> None:
        """Draw something of the network; a network that cannot be drawn costs images and graph alone."""
        try:
            work()
        except Exception as error:  # of a component of another author
            self._net = None
            self._progress.warn(
                f"trackers get no images and no graph of this network, {type(error).__name__}: {error}; values and "
                "files are logged all the same"
            )

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
    require_trackers(trackers, run.folder, run.is_resumed)
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
    name = saved_id(run.folder) if run.is_resumed else None
    if name is None:
        name = uuid4().hex[:16]  # from the system's random numbers
        if run.folder is not None:
            write_json(run.folder / IDENTITY, {"id": name})
    return replace(run, id=name)
