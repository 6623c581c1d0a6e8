"""A device in front of another one: it passes every call on and keeps the optional abilities of the inner device.

class Inverting(BackendWrapper):
    def map_weights(self, weights):
        return {name: -matrix for name, matrix in weights.items()}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from .abilities import ABILITIES, Batching, Calibratable, Interruptible, Outcome, Targets
from .backend import Backend
from .capabilities import Capabilities
from .circuit import Circuit
from .circuit_map import CircuitMap
from .recording import DeviceError, Recording, Stimulus


class BackendWrapper(Backend):
    """Passes every call on to a device; a subclass overrides what differs.

    A wrapper has the optional abilities of its device (`Batching`, `Calibratable`, `Interruptible`), as `supports`
    tells, and its capabilities. A subclass changes runs in `map_weights`, `map_stimulus` and `map_recording`, through
    which single runs and the runs of `run_all` pass alike. If it overrides `run` instead, `run_all` makes single runs.

    A wrapper that is registered by name has settings of its own, whose `FREE_SETTINGS` the subclass names.

    Args:
        backend: The wrapped device.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        missing = tuple(
            WRAPPERS[name]
            for name, ability in ABILITIES.items()
            if isinstance(backend, ability) and not isinstance(self, ability)
        )
        if missing:
            self.__class__ = _with(type(self), missing)

    @property
    def capabilities(self) -> Capabilities:
        """The device's."""
        return self.backend.capabilities

    @property
    def identity(self) -> Mapping[str, str]:
        """Return the device's."""
        return self.backend.identity

    @property
    def warnings(self) -> tuple[str, ...]:
        """The device's."""
        return self.backend.warnings

    @property
    def tolerances(self) -> str:
        """The device's."""
        return self.backend.tolerances

    @property
    def circuit_map(self) -> CircuitMap | None:
        """The device's."""
        return self.backend.circuit_map

    @property
    def torch_device(self) -> torch.device:
        """The device's."""
        return self.backend.torch_device

    @property
    def takes_any_batch(self) -> bool:
        """Whether the device does."""
        return self.backend.takes_any_batch

    @property
    def configuration(self) -> object | None:
        """The device's."""
        return self.backend.configuration

    @property
    def closed(self) -> bool:
        """Whether the device is."""
        return self.backend.closed

    def open(self) -> None:
        """Open the device."""
        self.backend.open()

    def close(self) -> None:
        """Close the device."""
        self.backend.close()

    def configure(self, circuit: Circuit) -> None:
        """Configure the device."""
        self.backend.configure(circuit)

    def run(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        """Run the device."""
        return self.map_recording(self.backend.run(self.map_weights(weights), self.map_stimulus(stimulus)), stimulus)

    def map_weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the weights that the device gets in place of `weights`."""
        return weights

    def map_stimulus(self, stimulus: Stimulus) -> Stimulus:
        """Return the stimulus that the device gets in place of `stimulus`."""
        return stimulus

    def map_recording(self, recording: Recording, stimulus: Stimulus) -> Recording:
        """Return the recording that the caller gets in place of `recording`.

        Args:
            recording: Recording of the wrapped device.
            stimulus: Stimulus that the caller passed to the wrapper.

        Raises:
            DeviceError: Nothing arrives.
        """
        return recording


class _Batching(BackendWrapper, Batching):
    """Passes several runs on at once."""

    def run_all(self, weights: Mapping[str, Tensor], stimuli: Sequence[Stimulus]) -> list[Recording | DeviceError]:
        """Run all stimuli at once; one by one if a subclass overrides `run`."""
        device = self.backend
        if type(self).run is not BackendWrapper.run or not isinstance(device, Batching):
            return [_outcome(lambda s=stimulus: self.run(weights, s)) for stimulus in stimuli]  # type: ignore[misc]
        outcomes = device.run_all(self.map_weights(weights), [self.map_stimulus(stimulus) for stimulus in stimuli])
        return [
            outcome
            if isinstance(outcome, DeviceError)
            else _outcome(lambda o=outcome, s=stimulus: self.map_recording(o, s))  # type: ignore[misc]
            for outcome, stimulus in zip(outcomes, stimuli, strict=True)
        ]


class _Calibratable(BackendWrapper, Calibratable):
    """Passes on access to a calibration."""

    def calibrate(
        self,
        targets: Targets,
        file: Path,
        stages: Sequence[str] | None = None,
        seed: int = 0,
        report: Callable[[str], None] = lambda text: None,
    ) -> list[Outcome]:
        """Calibrate the device."""
        return self._calibratable().calibrate(targets, file, stages, seed, report)

    def read_reference(self, potential: float, samples: int) -> Tensor:
        """Return codes of a common potential on all ADC channels of the device."""
        return self._calibratable().read_reference(potential, samples)

    def _calibratable(self) -> Calibratable:
        assert isinstance(self.backend, Calibratable)  # else this class is not chosen
        return self.backend


class _Interruptible(BackendWrapper, Interruptible):
    """Passes interruptions on."""

    def interrupt(self) -> None:
        """End the run in progress on the device."""
        assert isinstance(self.backend, Interruptible)  # else this class is not chosen
        self.backend.interrupt()


WRAPPERS: dict[str, type[BackendWrapper]] = {
    "batching": _Batching,
    "calibration": _Calibratable,
    "interruption": _Interruptible,
}
"""Wrapper that passes each of `ABILITIES` on."""


@cache
def _with(kind: type[BackendWrapper], abilities: tuple[type[BackendWrapper], ...]) -> type[BackendWrapper]:
    """Return a wrapper class with additional abilities."""
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (*abilities, kind), names)


def _outcome(run: Callable[[], Recording]) -> Recording | DeviceError:
    """Return a recording, or the error that came in its place."""
    try:
        return run()
    except DeviceError as error:
        return error
