"""Base of the training loops of a spiking network: the state before a failed step is saved, warnings are shown once."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch

from hxtrain.backends import DeviceError
from hxtrain.datasets import Dataset
from hxtrain.execution import device_of
from hxtrain.network import Network
from hxtrain.runs.metrics import Sums
from hxtrain.runs.progress import Progress

from .loop import NO_FOLDER, Config, Loop


class DeviceLostError(DeviceError):
    """The device fails permanently; the state at the start of the failed step is saved."""


class NetworkLoop(Loop[Config]):
    """Loop of a network that a device may run; subclasses define a step and the state of its course.

    Args:
        net: Network to train.
        data: See `Loop` for this and all below.
        config: Settings of the training loop.
        seed: Seed of all random numbers.
        folder: Run directory for checkpoint and metrics; None: nothing is written.
        settings: Plain values that identify the run.
        progress: Receiver of all reports.
        optimizer: Optimiser over the learnt parameters.
        sums: Sums over an empty epoch.

    Attributes:
        step_name: What a step is called in texts.
    """

    step_name: ClassVar[str] = "step"

    def __init__(
        self,
        net: Network,
        data: Dataset | None,
        config: Config,
        seed: int,
        folder: str | Path | None,
        settings: Mapping[str, Any],
        progress: Progress,
        optimizer: torch.optim.Optimizer,
        sums: Sums,
    ) -> None:
        super().__init__(data, config, seed, folder, settings, progress, optimizer, sums)
        self._net = net
        self._warned: set[str] = set()
        self._changed = False
        optimizer.register_step_pre_hook(self._note_change)

    @abstractmethod
    def _course_state(self) -> dict[str, Any]:
        """Return the states besides the weights that a step changes, for a checkpoint."""

    @abstractmethod
    def _take_course_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `_course_state` returned."""

    @abstractmethod
    def _save(self) -> None:
        """Write the checkpoint, see `_write_checkpoint`."""

    def _warn(self, texts: Iterable[str]) -> None:
        """Show warnings; each kind is shown once in a run."""
        for text in texts:
            kind = " ".join(text.split()[:3])
            if kind not in self._warned:
                self._warned.add(kind)
                self.progress.warn(text)

    @contextmanager
    def _saved_on_failure(self) -> Iterator[None]:
        """Save the state at the start of the block if the block fails, so that only the failed step is lost.

        This state is gone when the optimiser has begun its step; the last checkpoint is kept then.
        """
        device = device_of(self._net)
        clock = device.clock if device else 0
        state = copy.deepcopy(self._course_state())
        self._changed = False
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            if device:
                device.clock = clock
            is_saved = not self._changed and self._not_finite(self._net.state_dict()) is None
            if is_saved:
                self._take_course_state(state)
                self._save()
            if not isinstance(error, DeviceError):
                raise
            raise DeviceLostError(f"{error}. {self._place_of_state(is_saved)}") from error

    def _place_of_state(self, is_saved: bool) -> str:
        """Return where the state before a failed step is, if it is anywhere."""
        step = f"failed {self.step_name}"
        if self.folder is None:
            weights = f"the weights before the {step}" if is_saved else f"what the {step} made of its weights"
            return f"The network keeps {weights}; {NO_FOLDER}"
        return f"The state before the {step} is saved" if is_saved else "The last checkpoint is as it was"

    def _note_change(self, *_: Any) -> None:
        """Note that the optimiser begins to change weights; the optimiser calls this."""
        self._changed = True
