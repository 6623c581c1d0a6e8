"""The vocabulary between a host and any chip, the registry of devices, and the built-in devices."""

from .abilities import Batching, Calibratable, Interruptible, Outcome, Targets, supports
from .backend import Backend
from .capabilities import Capabilities
from .checks import check_circuit, check_recording, check_run
from .circuit import INPUT, Circuit, Population, Projection, Record
from .circuit_map import CircuitMap
from .faults import (
    FAULTS,
    DroppedSpikes,
    Fault,
    FaultyBackend,
    LateSamples,
    LostSamples,
    PartialRun,
    TimeOut,
    create_faults,
)
from .parameters import NeuronParameters, ParameterFileError
from .pieces import join, nothing, total
from .recording import CLOCK_END, Cost, DeviceError, Health, Recording, Stimulus
from .registry import (
    BACKENDS,
    GROUP,
    Registry,
    UnknownBackendError,
    UnknownComponentError,
    accepted_settings,
    available_backends,
    create_backend,
    free_settings,
    required_settings,
)
from .spikes import Spikes
from .wrapper import BackendWrapper

__all__ = [
    "BACKENDS",
    "CLOCK_END",
    "FAULTS",
    "GROUP",
    "INPUT",
    "Backend",
    "BackendWrapper",
    "Batching",
    "Calibratable",
    "Capabilities",
    "Circuit",
    "CircuitMap",
    "Cost",
    "DeviceError",
    "DroppedSpikes",
    "Fault",
    "FaultyBackend",
    "Health",
    "Interruptible",
    "LateSamples",
    "LostSamples",
    "NeuronParameters",
    "Outcome",
    "ParameterFileError",
    "PartialRun",
    "Population",
    "Projection",
    "Record",
    "Recording",
    "Registry",
    "Spikes",
    "Stimulus",
    "Targets",
    "TimeOut",
    "UnknownBackendError",
    "UnknownComponentError",
    "accepted_settings",
    "available_backends",
    "check_circuit",
    "check_recording",
    "check_run",
    "create_backend",
    "create_faults",
    "free_settings",
    "join",
    "nothing",
    "required_settings",
    "supports",
    "total",
]
