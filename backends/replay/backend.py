"""The replay: a device that gives the recordings of an archive.

It answers a run by what was measured for the very same circuit, weights and stimulus, at the same place on the clock.
If the same was asked several times, the answers come in their order, the last one again from then on; of several
sessions the last one counts, in which a resumed training repeats what was cut off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from hxtrain.backends.backend import Backend
from hxtrain.backends.capabilities import Capabilities
from hxtrain.backends.checks import check_circuit, check_recording, check_run
from hxtrain.backends.circuit import Circuit, Record
from hxtrain.backends.recording import DeviceError, Recording, Stimulus
from hxtrain.backends.spikes import Spikes

from .archive import (
    ArchiveError,
    CircuitEntry,
    Run,
    RunFile,
    circuit_entries,
    device_entry,
    key_of,
    read_run,
    run_files,
)

SAME = "A replay gives what was measured: data, seed, settings, rule and initial weights must be those of the recording"


class ReplayError(ValueError):
    """An archive has no recording of a request; the text says what differs from the recorded runs."""


class ReplayBackend(Backend):
    """A device that gives the recordings of an archive.

    Args:
        archive: Folder of an archive, from `backend.record=FOLDER` or `Recorder`.

    Raises:
        ArchiveError: The folder is no archive.
    """

    FREE_SETTINGS: ClassVar[frozenset[str]] = frozenset({"archive"})

    def __init__(self, archive: str) -> None:
        self.archive = Path(archive).expanduser()
        self._device = device_entry(self.archive)
        self._capabilities = replace(self._device.capabilities, calibration=False, batching=False)
        self._circuits: dict[tuple[int, int], CircuitEntry] = {}
        self._runs: list[RunFile] = []
        self._by_key: dict[str, list[RunFile]] = {}
        self._requests = Counter[tuple[str, Record]]()
        self._entry: CircuitEntry | None = None
        self._circuit: Circuit | None = None

    def __repr__(self) -> str:
        """Describe device and archive in a line."""
        return f"{type(self).__name__}({str(self.archive)!r}, recorded on {self._device.identity.get('backend')})"

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the recorded device; it can neither be calibrated nor take several runs at once."""
        return self._capabilities

    @property
    def identity(self) -> Mapping[str, str]:
        """Return the identity of the recorded device, with its backend under `recorded_on`."""
        recorded = self._device.identity if self._entry is None else self._entry.identity
        return {**recorded, "backend": "replay", "recorded_on": recorded.get("backend", "unknown")}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings of the recorded device with the circuit."""
        return () if self._entry is None else self._entry.warnings

    @property
    def tolerances(self) -> str:
        """Tolerances of the recorded device."""
        return self._device.tolerances

    @property
    def takes_any_batch(self) -> bool:
        """Whether the recorded device does, so that batches are split as they were."""
        return self._device.takes_any_batch

    def open(self) -> None:
        """List the runs of the archive.

        Raises:
            ArchiveError: A file of the archive is damaged.
        """
        self._circuits = circuit_entries(self.archive)
        self._runs = run_files(self.archive)
        self._by_key = {}
        for run in self._runs:
            self._by_key.setdefault(run.key, []).append(run)

    def close(self) -> None:
        """Forget the configuration."""
        self._circuit = None
        self._entry = None

    def configure(self, circuit: Circuit) -> None:
        """Choose the recorded circuit.

        Raises:
            ReplayError: The circuit was not recorded; the text says what differs.
            ValueError: The circuit does not fit the recorded device.
        """
        check_circuit(circuit, self._capabilities)
        alike = [entry for entry in self._circuits.values() if _is_same(entry.circuit, circuit)]
        if not alike:
            raise ReplayError(
                f"{self.archive} has no run of this circuit: {self._circuit_differences(circuit)}. {SAME}"
            )
        self._entry = next((entry for entry in reversed(alike) if entry.circuit == circuit), alike[-1])
        self._circuit = circuit

    def run(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        """Return the recording of the same weights and stimulus.

        Raises:
            ReplayError: There is none; the text says what differs from the run at the same place on the clock.
            ArchiveError: Its file is damaged.
        """
        circuit = check_run(self._circuit, weights, stimulus, self._capabilities.weight_max)
        key = key_of(circuit, weights, stimulus)
        runs = self._candidates(key, circuit)
        if not runs:
            misfit = self._misfit(circuit, weights, stimulus)
            raise ReplayError(f"{self.archive} has no recording of this run: {misfit}")
        request = (key, circuit.record)
        run = runs[min(self._requests[request], len(runs) - 1)]
        self._requests[request] += 1
        try:
            return check_recording(circuit, read_run(run, self._circuits).recording, stimulus)
        except DeviceError as error:
            raise ArchiveError(f"{run.path} is no recording of its circuit ({error}); record it again") from error

    def _candidates(self, key: str, circuit: Circuit) -> list[RunFile]:
        """Return the runs of a key that recorded what a circuit requests: those of the last session that has some.

        Runs that recorded more are taken if there is none of the very same circuit.
        """
        alike = self._by_key.get(key, [])
        runs = [run for run in alike if self._circuit_of(run) == circuit]
        runs = runs or [run for run in alike if _gives(self._circuit_of(run), circuit)]
        return [run for run in runs if run.session == runs[-1].session]

    def _circuit_of(self, run: RunFile) -> Circuit:
        """Return the circuit of a run, with what was requested then.

        Raises:
            ArchiveError: The file of the circuit is missing.
        """
        entry = self._circuits.get((run.session, run.circuit))
        if entry is None:
            raise ArchiveError(f"{run.path.parent} lacks the file of circuit {run.circuit}; copy the whole archive")
        return entry.circuit

    def _circuit_differences(self, circuit: Circuit) -> str:
        """Return how a circuit differs from the recorded one that is most alike."""
        recorded = [entry.circuit for entry in self._circuits.values()]
        if not recorded:
            return "it has no runs at all"
        fewest = min((_circuit_differences(old, circuit) for old in recorded), key=len)
        return "; ".join(fewest)

    def _misfit(self, circuit: Circuit, weights: Mapping[str, Tensor], stimulus: Stimulus) -> str:
        """Return how a run differs from the recorded ones at the same place on the clock."""
        runs = [run for run in self._runs if run.clock == stimulus.clock]
        if not runs:
            clocks = sorted({run.clock for run in self._runs})
            places = f", at clocks {clocks[0]} to {clocks[-1]}" if clocks else ""
            return f"there is none at clock {stimulus.clock} (it has {len(self._runs)} runs{places}). {SAME}"
        differences = [_differences(read_run(run, self._circuits), circuit, weights, stimulus) for run in runs]
        fewest = min(differences, key=len)
        return f"at clock {stimulus.clock} {'; '.join(fewest)}. {SAME}"


def _is_same(first: Circuit, second: Circuit) -> bool:
    """Return whether two circuits are the same, whatever is recorded of them."""
    return replace(first, record=Record()) == replace(second, record=Record())


def _gives(recorded: Circuit, requested: Circuit) -> bool:
    """Return whether all that a circuit requests was requested of a recorded one."""
    return {*requested.traced} <= {*recorded.traced} and {*requested.spiking} <= {*recorded.spiking}


def _circuit_differences(recorded: Circuit, requested: Circuit) -> list[str]:
    """Return a text for each field in which a circuit differs from a recorded one."""
    texts = []
    for item in fields(Circuit):
        old, new = getattr(recorded, item.name), getattr(requested, item.name)
        if item.name == "record" or old == new:
            continue
        if item.name in ("populations", "projections") and len(old) == len(new):
            texts += [
                f"{a.name}: {part.name}={getattr(b, part.name)!r} instead of the recorded {getattr(a, part.name)!r}"
                for a, b in zip(old, new, strict=True)
                for part in fields(a)
                if getattr(a, part.name) != getattr(b, part.name)
            ]
        else:
            size = (len(old), len(new)) if isinstance(old, tuple) else (old, new)
            texts.append(f"{item.name}={size[1]!r} instead of the recorded {size[0]!r}")
    return texts


def _differences(run: Run, circuit: Circuit, weights: Mapping[str, Tensor], stimulus: Stimulus) -> list[str]:
    """Return a text for each difference of a request from a recorded run."""
    if not _is_same(run.circuit, circuit):
        return [f"another circuit was recorded ({text})" for text in _circuit_differences(run.circuit, circuit)]
    texts = _stimulus_differences(run.stimulus.spikes, stimulus.spikes)
    for name, matrix in run.weights.items():
        change = (weights[name].cpu().int() - matrix.int()).abs()
        if bool(change.any()):
            texts.append(
                f"weights of {name} differ from the recorded ones in {int((change > 0).sum())} of {change.numel()} "
                f"synapses, by up to {int(change.max())}"
            )
    missing = [p.name for p in circuit.traced if p.name not in run.recording.traces]
    missing += [p.name for p in circuit.spiking if p.name not in run.recording.spikes]
    return texts or [f"membranes or spikes of {', '.join(missing)} were not recorded"]


def _stimulus_differences(recorded: Spikes, requested: Spikes) -> list[str]:
    """Return a text if a stimulus differs from a recorded one."""
    requested = requested.to("cpu")
    sizes = [(s.samples, s.units, len(s)) for s in (recorded, requested)]
    if sizes[0] != sizes[1]:
        texts = ["{} trials of {} inputs with {} events".format(*size) for size in sizes]
        return [f"the stimulus has {texts[1]}, the recorded one {texts[0]}"]
    parts = [(getattr(recorded, name), getattr(requested, name)) for name in ("sample", "unit", "time")]
    changed = torch.stack([old != new for old, new in parts]).any(0)
    if not bool(changed.any()):
        return []
    first = int(changed.nonzero()[0, 0])
    sample, unit, time = (new[first].item() for _, new in parts)
    return [
        f"{int(changed.sum())} of {len(requested)} events of the stimulus differ from the recorded ones, the first in "
        f"trial {sample}: input {unit} at {time:.4g} s"
    ]
