"""The driver of a device: the class that an author writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import wraps
from types import TracebackType
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from .capabilities import Capabilities
from .circuit import Circuit
from .circuit_map import CircuitMap
from .recording import Recording, Stimulus

MARKED = {"open": False, "close": True, "configure": False, "calibrate": False}
"""Methods after which a device may hold another circuit, and whether they close the device."""


def _marking(method: Callable[..., Any], opens: bool, closes: bool) -> Callable[..., Any]:
    """Return a method that marks its backend: `open` as open, all others as holding an unknown configuration."""

    @wraps(method)
    def call(self: Backend, *arguments: Any, **settings: Any) -> Any:
        if not opens:
            self._configuration = object()
        result = method(self, *arguments, **settings)
        if opens or closes:
            self._closed = closes
        return result

    return call


class Backend(ABC):
    """The driver of a device. An author writes `capabilities`, `open`, `close`, `configure` and `run`.

    Scaling, rounding, clipping, splitting of batches, retries, validation and the injection of
    measurements into the gradient are written once, above this class.

    Attributes:
        FREE_SETTINGS: Names of keyword settings that change no recording, such as the address of a server. A training
            run is continued with other values of them.
    """

    FREE_SETTINGS: ClassVar[frozenset[str]] = frozenset()

    _configuration: object | None = None
    _closed = False

    def __init_subclass__(cls, **settings: Any) -> None:
        """Let `open`, `close`, `configure` and `calibrate` of a subclass set a new mark, see `configuration`."""
        super().__init_subclass__(**settings)
        for name, closes in MARKED.items():
            if name in vars(cls):
                setattr(cls, name, _marking(vars(cls)[name], name == "open", closes))

    @property
    def configuration(self) -> object | None:
        """Mark of the last call, by any caller, that may have changed the circuit of the device; None before any call.

        A caller that finds another mark than after its own `configure` must configure again. A wrapper passes on the
        mark of its inner backend.
        """
        return self._configuration

    @property
    def closed(self) -> bool:
        """Whether the device was closed and not opened again."""
        return self._closed

    def __repr__(self) -> str:
        """Describe the backend in a line, without access to the device."""
        return f"{type(self).__name__}()"

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """Limits and properties; known before `open`."""

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, str]:
        """Return the identity of the individual: at least `backend`, `chip` and `chip_hash`."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the device in its current configuration, each with its consequence."""
        return ()

    @property
    def tolerances(self) -> str:
        """Name of the tolerances for checks of the device: `ideal`, `analog` (a calibrated chip) or `uncalibrated`."""
        return "analog"

    @property
    def circuit_map(self) -> CircuitMap | None:
        """Neuron circuits in the current configuration; None if the device does not tell which ones it uses."""
        return None

    @property
    def torch_device(self) -> torch.device:
        """Torch device whose tensors the backend takes without a copy: the GPU of an emulation, else the CPU."""
        return torch.device("cpu")

    @property
    def takes_any_batch(self) -> bool:
        """Whether `run` takes more trials, far apart, than the trace memory holds, with the same recordings."""
        return False

    @abstractmethod
    def open(self) -> None:
        """Connect to the device; vendor packages are imported here. DeviceError says what is missing."""

    @abstractmethod
    def close(self) -> None:
        """Release the device; may be called twice."""

    @abstractmethod
    def configure(self, circuit: Circuit) -> None:
        """Place a circuit. Slow and rare."""

    @abstractmethod
    def run(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        """Run trials with integer weights `[post, pre]` per projection. The hot path.

        All tensors of weights and stimulus are on the CPU, or all on `torch_device`, and so are those of the recording.
        """

    def __enter__(self) -> Self:
        """Open the device."""
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the device, whatever happened."""
        self.close()
