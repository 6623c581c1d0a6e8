"""Optional abilities of a backend: calibration, interruption, several runs at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, overload

from torch import Tensor
from typing_extensions import TypeIs

from .recording import DeviceError, Recording, Stimulus


@dataclass
class Targets:
    """Targets of a calibration, common to all neuron circuits (trace units, seconds).

    Attributes:
        leak: Leak potential (trace units).
        threshold: Threshold (trace units).
        reset: Reset potential (trace units).
        tau_mem: Time constant of the membrane (s).
        tau_syn: Time constant of the synaptic current (s).
        rate: Rate at which neurons with a leak above threshold fire by themselves (1 / s): the leak is then tuned by
            spikes instead of traces, and `leak` is its expected value. None: neurons do not fire by themselves.
    """

    leak: float = 80.0
    threshold: float = 150.0
    reset: float = 80.0
    tau_mem: float = 6e-6
    tau_syn: float = 6e-6
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.rate is not None and not (self.rate > 0 and self.leak > self.threshold):
            raise ValueError(
                f"targets.rate={self.rate} needs a leak above threshold, got leak={self.leak}, "
                f"threshold={self.threshold}; raise targets.leak, or leave the rate out"
            )
        for name in ("tau_mem", "tau_syn"):
            if not getattr(self, name) > 0:
                raise ValueError(f"targets.{name}={getattr(self, name)} s must be positive")
        if not self.reset < self.threshold:
            raise ValueError(
                f"targets.reset={self.reset} must be below targets.threshold={self.threshold}, else a neuron never "
                "leaves its threshold; lower the reset"
            )


class Outcome(NamedTuple):
    """Result of a calibration for one parameter.

    Attributes:
        parameter: Name of the parameter.
        unit: Unit of the parameter.
        target: Target value.
        median: Median over the successful circuits, measured afterwards.
        sd: Standard deviation over the successful circuits, measured afterwards.
        failed: Number of circuits that do not reach the target.
    """

    parameter: str
    unit: str
    target: float
    median: float
    sd: float
    failed: int


class Calibratable(ABC):
    """Optional ability of a backend: access to its calibration."""

    @abstractmethod
    def calibrate(
        self,
        targets: Targets,
        file: Path,
        stages: Sequence[str] | None = None,
        seed: int = 0,
        report: Callable[[str], None] = lambda text: None,
    ) -> list[Outcome]:
        """Calibrate the open device, write the result to `file`, and use it from now on.

        Args:
            targets: Targets of the calibration.
            file: Path of the new calibration file.
            stages: Parameters to calibrate, the others stay at common codes; None for all.
            seed: Seed of the temporal noise in the measurements (emulated devices).
            report: Called with the name of each stage before it begins.

        Raises:
            DeviceError: The device is not open, or a target is out of its reach.
            ValueError: A stage is not known.
        """

    @abstractmethod
    def read_reference(self, potential: float, samples: int) -> Tensor:
        """Connect one common potential (trace units) to all ADC channels; codes uint8 `[samples, circuits]`."""


class Interruptible(ABC):
    """Optional ability of a backend: ending a run early."""

    @abstractmethod
    def interrupt(self) -> None:
        """End the run in progress, from another thread: the run raises DeviceError soon; without a run nothing happens.

        The next run is not affected, and the circuit stays configured.
        """


class Batching(ABC):
    """Optional ability of a backend: taking several runs at once, for a device that is far away."""

    @abstractmethod
    def run_all(self, weights: Mapping[str, Tensor], stimuli: Sequence[Stimulus]) -> list[Recording | DeviceError]:
        """Run each stimulus in order, as `Backend.run` does; in place of a failed run the list holds its error.

        Raises:
            ValueError: A stimulus or the weights do not fit the circuit; nothing was run.
            DeviceError: The outcome of all runs is unknown.
        """


ABILITIES = {"batching": Batching, "calibration": Calibratable, "interruption": Interruptible}
"""Optional abilities of a backend by name; `Capabilities` holds those that concern more than its caller."""


@overload
def supports(backend: object, ability: Literal["batching"]) -> TypeIs[Batching]: ...
@overload
def supports(backend: object, ability: Literal["calibration"]) -> TypeIs[Calibratable]: ...
@overload
def supports(backend: object, ability: Literal["interruption"]) -> TypeIs[Interruptible]: ...
def supports(backend: object, ability: str) -> bool:
    """Return whether a backend has the methods of an optional ability, so that they can be called.

    A driver from before `Capabilities` held abilities as data does not claim its own there; its class tells.

    Args:
        backend: Backend in question.
        ability: Name of the ability, see `ABILITIES`.
    """
    return isinstance(backend, ABILITIES[ability])
