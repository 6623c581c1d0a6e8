"""A calibration, that is the codes of one chip for one set of targets, and its file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from ..cells import CellCodes
from ..chip import Chip
from ..layout import CIRCUITS

Array = npt.NDArray[np.float64]
FORMAT = "hxtrain calibration 1"
SIZE_LIMIT = 2**22
"""Largest unpacked size of a calibration file (bytes)."""
TARGET_TOLERANCE = 1e-3
"""Relative difference up to which targets count as equal."""
TARGETS = ("leak", "reset", "threshold", "tau_mem", "tau_syn")

CONSEQUENCES = {
    "leak": "rests off the target, so it fires too easily or too rarely",
    "rate": "fires by itself at another rate, or not at all",
    "reset": "restarts off the target after a spike",
    "threshold": "may fire without input, or never",
    "tau_mem": "integrates over another time than the model assumes",
    "tau_syn_exc": "has excitatory currents of another duration than the model assumes",
    "tau_syn_inh": "has inhibitory currents of another duration than the model assumes",
    "gain_exc": "has excitatory weights of another strength",
    "gain_inh": "has inhibitory weights of another strength",
}

USUAL_SHARE = 0.1
"""Largest share of neurons with a failed parameter that outliers and stuck cells of a die explain."""


class CalibrationError(ValueError):
    """A calibration cannot be made, read, or used for this chip and these targets."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Codes of one chip.

    Attributes:
        chip: name of the chip.
        die: content hash of the die.
        targets: leak, reset, threshold (LSB), tau_mem, tau_syn (s), each `[512]`.
        codes: codes of all parameter cells.
        success: mask of the circuits that reached their target, by parameter, each `[512]`.
        stages: stages that were run; the other cells are at common codes.
        seed: seed of the temporal noise during the measurements.
        date: date of the measurement.
    """

    chip: str
    die: str
    targets: Mapping[str, Array]
    codes: CellCodes
    success: Mapping[str, npt.NDArray[np.bool_]]
    stages: tuple[str, ...]
    seed: int
    date: str

    def __post_init__(self) -> None:
        expected = set(CONSEQUENCES) - {"leak" if "rate" in self.success else "rate"}
        for group, arrays, names in (("targets", self.targets, set(TARGETS)), ("success", self.success, expected)):
            if set(arrays) != names:
                raise CalibrationError(
                    f"{group} are of {', '.join(sorted(arrays))}, expected {', '.join(sorted(names))}"
                )
            for name, values in arrays.items():
                if np.shape(values) != (CIRCUITS,):
                    raise CalibrationError(f"{group}.{name} has shape {np.shape(values)}, expected ({CIRCUITS},)")
        for name, values in self.targets.items():
            _check_targets(name, values)

    @property
    def hash(self) -> str:
        """Content hash of chip, targets and codes, 16 hexadecimal digits."""
        sha = hashlib.sha256((self.chip + self.die + self.codes.digest()).encode())
        for name in sorted(self.targets):
            sha.update(name.encode() + np.ascontiguousarray(self.targets[name], dtype="<f8").tobytes())
        return sha.hexdigest()[:16]

    def require_chip(self, chip: Chip) -> None:
        """Raise CalibrationError unless this is the calibration of `chip`."""
        if (self.chip, self.die) != (chip.name, chip.silicon.digest[:16]):
            raise CalibrationError(
                f"the calibration is of chip {self.chip} (die {self.die}), this is {chip.name} "
                f"(die {chip.silicon.digest[:16]}): its codes would leave this chip's neurons as spread as "
                f"uncalibrated ones. Calibrate this chip: hxtrain calibrate chip.name={chip.name}"
            )

    def require_targets(self, requested: Mapping[str, Array], circuits: npt.NDArray[np.int64], spiking: Mask) -> None:
        """Raise CalibrationError unless the targets of the circuits in use are those of the calibration.

        Args:
            requested: targets of a network, each `[512]`.
            circuits: indices of the circuits in use `[K]`.
            spiking: mask of the circuits in use that need threshold and reset `[K]`.
        """
        for name in self.targets:
            relevant = circuits[spiking] if name in ("threshold", "reset") else circuits
            calibrated = self.targets[name][relevant]
            required = requested[name][relevant]
            differs = ~equal_targets(calibrated, required)
            if differs.any():
                first = int(np.flatnonzero(differs)[0])
                option = f"network.{name}" if name.startswith("tau") else f"the target {name}"
                raise CalibrationError(
                    f"chip {self.chip} is calibrated for {name}={calibrated[first]:.4g}, the network asks for "
                    f"{required[first]:.4g} ({int(differs.sum())} circuits): {_effect(name)}. Calibrate for it: "
                    f"hxtrain calibrate chip.name={self.chip} targets.{name}={required[first]:.4g}; "
                    f"or set {option} to {calibrated[first]:.4g}"
                )

    def failures(
        self, circuits: npt.NDArray[np.int64], names: list[str], only: tuple[str, ...] | None = None
    ) -> tuple[str, ...]:
        """Return one line on all failed parameters of the circuits in use, with consequences; empty without failures.

        Args:
            circuits: physical circuits of each logical neuron `[A, N]`; -1 for no circuit.
            names: names of the logical neurons `[N]`.
            only: imperfections that the chip has (`Chip.only`); the parameters of all others are ideal.
        """
        masks = {parameter: self._failure_mask(parameter, circuits) for parameter in self._relevant(only)}
        parts = [
            f"{parameter} {_describe_failures(mask, names, parameter)}"
            for parameter, mask in masks.items()
            if mask.any()
        ]
        if not parts:
            return ()
        share = float(np.any(list(masks.values()), axis=0).mean())
        return (
            f"{share:.1%} of the neurons missed a target of the calibration: {', '.join(parts)}. "
            + ("A few do on any die; training" if share <= USUAL_SHARE else "That is more than usual. Training")
            + " in the loop learns around them",
        )

    def failed_circuits(self, only: tuple[str, ...] | None = None) -> frozenset[int]:
        """Return the circuits that missed a target.

        Args:
            only: imperfections that the chip has (`Chip.only`); the parameters of all others are ideal.
        """
        failed = np.any([*self.missed(only).values()], axis=0)
        return frozenset(np.flatnonzero(np.broadcast_to(failed, CIRCUITS)).tolist())

    def missed(self, only: tuple[str, ...] | None = None) -> dict[str, Mask]:
        """Return the masks of the circuits that missed a target, by parameter, each `[512]`.

        Args:
            only: imperfections that the chip has (`Chip.only`); the parameters of all others are ideal.
        """
        return {parameter: ~self.success[parameter] for parameter in self._relevant(only)}

    def _relevant(self, only: tuple[str, ...] | None) -> list[str]:
        """Return the calibrated parameters that matter on a chip with these imperfections."""
        return [p for p in self.success if p in CONSEQUENCES and (only is None or imperfection(p) in only)]

    def _failure_mask(self, parameter: str, circuits: npt.NDArray[np.int64]) -> Mask:
        """Return the mask of logical neurons `[N]` for which a parameter failed in at least one merged circuit."""
        success = self.success[parameter]
        merged = parameter.startswith(("tau_syn", "gain"))
        failed: Mask = (~success[circuits] & (circuits >= 0)) if merged else ~success[circuits[:1]]
        return np.asarray(failed.any(0), bool)

    def save(self, file: str | Path) -> None:
        """Write an npz file without pickled objects."""
        arrays: dict[str, Any] = {f"codes.{f.name}": getattr(self.codes, f.name) for f in fields(self.codes)}
        arrays |= {f"targets.{name}": values for name, values in self.targets.items()}
        arrays |= {f"success.{name}": np.packbits(mask) for name, mask in self.success.items()}
        header = {
            "format": FORMAT,
            "chip": self.chip,
            "die": self.die,
            "stages": self.stages,
            "seed": self.seed,
            "date": self.date,
        }
        file = Path(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.{uuid4().hex}.tmp")  # no other process writes to this name
        try:
            with part.open("xb") as stream:
                np.savez_compressed(stream, header=np.array(json.dumps(header)), allow_pickle=False, **arrays)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, file: str | Path) -> Calibration:
        """Read a file that `save` wrote.

        Raises:
            CalibrationError: the file is missing or holds no calibration.
        """
        try:
            with Path(file).open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                size = sum(part.file_size for part in archive.zip.infolist())
                if size > SIZE_LIMIT:
                    raise CalibrationError(f"it unpacks to {size} bytes, a calibration to {SIZE_LIMIT} at most")
                header = json.loads(str(archive["header"]))
                if header["format"] != FORMAT:
                    raise CalibrationError(f"its format is {header['format']!r}, expected {FORMAT!r}")
                return cls(
                    chip=header["chip"],
                    die=header["die"],
                    targets=_part(archive, "targets"),
                    codes=CellCodes(**_part(archive, "codes")),
                    success={k: np.unpackbits(v).astype(bool) for k, v in _part(archive, "success").items()},
                    stages=tuple(header["stages"]),
                    seed=header["seed"],
                    date=header["date"],
                )
        except FileNotFoundError as error:
            raise CalibrationError(f"there is no {file}; make it with hxtrain calibrate file={file}") from error
        except Exception as error:  # a damaged archive raises nearly anything
            raise CalibrationError(f"{file} does not hold a calibration ({error}); calibrate the chip again") from error


def equal_targets(values: Array, requested: Array) -> Mask:
    """Return the mask of equal targets; NaN and infinity equal nothing."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.isfinite(requested) & (np.abs(values - requested) <= TARGET_TOLERANCE * np.abs(requested)))


