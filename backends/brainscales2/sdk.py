"""The installed software of the chip: imported on demand, probed, connected.

hxtorch has no release on a package index, and the version numbers of its parts do not say which parts fit together:
users get a set of them from the EBRAINS image or the group's container. So this module probes it before anything runs.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ..recording import DeviceError

log = logging.getLogger(__name__)

REQUIRED_NAMES = (
    "ExecutionInstance",
    "Experiment",
    "Handle",
    "LI",
    "LIF",
    "LIFObservables",
    "MixedHXModelParameter",
    "Synapse",
    "SynapseHandle",
    "run",
)
"""Names of `hxtorch.spiking` that the backend uses."""
REQUIRED_METHODS = {
    "ExecutionInstance": ("calibrate", "load_calib"),
    "LI": ("calib_changed_since_last_run", "forward_func", "post_process"),
    "LIF": ("calib_changed_since_last_run", "forward_func", "post_process"),
}
"""Methods of classes of `hxtorch.spiking` that the backend uses."""
REQUIRED_ARGUMENTS = {
    "Experiment": ("dt", "hw_routing_func", "mock"),
    "LI": ("enable_cadc_recording_placement_in_dram", "interpolation_mode", "neuron_structure"),
    "LIF": ("enable_cadc_recording_placement_in_dram", "interpolation_mode", "neuron_structure"),
    "Synapse": ("transform",),
}
"""Arguments of classes of `hxtorch.spiking` that the backend uses and that some releases lack."""
OLDEST = "a release of September 2025 or later is needed"
"""The first release with `LIF` and `LI` (hxtorch 507a188)."""
PARTS = ("hxtorch", "pygrenade_vx", "calix", "dlens_vx_v3")
"""Packages whose versions belong to a run's record."""
HINT = (
    "The chip's software comes with the EBRAINS image or the group's container, not from a package index; "
    "start there, or run hxtrain serve on the chip's machine and connect to it from here"
)
CONNECTION_HINT = (
    "inside a Slurm allocation the connection is found by itself; from elsewhere set QUIGGELDY_ENABLED=1, "
    "QUIGGELDY_IP, QUIGGELDY_PORT and QUIGGELDY_USER_NO_MUNGE before the program starts"
)


@dataclass(frozen=True)
class Sdk:
    """The modules in use.

    Attributes:
        core: Module `hxtorch`.
        spiking: Module `hxtorch.spiking`.
        neuron_of: Class of a neuron of several circuits.
        versions: Versions of the parts, by name.
    """

    core: Any
    spiking: Any
    neuron_of: Any
    versions: dict[str, str]


def load_sdk(calibrates: bool) -> Sdk:
    """Import hxtorch and check that it has all names that the backend uses.

    Args:
        calibrates: Whether hxtorch has to calibrate the chip, since there is no file.

    Raises:
        DeviceError: hxtorch is missing, broken or too old, or its parts do not fit together.
    """
    try:
        core = importlib.import_module("hxtorch")
        spiking = importlib.import_module("hxtorch.spiking")
        morphology = importlib.import_module("hxtorch.spiking.morphology")
    except ModuleNotFoundError as error:
        if error.name == "hxtorch":
            raise DeviceError(f"hxtorch is not installed in {sys.executable} ({error}). {HINT}") from error
        if error.name is not None and error.name.startswith("hxtorch."):
            raise DeviceError(f"hxtorch has no module {error.name}: {OLDEST}. {HINT}") from error
        raise DeviceError(f"hxtorch lacks the module {error.name!r}, so it cannot be imported. {HINT}") from error
    except Exception as error:
        raise DeviceError(f"hxtorch cannot be imported ({type(error).__name__}: {error}). {HINT}") from error
    versions = {name: _version(name) for name in PARTS if name in sys.modules}
    problems = [*_missing(core, spiking, morphology), *_misfits(calibrates)]
    if problems:
        raise DeviceError(f"{'; '.join(problems)} (found: {listed(versions)}). {HINT}")
    log.info("chip software: %s", listed(versions))
    return Sdk(core, spiking, morphology.SingleCompartmentNeuron, {**versions, "torch": str(torch.__version__)})


