"""TensorBoard: scalars, images, and the graph of the placement, in event files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from .tracker import Node, TrackedRun, Tracker, library, run_folder

NAME = "tensorboard"


@dataclass
class TensorBoard(Tracker):
    """Writes event files of TensorBoard: `tensorboard --logdir FOLDER` shows them.

    Attributes:
        folder: Folder that gets a folder of event files for each run, `NAME-ID`; None: `tensorboard` in the run
            directory.
    """

    folder: Optional[str] = None  # noqa: UP045 - OmegaConf resolves these on every Python

    def check(self, run: TrackedRun) -> None:
        """Refuse to start without the library, or without a folder."""
        library("torch.utils.tensorboard", NAME)
        run_folder(run, self.folder, NAME)

    def start(self, run: TrackedRun) -> None:
        """Open an event file; TensorBoard hides what earlier files have of steps that are done again."""
        module = library("torch.utils.tensorboard", NAME)
        place = self._place(run)
        is_begun = place.is_dir() and any(place.iterdir())
        self._logged = scalars(place, run.step) if is_begun and run.is_resumed else frozenset()
        self._last = run.step
        self._writer: Any = module.SummaryWriter(str(place), purge_step=run.step + 1 if is_begun else None)
        if not (is_begun and run.is_resumed):
            self._writer.add_text("settings", f"```yaml\n{OmegaConf.to_yaml(OmegaConf.create(dict(run.config)))}\n```")
        self._writer.flush()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars."""
        for name, value in values.items():
            if step != self._last or name not in self._logged:  # a resumed run logs its last record again
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def image(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Write an image."""
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def graph(self, nodes: Sequence[Node]) -> None:
        """Write the placement as a graph."""
        graph_def = library("tensorboard.compat.proto.graph_pb2", NAME).GraphDef()
        for node in nodes:
            entry = graph_def.node.add(name=node.name, op=node.kind.replace(" ", "_"), input=node.inputs)
            for key, text in node.entries.items():
                entry.attr[key.replace(" ", "_")].s = text.encode()
        event = library("tensorboard.compat.proto.event_pb2", NAME).Event(graph_def=graph_def.SerializeToString())
        self._writer.file_writer.add_event(event)
        self._writer.flush()

    def end(self, status: str) -> None:
        """Write how the run ended, and close the file."""
        self._writer.add_text("status", status)
        self._writer.close()

    def _place(self, run: TrackedRun) -> Path:
        """Return the folder of a run's event files; a run that was moved has its previous one."""
        place = run_folder(run, self.folder, NAME)
        if self.folder is None:
            return place
        short = run.id[:8]
        return next(place.glob(f"*-{short}"), place / f"{run.name}-{short}")


def scalars(folder: Path, step: int) -> frozenset[str]:
    """Return the names of the scalars that the event files of a folder have of a step."""
    loader = library("tensorboard.backend.event_processing.event_file_loader", NAME).EventFileLoader
    return frozenset(
        value.tag
        for file in sorted(folder.glob("events*"))
        for event in loader(str(file)).Load()
        if event.step == step
        for value in event.summary.value
    )
