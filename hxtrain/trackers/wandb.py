"""Weights & Biases: offline by default, so that nothing leaves the machine until `wandb sync`."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from hxtrain.backends.files import replacing

from .tracker import FINISHED, TrackedRun, Tracker, TrackerError, library, run_folder

NAME = "wandb"
ONLINE = "online"
MODES = ("offline", ONLINE)
SUFFIX = ".steps.json"
"""End of the name of a file beside the folders of a run offline, with the last step of each value."""


@dataclass
class WandB(Tracker):
    """Writes a run of Weights & Biases.

    Attributes:
        project: Name of the project.
        entity: User or team; None: the default one of the user.
        mode: `offline` (`wandb sync FOLDER` sends the run later) or `online`, which needs a login.
        folder: Folder that gets a folder `wandb`; None: the run directory.
    """

    project: str = "hxtrain"
    entity: Optional[str] = None  # noqa: UP045 - OmegaConf resolves these on every Python
    mode: str = "offline"
    folder: Optional[str] = None  # noqa: UP045

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in MODES:
            raise TrackerError(f"tracker.wandb.mode={self.mode!r} is not known; choose one of {', '.join(MODES)}")

    def check(self, run: TrackedRun) -> None:
        """Refuse to start without the library, or without a folder."""
        self._library()
        run_folder(run, self.folder, NAME)

    def start(self, run: TrackedRun) -> None:
        """Start or continue the run; a run offline continues in a second folder, with the same id."""
        wandb = self._library()
        place = run_folder(run, self.folder, NAME) if self.folder else run.folder
        assert place is not None  # `check` has asked
        (place / NAME).mkdir(parents=True, exist_ok=True)
        self._file = place / NAME / f"{run.id}{SUFFIX}"
        self._last = last_steps(self._file) if run.is_resumed else {}
        if self.mode == ONLINE:  # W&B drops steps that it has, and may lack those after the checkpoint
            self._last = {name: min(step, run.step) for name, step in self._last.items()}
        with hooks_restored():
            self._run: Any = wandb.init(
                project=self.project,
                entity=self.entity,
                mode=self.mode,
                dir=str(place),
                id=run.id,
                name=run.name,
                group=run.group or None,
                config=dict(run.config),
                resume="allow" if self.mode == ONLINE else None,
                reinit="create_new",
                settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False),
            )
        self._image = wandb.Image

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log values; those of one step become one row. A row that an earlier process has logged stays as it is."""
        rest = {name: value for name, value in values.items() if step > self._last.get(name, -1)}
        if rest:
            self._run.log(rest, step=step)
            self._last |= dict.fromkeys(rest, step)
            with replacing(self._file, flushed=False) as file:
                file.write(json.dumps(self._last).encode())

    def image(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Log an image in the row of its step."""
        if step > max(self._last.values(), default=-1):
            self._run.log({name: self._image(pixels)}, step=step)

    def artifact(self, path: Path) -> None:
        """Copy a file into the folder `hxtrain` of the run, or all files of a folder; W&B has a `config.yaml`, too."""
        place = Path(self._run.dir) / "hxtrain" / path.name
        place.parent.mkdir(exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, place, dirs_exist_ok=True)
        else:
            shutil.copyfile(path, place)
        for file in sorted(place.rglob("*")) if path.is_dir() else [place]:
            self._run.save(str(file), base_path=self._run.dir, policy="now")

    def end(self, status: str) -> None:
        """Note how the run ended, and finish it."""
        self._run.summary["status"] = status
        self._run.finish(exit_code=0 if status == FINISHED else 1)

    def _library(self) -> Any:
        return library("wandb", NAME, None if self.mode == ONLINE else "WANDB_ERROR_REPORTING=false")


def last_steps(file: Path) -> dict[str, int]:
    """Return the last step of each value that the earlier processes of a run have logged."""
    try:
        steps = json.loads(file.read_text(encoding="utf-8"))
        return {str(name): int(step) for name, step in steps.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


@contextmanager
def hooks_restored() -> Iterator[None]:
    """Restore `sys.exit` and `sys.excepthook` after the block, which `wandb.init` replaces for good."""
    functions = sys.exit, sys.excepthook
    try:
        yield
    finally:
        sys.exit, sys.excepthook = functions
