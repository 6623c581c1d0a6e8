"""Parameters of the neurons of a device, as measured from outside, and their file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .files import replacing
from .ranges import COUNT, Range, misfits

Array = npt.NDArray[np.float64]
FORMAT = "hxtrain neuron parameters 1"
LARGEST_FILE = 2**28
"""Most bytes that a file may unpack to."""


class ParameterFileError(ValueError):
    """A file does not hold neuron parameters, or not those of the circuit in use."""


@dataclass(frozen=True)
class NeuronParameters:
    """Parameters of `N` logical neurons with `A` merged circuits and `J` signed inputs each.

    Attributes:
        device: Origin of the parameters: name and hash of the chip.
        merged: Circuits per neuron `A`.
        leak: Leak potential (trace units) `[N]`.
        reset: Reset potential (trace units) `[N]`.
        threshold: Threshold (trace units) `[N]`; infinite where the neuron never fired.
        tau_mem: Time constant of the membrane (s) `[N]`.
        tau_syn: Time constants of the synaptic currents (s) `[A, 2, N]`, excitatory and inhibitory.
        strength: Strength of each synapse relative to the device's nominal `synaptic_drive` `[J, 2, N]`.
        membrane_noise: Standard deviation of the membrane, correlated over `tau_mem` (trace units).
        trace_noise: Standard deviation of a single trace sample (trace units).
        threshold_noise: Standard deviation of the threshold from batch to batch (trace units).
        spike_jitter: Standard deviation of a spike's time (s).
        saturation: Synaptic current at which the amplifier saturates (weight LSB); None: it is linear.
        rails: Lower and upper limit of the traces (trace units); None: there are none.
        notes: Remarks on the measurement.
    """

    device: dict[str, str]
    merged: int
    leak: Array
    reset: Array
    threshold: Array
    tau_mem: Array
    tau_syn: Array
    strength: Array
    membrane_noise: float = 0.0
    trace_noise: float = 0.0
    threshold_noise: float = 0.0
    spike_jitter: float = 0.0
    saturation: float | None = None
    rails: tuple[float, float] | None = None
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        problems = misfits(self, _NUMBERS) + [text for name in _RANGES for text in self._outside(name)]
        if self.rails is not None and not (
            len(self.rails) == 2 and -LARGEST <= self.rails[0] < self.rails[1] <= LARGEST
        ):
            problems.append(f"rails={self.rails} must be two ascending numbers, or None")
        if not isinstance(self.device, dict) or not all(isinstance(text, str) for text in self.device.values()):
            problems.append(f"device={ascii(self.device)[:80]} must map names to texts")
        if problems:
            raise ParameterFileError("; ".join(problems))
        neurons = len(self.leak)
        expected = {
            "leak": (neurons,),
            "reset": (neurons,),
            "threshold": (neurons,),
            "tau_mem": (neurons,),
            "tau_syn": (self.merged, 2, neurons),
            "strength": (self.strength.shape[0], 2, neurons),
        }
        if not neurons:
            raise ParameterFileError("leak is of no neurons; expected [N], N at least 1")
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ParameterFileError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")

    def _outside(self, name: str) -> list[str]:
        """Return a text if an array holds a value outside its range; NaN is always outside."""
        values = getattr(self, name)
        (low, high) = _RANGES[name]
        if not isinstance(values, np.ndarray) or values.dtype.kind != "f" or not values.ndim:
            return [f"{name} must be an array of floats"]
        good = (values >= low) & (values <= high)
        if name == "threshold":
            good |= values == np.inf
        if good.all():
            return []
        suffix = ", or infinite" if name == "threshold" else ""
        return [
            f"{name} of {int((~good).sum())} entries, such as {values[~good][0]:g}, is not in {low:g}..{high:g}{suffix}"
        ]

    @property
    def hash(self) -> str:
        """Content hash, 16 hexadecimal digits."""
        sha = hashlib.sha256(self._header().encode())
        for name in _arrays():
            sha.update(np.ascontiguousarray(getattr(self, name), dtype="<f8").tobytes())
        return sha.hexdigest()[:16]

    def save(self, file: str | Path) -> None:
        """Write an npz file without pickled objects."""
        arrays = {name: getattr(self, name) for name in _arrays()}
        with replacing(Path(file)) as stream:
            np.savez_compressed(stream, header=np.array(self._header()), allow_pickle=False, **arrays)

    @classmethod
    def load(cls, file: str | Path) -> NeuronParameters:
        """Read what `save` wrote.

        Raises:
            ParameterFileError: The file is missing or holds something else.
        """
        try:
            with Path(file).open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                size = sum(part.file_size for part in archive.zip.infolist())
                if size > LARGEST_FILE:
                    raise ParameterFileError(f"it unpacks to {size} bytes, at most {LARGEST_FILE} are read")
                header = json.loads(str(archive["header"]))
                if header.pop("format") != FORMAT:
                    raise ParameterFileError(f"it is not of the format {FORMAT!r}")
                arrays = {name: archive[name].astype(np.float64) for name in _arrays()}
                header["rails"] = None if header["rails"] is None else tuple(header["rails"])
                header["notes"] = tuple(header["notes"])
                return cls(**header, **arrays)
        except FileNotFoundError as error:
            raise ParameterFileError(f"there is no {file}; make it with hxtrain fit file={file}") from error
        except Exception as error:  # a damaged archive raises nearly anything
            raise ParameterFileError(
                f"{file} does not hold neuron parameters ({error}); fit the device again"
            ) from error

    def _header(self) -> str:
        plain = {key: value for key, value in asdict(self).items() if key not in _arrays()}
        return json.dumps({"format": FORMAT, **plain}, sort_keys=True)


LARGEST = 1e6
"""Largest potential (trace units)."""
_RANGES = {
    **dict.fromkeys(("leak", "reset", "threshold"), (-LARGEST, LARGEST)),
    **dict.fromkeys(("tau_mem", "tau_syn"), (1e-9, 1.0)),
    "strength": (-1e3, 1e3),
}
"""Ranges of the arrays; thresholds may also be infinite."""
_NUMBERS = {
    "merged": COUNT,
    **dict.fromkeys(("membrane_noise", "trace_noise", "threshold_noise"), Range(0, LARGEST)),
    "spike_jitter": Range(0, 1, unit="s"),
    "saturation": Range(0, above=True, optional=True),
}


def _arrays() -> list[str]:
    return [f.name for f in fields(NeuronParameters) if f.type == "Array"]