def _check_targets(name: str, values: Array) -> None:
    """Raise CalibrationError unless targets are numbers that a circuit can have."""
    if values.dtype.kind not in "fiu":
        raise CalibrationError(f"targets.{name} are {values.dtype}, expected numbers")
    is_valid = np.isfinite(values) & (values > 0 if name.startswith("tau") else True)
    if not is_valid.all():
        kind = "positive and finite" if name.startswith("tau") else "finite"
        raise CalibrationError(
            f"targets.{name} of {int((~is_valid).sum())} circuits, such as {values[~is_valid][0]:g}, are not {kind}"
        )


Mask = npt.NDArray[np.bool_]


def _part(archive: Any, group: str) -> dict[str, Any]:
    start = f"{group}."
    return {name[len(start) :]: archive[name] for name in archive.files if name.startswith(start)}


def imperfection(parameter: str) -> str:
    """Return the imperfection (a name of `Chip.only`) that the calibration of a parameter corrects."""
    return "leak" if parameter == "rate" else parameter.removesuffix("_exc").removesuffix("_inh")


def _describe_failures(failed: Mask, names: list[str], parameter: str) -> str:
    """Return a text on the neurons that missed a target and the consequence for each of them."""
    neurons = np.flatnonzero(failed)
    listing = ", ".join(names[n] for n in neurons[:5]) + (", ..." if len(neurons) > 5 else "")
    return f"of {len(neurons)} ({listing}; each {CONSEQUENCES[parameter]})"


def _effect(name: str) -> str:
    if name.startswith("tau"):
        return "currents and membranes would decay otherwise than the model assumes"
    return "neurons would fire at another distance from rest than the model assumes"
