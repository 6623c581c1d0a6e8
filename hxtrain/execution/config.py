"""Settings of devices and chips: typed, checked, in a form that OmegaConf accepts."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Dict, Optional  # noqa: UP035 - OmegaConf resolves these on every Python

from hxtrain.backends import FAULTS, Backend, FaultyBackend, accepted_settings, create_backend, create_faults
from hxtrain.backends.addresses import is_pool
from hxtrain.backends.chip_settings import CHIP, ChipSettings
from hxtrain.backends.files import path_part
from hxtrain.checks import check_types

from .placement import MAX_RUNS

ANY = "any"
"""Name and preset of whichever chip of a pool is free."""
SOFTWARE = "software"
"""Name for no backend: the network runs as its software twin."""
OUTPUTS = ("membranes", "spikes")
"""Kinds of output, see `Network.output_kind`."""


@dataclass
class ChipName:
    """Name of a chip.

    Attributes:
        name: Serial number; determines an emulated chip's die. Several names, joined by `+`, are a population:
            every trial runs on one of them at random. `any` is whichever chip of a pool is free (docs/pool.md).
    """

    name: str = CHIP


@dataclass
class ChipConfig(ChipSettings, ChipName):  # a dataclass begins with the fields of its last base
    """A chip individual, for backends that have chips."""

    def __post_init__(self) -> None:
        check_types(self, "chip.")
        for name in self.name.split("+"):
            path_part(name, "chip.name")

    def wish(self) -> dict[str, Any]:
        """Return what a chip of a pool must have: name and preset, unless they are `any`.

        Raises:
            ValueError: Another setting of the chip has a value; it is a setting of the server.
        """
        default = ChipConfig()
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name not in ("name", "preset") and value != getattr(default, item.name):
                raise ValueError(f"chip.{item.name}={value} is a setting of the chip's server; leave it out at a pool")
        return {"chip": None if self.name == ANY else self.name, "preset": None if self.preset == ANY else self.preset}

    def settings(self, accepted: set[str]) -> dict[str, Any]:
        """Return a backend's keyword settings: name, preset, seed, and all values that differ from the default.

        Args:
            accepted: names of settings that the backend accepts.

        Raises:
            ValueError: the backend does not accept a setting with another value than the default.
        """
        if self.name == ANY:
            raise ValueError(f"chip.name={ANY} is for a pool of chips (docs/pool.md); name a chip, such as {CHIP}")
        keywords: dict[str, Any] = {"chip": self.name, "preset": self.preset, "seed": self.seed}
        default = ChipConfig()
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in ("name", "preset", "seed") or value == getattr(default, item.name):
                continue
            if item.name not in accepted:
                raise ValueError(f"chip.{item.name}={value} is not a setting of this backend; leave it out")
            keywords[item.name] = value
        return keywords


@dataclass
class BackendConfig:
    """The device that runs the network.

    Attributes:
        name: name of a registered backend, or `software` for the twin.
        settings: keyword settings of the backend.
        retries: number of repeats of a run that failed or lost trials.
        faults: probabilities of faults of the link, by name, see `hxtrain.backends.FAULTS`.
        fault_seed: seed of the faults.
        trial_time: time from trial to trial (s) for fast inference; None: long enough to keep trials independent.
        forced_reset: whether membranes and synaptic currents are reset between trials.
        max_runs: largest number of runs per sample, for a network that is larger than the device.
        run_timeout: time (s) after which an unfinished run counts as hanging; None: no limit.
        record: folder of an archive into which every run is recorded, for `backend=replay`; None: none is.
    """

    name: str = "emulator"
    settings: Dict[str, Any] = field(default_factory=dict)  # noqa: UP006
    retries: int = 5
    faults: Dict[str, float] = field(default_factory=dict)  # noqa: UP006
    fault_seed: int = 0
    trial_time: Optional[float] = None  # noqa: UP045
    forced_reset: bool = False
    max_runs: int = MAX_RUNS
    run_timeout: Optional[float] = None  # noqa: UP045
    record: Optional[str] = None  # noqa: UP045

    def __post_init__(self) -> None:
        check_types(self, "backend.")
        if self.max_runs < 1:
            raise ValueError(f"backend.max_runs={self.max_runs} must be at least 1")
        if self.run_timeout is not None and not self.run_timeout > 0:
            raise ValueError(f"backend.run_timeout={self.run_timeout} s must be positive; null for no limit")
        if self.record is not None and self.name == SOFTWARE:
            raise ValueError(f"backend.record={self.record}: software has no recordings; choose a device, or null")
        if self.trial_time is not None and not self.trial_time > 0:
            raise ValueError(f"backend.trial_time={self.trial_time} s must be positive; null for trials far apart")
        self.faults = {**dict.fromkeys(FAULTS, 0.0), **self.faults}
        try:
            create_faults(self.faults)
        except ValueError as error:
            raise ValueError(f"backend.faults: {error}") from error
        if self.faulty() and self.name == SOFTWARE:
            names = ", ".join(name for name, p in self.faults.items() if p > 0)
            raise ValueError(
                f"backend.faults: {names} cannot happen in software, where there is no link; "
                "choose a device, or set these probabilities to 0"
            )

    def faulty(self) -> bool:
        """Return whether any fault can happen."""
        return any(p > 0 for p in self.faults.values())

    def takes_chip(self) -> bool:
        """Return whether `chip` chooses an individual: the emulated one, or one of a pool."""
        return self.asks_pool() or self.has_chips()

    def asks_pool(self) -> bool:
        """Return whether the device is one of a pool of chips."""
        return is_pool(self.settings.get("address"))

    def has_chips(self) -> bool:
        """Return whether the backend makes chip individuals (accepts `chip`, `preset`, `seed`)."""
        return self.name != SOFTWARE and {"chip", "preset", "seed"} <= accepted_settings(self.name)

    def create(self, chip: ChipConfig) -> Backend | None:
        """Return the backend; None for software.

        Raises:
            UnknownBackendError: no backend has this name, or the backend does not have one of the settings.
            ValueError: a replay shall be recorded, or recordings cannot be written here.
        """
        if self.name == SOFTWARE:
            return None
        individual: dict[str, Any] = {}
        if self.asks_pool():
            individual = chip.wish()
        elif self.has_chips():
            individual = chip.settings(accepted_settings(self.name))
        backend = create_backend(self.name, **{**individual, **self.settings})
        if self.faulty():
            backend = FaultyBackend(backend, create_faults(self.faults), self.fault_seed)
        return backend if self.record is None else recorded(backend, self.record)


def recorded(backend: Backend, archive: str) -> Backend:
    """Return a backend whose runs are recorded into an archive.

    Raises:
        ValueError: The backend is a replay.
    """
    from hxtrain.backends.replay import Recorder  # loads the protocol of chip servers

    return Recorder(backend, archive)