def _missing(core: Any, spiking: Any, morphology: Any) -> Iterator[str]:
    """Return a text for each name that this hxtorch lacks."""
    modules = {
        "hxtorch": (core, ("init_hardware", "release_hardware", "get_unique_identifier")),
        "hxtorch.spiking": (spiking, REQUIRED_NAMES),
        "hxtorch.spiking.morphology": (morphology, ("SingleCompartmentNeuron",)),
    }
    for name, (module, names) in modules.items():
        yield from _lacking(name, [item for item in names if not hasattr(module, item)])
    for name, methods in REQUIRED_METHODS.items():
        owner = getattr(spiking, name, None)
        if owner is not None:
            yield from _lacking(f"hxtorch.spiking.{name}", [item for item in methods if not hasattr(owner, item)])
    for name, arguments in REQUIRED_ARGUMENTS.items():
        owner = getattr(spiking, name, None)
        if inspect.isclass(owner):
            yield from _lacking(f"hxtorch.spiking.{name}", sorted(set(arguments) - _parameters(owner, arguments)))


def _lacking(owner: str, names: list[str]) -> Iterator[str]:
    """Return a text on the missing names of an owner, if there are any."""
    if names:
        yield f"{owner} has no {', '.join(names)}: {OLDEST}"


def _misfits(calibrates: bool) -> Iterator[str]:
    """Return a text for each pair of parts that do not fit together."""
    network = sys.modules.get("pygrenade_vx.network")
    if network is not None:
        missing = [name for name in ("NetworkBuilder", "requires_routing") if not hasattr(network, name)]
        if missing:
            yield f"grenade has no {', '.join(missing)}, which hxtorch calls: the two are of different releases"
    target = getattr(sys.modules.get("calix.spiking"), "SpikingCalibTarget", None)
    if calibrates and inspect.isclass(target) and "neuron_target" not in _parameters(target, ("neuron_target",)):
        yield (
            "calix does not take the calibration targets that hxtorch gives it: the two are of different releases; "
            "with backend.settings.calibration=FILE it is not needed"
        )


def _parameters(target: type, names: Sequence[str]) -> set[str]:
    """Return the names of a class's arguments; `names` are among them if the class has no signature or takes any."""
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:
        return set(names)
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return {*parameters, *names} if takes_any else set(parameters)


def _version(name: str) -> str:
    """Return the version of a part, or a hash of its Python files if it has none."""
    module = sys.modules[name]
    stated = getattr(module, "__version__", None)
    if stated is not None:
        return str(stated)
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
    file = getattr(module, "__file__", None)
    if file is None:
        return "unknown"
    sha = hashlib.sha256()
    sources = sorted(Path(file).parent.rglob("*.py")) if Path(file).name == "__init__.py" else [Path(file)]
    for source in sources:
        sha.update(source.read_bytes())
    return f"sources {sha.hexdigest()[:12]}"


def listed(versions: dict[str, str]) -> str:
    """Return versions as a text."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


_connected: list[object] = []
"""Owner of the connection: the software has one per process."""


def connect(sdk: Sdk, owner: object) -> str:
    """Connect to the chip, and return its identifier.

    Raises:
        DeviceError: There is no connection, or another backend of this process holds it.
    """
    if _connected and _connected[0] is not owner:
        raise DeviceError("this process is connected to a chip already, and can hold one connection; close the other")
    with _failure("no connection to a chip", CONNECTION_HINT):
        sdk.core.init_hardware()
    _connected[:] = [owner]
    with _failure("the chip does not tell who it is", "try again, or use another chip"):
        return "+".join(str(name) for name in sdk.core.get_unique_identifier())


def disconnect(sdk: Sdk, owner: object) -> None:
    """Give the chip back, if `owner` holds it."""
    if _connected and _connected[0] is owner:
        _connected.clear()
        with _failure("the chip could not be released", "end this process"):
            sdk.core.release_hardware()


@contextmanager
def _failure(problem: str, remedy: str) -> Iterator[None]:
    """Turn the software's errors, of many types, into DeviceError."""
    try:
        yield
    except Exception as error:
        raise DeviceError(f"{problem} ({type(error).__name__}: {error}); {remedy}") from error
