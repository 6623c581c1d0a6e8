"""The vocabulary between a host and any chip, the registry of devices, and the built-in devices."""

from .contract import (
    INPUT,
    Backend,
    Calibratable,
    Capabilities,
    Circuit,
    Cost,
    DeviceError,
    Health,
    Outcome,
    Population,
    Projection,
    Recording,
    Stimulus,
    Targets,
    check_run,
)
from .parameters import NeuronParameters, ParameterFileError
from .registry import GROUP, UnknownBackendError, accepted_settings, available_backends, create_backend
from .spikes import Spikes

__all__ = [
    "GROUP",
    "INPUT",
    "Backend",
    "Calibratable",
    "Capabilities",
    "Circuit",
    "Cost",
    "DeviceError",
    "Health",
    "NeuronParameters",
    "Outcome",
    "ParameterFileError",
    "Population",
    "Projection",
    "Recording",
    "Spikes",
    "Stimulus",
    "Targets",
    "UnknownBackendError",
    "accepted_settings",
    "available_backends",
    "check_run",
    "create_backend",
]
