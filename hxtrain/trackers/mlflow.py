"""MLflow: runs in a local store or on a server."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from .tracker import FINISHED, INTERRUPTED, TrackedRun, Tracker, library

NAME = "mlflow"
TAG = "hxtrain.id"
"""Tag that holds the run's unique name, by which a resumed run is found."""
LONGEST = 500
"""Length limit of the text of a parameter."""
SILENCE = "MLFLOW_DISABLE_TELEMETRY=true"
STATES = {FINISHED: "FINISHED", INTERRUPTED: "KILLED"}
"""MLflow's word for how a run ends; else `FAILED`."""


@dataclass
class MLflow(Tracker):
    """Writes a run of MLflow, with a client of its own: MLflow's active run and store stay as they are.

    Attributes:
        uri: Store, such as `sqlite:///mlflow.db` or `http://server:5000`; None: MLflow's own choice, which is
            `MLFLOW_TRACKING_URI`, or else a file in the current folder.
        experiment: Name of the experiment; it is made if there is none.
    """

    uri: Optional[str] = None  # noqa: UP045 - OmegaConf resolves these on every Python
    experiment: str = "hxtrain"

    def check(self, run: TrackedRun) -> None:
        """Refuse to start without the library."""
        library("mlflow", NAME, SILENCE)

    def start(self, run: TrackedRun) -> None:
        """Start or continue the run."""
        entities = library("mlflow.entities", NAME)
        self._metric = entities.Metric
        self._client: Any = library("mlflow", NAME).MlflowClient(tracking_uri=self.uri)
        experiment = self._experiment_id()
        self._last: dict[str, int] = {}
        previous = self._client.search_runs([experiment], f"tags.`{TAG}` = '{run.id}'") if run.is_resumed else []
        if previous:
            self._id = previous[0].info.run_id
            self._last = {name: self._last_step(name) for name in previous[0].data.metrics}
            self._client.update_run(self._id, status="RUNNING")
            return
        tags = {TAG: run.id, **({"group": run.group} if run.group else {})}
        self._id = self._client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
        parameters = [entities.Param(name, text[:LONGEST]) for name, text in flat(run.config)]
        for first in range(0, len(parameters), 100):  # the limit of a call
            self._client.log_batch(self._id, params=parameters[first : first + 100])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log values in one call, without those that a process that was killed has logged: nothing can be removed."""
        stamp = int(time.time() * 1000)
        metrics = [
            self._metric(name, value, stamp, step) for name, value in values.items() if step > self._last.get(name, -1)
        ]
        if metrics:
            self._client.log_batch(self._id, metrics=metrics)

    def image(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Log an image."""
        if step > max(self._last.values(), default=-1):
            self._client.log_image(self._id, pixels, key=name, step=step)

    def artifact(self, path: Path) -> None:
        """Copy a file, or a folder of files, into the run."""
        if path.is_dir():
            self._client.log_artifacts(self._id, str(path), path.name)
        else:
            self._client.log_artifact(self._id, str(path))

    def end(self, status: str) -> None:
        """Set how the run ended."""
        self._client.set_terminated(self._id, STATES.get(status, "FAILED"))

    def _experiment_id(self) -> str:
        """Return the name that MLflow knows the experiment by; it is made if there is none."""
        entry = self._client.get_experiment_by_name(self.experiment)
        if entry is None:
            try:
                return str(self._client.create_experiment(self.experiment))
            except library("mlflow.exceptions", NAME).MlflowException:
                entry = self._client.get_experiment_by_name(self.experiment)
                if entry is None:  # not made by another run of a sweep meanwhile
                    raise
        return str(entry.experiment_id)

    def _last_step(self, metric: str) -> int:
        return max(int(entry.step) for entry in self._client.get_metric_history(self._id, metric))


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested settings as names and texts."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
