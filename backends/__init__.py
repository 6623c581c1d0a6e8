"""The vocabulary between a host and any chip, the registry of devices, and the built-in devices."""

from .contract import (
    INPUT,
    Backend,
    Capabilities,
    Circuit,
    Cost,
    DeviceError,
    Health,
    Population,
    Projection,
    Recording,
    Stimulus,
    check_run,
)
from .registry import GROUP, UnknownBackendError, accepted_settings, available_backends, create_backend
from .spikes import Spikes

__all__ = [
    "GROUP",
    "INPUT",
    "Backend",
    "Capabilities",
    "Circuit",
    "Cost",
    "DeviceError",
    "Health",
    "Population",
    "Projection",
    "Recording",
    "Spikes",
    "Stimulus",
    "UnknownBackendError",
    "accepted_settings",
    "available_backends",
    "check_run",
    "create_backend",
]
