"""Settings of a chip individual: names, types, defaults and texts, for keywords of a device and for the command line.

The annotations are such that OmegaConf accepts them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, Concatenate, Dict, List, Optional, ParamSpec, TypeVar  # noqa: UP035

from .chips import BRAINSCALES2
from .files import path_part
from .intake import size

CHIP = "W66F3"
"""Chip of a device without a choice."""
PRESETS = ("ideal", "calibrated", "uncalibrated")

Settings = TypeVar("Settings")
Instance = TypeVar("Instance")
Keywords = ParamSpec("Keywords")


@dataclass
class ChipSettings:
    """Settings of a chip individual, except its name.

    Attributes:
        preset: Codes in an emulated chip's parameter cells: `ideal` (a die without imperfections), `calibrated`
            (by the procedure of `hxtrain calibrate`, for the targets of the circuit), `uncalibrated` (common codes).
        seed: Seed of an emulated chip's temporal noise.
        calibration: File of `hxtrain calibrate` that replaces the preset's codes.
        parameters: File of `hxtrain fit`, to emulate the chip that it describes.
        changes: Other values of an emulated die's spreads and noise levels, by field (docs/emulator.md).
        faults: Shares of `dead_neurons`, `firing_neurons`, `stuck_bits` of an emulated die.
        fault_seed: Seed of the choice of faulty neurons and bits.
        decalibrate_time_constants: Relative standard deviation of a deliberate spread of the time constants (Cramer et
            al. 2022, self-calibration).
        decalibrate_threshold: Relative standard deviation of a deliberate spread of threshold - leak.
        decalibrate_seed: Seed of the deliberate spread.
        only: Imperfections that an emulated chip keeps; None keeps all.
        correct_capacitance: Whether to compensate for the parasitic capacitance of merged circuits.
        avoid_failures: Whether neurons are placed on circuits alone that met every target of the calibration. Chips
            without a calibration have no such failures.
    """

    preset: str = "calibrated"
    seed: int = 0
    calibration: Optional[str] = None  # noqa: UP045
    parameters: Optional[str] = None  # noqa: UP045
    changes: Dict[str, Any] = field(default_factory=dict)  # noqa: UP006
    faults: Dict[str, float] = field(default_factory=dict)  # noqa: UP006
    fault_seed: int = 0
    decalibrate_time_constants: float = 0.0
    decalibrate_threshold: float = 0.0
    decalibrate_seed: int = 0
    only: Optional[List[str]] = None  # noqa: UP006, UP045
    correct_capacitance: bool = True
    avoid_failures: bool = False


@dataclass
class Individual:
    """Identity of an emulated chip.

    Attributes:
        chip: Serial number, which determines the individual. Several numbers, separated by `+`, are a population:
            every trial meets one of its chips at random.
    """

    chip: str = CHIP


@dataclass
class EmulatorSettings(ChipSettings, Individual):  # a dataclass begins with the fields of its last base
    """Keyword settings of the emulated chip.

    Attributes:
        substeps: Sub-steps per trace sample at which the emulator looks for threshold crossings.
        engine: `fast` (numba on the CPU, Triton on a GPU) or `readable` (any torch device).
        device: Torch device that emulates, such as `cuda`; None: the CPU.
        calibrate: Whether to make missing calibrations (25 s and a stored file each). False refuses a circuit that
            needs one, which suits a server whose clients shall not occupy it that long.
        trace_memory: Memory for the trace samples of one run (bytes); None: no limit. The default holds one trial of
            512 samples, and longer ones are refused, as on the chip whose limits the emulator has.

    Raises:
        ValueError: A setting has another type or is not known, or settings exclude each other.
    """

    substeps: int = 4
    engine: str = "fast"
    device: Optional[str] = None  # noqa: UP045
    calibrate: bool = True
    trace_memory: Optional[int] = BRAINSCALES2.trace_memory  # noqa: UP045

    def __post_init__(self) -> None:
        if not isinstance(self.chip, str):
            raise ValueError(f"chip={self.chip!r} must be a text, the name of a chip such as {CHIP!r}")
        size(self.seed, "seed")
        if self.trace_memory is not None:
            size(self.trace_memory, "trace_memory")
        self.changes = _mapping("changes", self.changes)
        self.faults = _mapping("faults", self.faults)
        if isinstance(self.only, str):
            raise ValueError(f"only={self.only!r} must be a list; write [{self.only!r}]")
        if self.preset not in PRESETS:
            raise ValueError(f"preset={self.preset!r} is not known; choose one of {', '.join(PRESETS)}")
        if self.calibration is not None and (self.parameters is not None or "+" in self.chip):
            raise ValueError("`calibration` is of one die; it excludes `parameters` and a population of chips")
        names = self.chips
        if len({*names}) != len(names) or not all(names):
            raise ValueError(f"chip={self.chip!r} must name different chips, separated by '+'")
        for name in names:
            path_part(name, "chip")

    @property
    def chips(self) -> list[str]:
        """Names of the individuals."""
        return self.chip.split("+")


def takes_settings(
    kind: Callable[Keywords, Settings],
) -> Callable[[Callable[[Instance, Settings], None]], Callable[Concatenate[Instance, Keywords], None]]:
    """Return a decorator of an `__init__(self, settings)`: the keywords of `kind` become those of the constructor.

    Args:
        kind: Dataclass of the settings. Callers of the constructor never see it.
    """

    def decorate(
        init: Callable[[Instance, Settings], None],
    ) -> Callable[Concatenate[Instance, Keywords], None]:
        @wraps(init)
        def construct(self: Instance, /, *values: Keywords.args, **named: Keywords.kwargs) -> None:
            init(self, kind(*values, **named))

        keywords = signature(kind).parameters.values()
        instance = Parameter("self", Parameter.POSITIONAL_ONLY)
        vars(construct)["__signature__"] = Signature([instance, *keywords], return_annotation=None)
        vars(construct)["__settings__"] = kind  # whose docstring describes the keywords
        return construct

    return decorate


def _mapping(name: str, values: object) -> dict[str, Any]:
    """Return a mapping as a dictionary, an empty one for None."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise ValueError(f"{name}={values!r} must be a mapping of names to numbers, such as {{'name': 0.1}}")
    return dict(values)
