"""Archives of recorded runs: folders of HDF5 files, each of which is written once and as a whole.

    ARCHIVE/001/device.h5                capabilities of the device, in the first session of a recorder
    ARCHIVE/001/circuit-001.h5           a circuit, and the identity of the device with it
    ARCHIVE/001/000012-1-400-1f6b....h5  run 12, of circuit 1, at clock 400: weights, stimulus, recording

A session that ends, however it ends, leaves whole files. The last part of a run's name is its key, a hash of circuit,
weights and stimulus; what a circuit requests to be recorded is not part of it. Texts in the files are JSON, and
are read into the types of the contract without running any code of theirs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote

import numpy as np
import torch
from torch import Tensor

from hxtrain.backends.backend import Backend
from hxtrain.backends.capabilities import Capabilities
from hxtrain.backends.circuit import Circuit, Record
from hxtrain.backends.files import replacing
from hxtrain.backends.recording import Cost, Health, Origin, Recording, Stimulus
from hxtrain.backends.remote.wire import Lines, check
from hxtrain.backends.spikes import Spikes

VERSION = 1
"""Version of the form of the files."""
DEVICE = "device.h5"
_RUN = re.compile(r"(\d{6,})-(\d+)-(\d+)-([0-9a-f]{32})\.h5")

Content = TypeVar("Content")


class ArchiveError(ValueError):
    """An archive cannot be written or read; the text names the file and a remedy."""


@dataclass(frozen=True)
class DeviceEntry:
    """Content of `device.h5`.

    Attributes:
        version: Version of the form of the files.
        capabilities: Capabilities of the device.
        tolerances: Name of its tolerances, see `Backend.tolerances`.
        takes_any_batch: Whether it takes more trials than its memory holds, see `Backend.takes_any_batch`.
        identity: Identity of the device before a circuit is configured.
    """

    version: int
    capabilities: Capabilities
    tolerances: str
    takes_any_batch: bool
    identity: Mapping[str, str]


@dataclass(frozen=True)
class CircuitEntry:
    """A circuit, with the identity and the warnings of the device that is configured with it."""

    circuit: Circuit
    identity: Mapping[str, str]
    warnings: tuple[Lines, ...]


@dataclass(frozen=True)
class RunEntry:
    """Plain values of a run.

    Attributes:
        clock: Clock of the stimulus.
        recorded_clock: Clock that the device gave back, see `Recording.clock`.
        chip_time: Time on the device (s), see `Cost`.
        energy: Energy (J); None where unknown.
        origin: How time and energy were obtained.
        dropped_spikes: Number of spikes that were lost, see `Health`.
        retries: Number of repeated runs.
        notes: Notes on the run.
    """

    clock: int
    recorded_clock: int | None
    chip_time: float
    energy: float | None
    origin: Origin
    dropped_spikes: int
    retries: int
    notes: tuple[Lines, ...]


class Run(NamedTuple):
    """A recorded run.

    Attributes:
        circuit: Circuit of the run.
        weights: Integer weights `[post, pre]` of each projection.
        stimulus: Trials of the run.
        recording: What the device measured.
    """

    circuit: Circuit
    weights: Mapping[str, Tensor]
    stimulus: Stimulus
    recording: Recording


class RunFile(NamedTuple):
    """The file of a run, and what its name says.

    Attributes:
        session: Number of the session.
        number: Number of the run in the session.
        circuit: Number of the circuit in the session.
        clock: Clock of the stimulus.
        key: Key of circuit, weights and stimulus.
        path: Path of the file.
    """

    session: int
    number: int
    circuit: int
    clock: int
    key: str
    path: Path


def key_of(circuit: Circuit, weights: Mapping[str, Tensor], stimulus: Stimulus) -> str:
    """Return the key of a run: a hash of circuit, weights and stimulus, 32 hexadecimal digits."""
    spikes = stimulus.spikes
    digest = blake2b(digest_size=16)
    digest.update(_text(replace(circuit, record=Record())).encode())
    digest.update(f"{stimulus.clock} {spikes.samples} {spikes.units} {len(spikes)}".encode())
    parts = [spikes.sample.long(), spikes.unit.long(), spikes.time.double()]
    parts += [weights[projection.name].to(torch.int32) for projection in circuit.projections]
    for part in parts:
        digest.update(np.ascontiguousarray(part.cpu().numpy()).data)
    return digest.hexdigest()


class Session:
    """A session of a recorder: it adds runs to an archive.

    Args:
        archive: Folder of the archive; it is made if it does not exist.
        backend: Open device.

    Raises:
        ArchiveError: The archive cannot be written, or holds the runs of another device or other files.
    """

    def __init__(self, archive: Path, backend: Backend) -> None:
        entry = DeviceEntry(
            VERSION, backend.capabilities, backend.tolerances, backend.takes_any_batch, dict(backend.identity)
        )
        self.folder = self._make(archive, entry)
        self._circuits: list[CircuitEntry] = []
        self._current = 0
        self._runs = 0
        _write(self.folder / DEVICE, entry)

    def _make(self, archive: Path, entry: DeviceEntry) -> Path:
        """Make the folder of a new session."""
        try:
            archive.mkdir(parents=True, exist_ok=True)
            if _sessions(archive):
                _require_same_device(archive, device_entry(archive), entry)
            elif any(not path.name.isdecimal() for path in archive.iterdir()):
                raise ArchiveError(f"{archive} holds other files, and no recorded runs; name another folder")
            numbers = [int(path.name) for path in archive.iterdir() if path.name.isdecimal()]
            folder = archive / f"{max(numbers, default=0) + 1:03d}"  # one may be of a recorder that was killed
            folder.mkdir()
        except OSError as error:
            raise ArchiveError(f"the archive {archive} cannot be written ({error.strerror}); name another") from error
        return folder

    def configure(self, circuit: Circuit, backend: Backend) -> None:
        """Let the next runs be those of a circuit, with which the device is configured."""
        entry = CircuitEntry(circuit, dict(backend.identity), tuple(map(Lines, backend.warnings)))
        if entry not in self._circuits:
            self._circuits.append(entry)
            _write(self.folder / _circuit_name(len(self._circuits)), entry)
        self._current = self._circuits.index(entry) + 1

    def add(self, weights: Mapping[str, Tensor], stimulus: Stimulus, recording: Recording) -> None:
        """Add a run of the configured circuit; it is on the disk when this returns."""
        circuit = self._circuits[self._current - 1].circuit
        self._runs += 1
        key = key_of(circuit, weights, stimulus)
        name = f"{self._runs:06d}-{self._current}-{stimulus.clock}-{key}.h5"
        health = recording.health
        notes = tuple(map(Lines, health.notes))
        entry = RunEntry(stimulus.clock, recording.clock, *recording.cost, health.dropped_spikes, health.retries, notes)
        arrays = {f"weights/{_name(p)}": matrix for p, matrix in weights.items()}
        arrays |= {f"stimulus/{part}": value for part, value in _events(stimulus.spikes).items()}
        arrays |= {f"traces/{_name(p)}": codes for p, codes in recording.traces.items()}
        for population, spikes in recording.spikes.items():
            arrays |= {f"spikes/{_name(population)}/{part}": value for part, value in _events(spikes).items()}
        if recording.lost is not None:
            arrays["lost"] = recording.lost
        _write(self.folder / name, entry, arrays)


def device_entry(archive: Path) -> DeviceEntry:
    """Return the device of an archive.

    Raises:
        ArchiveError: The folder is no archive, or is one of a later version.
    """
    sessions = _sessions(archive) if archive.is_dir() else {}
    if not sessions:
        raise ArchiveError(f"{archive} is no archive of recorded runs; record one with backend.record=FOLDER")
    with _open(sessions[max(sessions)] / DEVICE) as file:
        version = json.loads(_read_text(file)).get("version")
        if version != VERSION:
            raise ArchiveError(f"{archive} has the form {version!r}, this hxtrain reads {VERSION}; install a later one")
        return _parse(DeviceEntry, file)


def circuit_entries(archive: Path) -> dict[tuple[int, int], CircuitEntry]:
    """Return the circuits of an archive, by session and number in it."""
    entries = {}
    for session, folder in _sessions(archive).items():
        for path in sorted(folder.glob("circuit-*.h5")):
            with _open(path) as file:
                entries[session, int(path.stem.partition("-")[2])] = _parse(CircuitEntry, file)
    return entries


def run_files(archive: Path) -> list[RunFile]:
    """Return the files of all runs of an archive, in the order of their recording; none of them is opened."""
    files = []
    for session, folder in _sessions(archive).items():
        for path in folder.iterdir():
            match = _RUN.fullmatch(path.name)
            if match:
                number, circuit, clock = (int(match[group]) for group in (1, 2, 3))
                files.append(RunFile(session, number, circuit, clock, match[4], path))
    return sorted(files)


def read_run(run: RunFile, circuits: Mapping[tuple[int, int], CircuitEntry]) -> Run:
    """Return a recorded run.

    Args:
        run: File of the run.
        circuits: Circuits of the archive, from `circuit_entries`.

    Raises:
        ArchiveError: The file is damaged.
    """
    with _open(run.path) as file:
        entry = _parse(RunEntry, file)
        weights = {unquote(name): _tensor(file["weights"][name]) for name in file.get("weights", ())}
        stimulus = Stimulus(_spikes(file["stimulus"]), entry.clock)
        recording = Recording(
            spikes={unquote(name): _spikes(file["spikes"][name]) for name in file.get("spikes", ())},
            traces={unquote(name): _tensor(file["traces"][name]) for name in file.get("traces", ())},
            cost=Cost(entry.chip_time, entry.energy, entry.origin),
            health=Health(entry.dropped_spikes, entry.retries, entry.notes),
            lost=_tensor(file["lost"]) if "lost" in file else None,
            clock=entry.recorded_clock,
        )
        return Run(circuits[run.session, run.circuit].circuit, weights, stimulus, recording)


def _sessions(archive: Path) -> dict[int, Path]:
    """Return the folders of the sessions of an archive by number, in their order."""
    folders = {
        int(path.parent.name): path.parent for path in archive.glob(f"*/{DEVICE}") if path.parent.name.isdecimal()
    }
    return dict(sorted(folders.items()))


def _require_same_device(archive: Path, recorded: DeviceEntry, entry: DeviceEntry) -> None:
    old, new = ({**asdict(e.capabilities), "backend": e.identity.get("backend")} for e in (recorded, entry))
    changed = [f"{name}={new[name]!r} instead of {old[name]!r}" for name in new if new[name] != old[name]]
    if changed:
        raise ArchiveError(
            f"{archive} holds runs of another device: {', '.join(changed[:4])}; name another folder for this one"
        )


def _circuit_name(number: int) -> str:
    return f"circuit-{number:03d}.h5"


def _name(name: str) -> str:
    """Return a name as that of an HDF5 group, which `unquote` gives back."""
    return quote(name, safe="-> ").replace(".", "%2E")


def _events(spikes: Spikes) -> dict[str, Any]:
    size = np.asarray([spikes.samples, spikes.units])
    return {"sample": spikes.sample, "unit": spikes.unit, "time": spikes.time, "size": size}


def _spikes(group: Any) -> Spikes:
    samples, units = (int(value) for value in group["size"][()])
    sample, unit = (_tensor(group[part]).long() for part in ("sample", "unit"))
    return Spikes.trusted(sample, unit, _tensor(group["time"]), samples, units)


def _tensor(dataset: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(dataset[()]))


def _text(entry: Any) -> str:
    return json.dumps(asdict(entry))


def _write(path: Path, entry: Any, arrays: Mapping[str, Any] | None = None) -> None:
    """Write a file as a whole: an entry as text, and arrays by name.

    Raises:
        ArchiveError: The file cannot be written.
    """
    import h5py

    buffer = BytesIO()
    with h5py.File(buffer, "w") as file:
        file["text"] = _text(entry)
        for name, values in (arrays or {}).items():
            array = values.cpu().numpy() if isinstance(values, Tensor) else values
            # compressed at low effort, with a checksum
            options = {"chunks": array.shape, "compression": 1, "shuffle": True, "fletcher32": True}
            file.create_dataset(name, data=array, **(options if array.size else {}))
    try:
        with replacing(path) as target:
            target.write(buffer.getbuffer())
    except OSError as error:
        raise ArchiveError(
            f"{error.filename} cannot be written ({error.strerror}); the runs before it are recorded. Make room, or "
            "record into another folder"
        ) from error


class _open:  # noqa: N801 - a context manager, used as a function
    """Opens a file to read; errors of its content become an `ArchiveError`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None

    def __enter__(self) -> Any:
        import h5py

        try:
            self._file = h5py.File(self._path, "r")
        except OSError as error:
            raise self._damaged(error) from error
        return self._file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if isinstance(error, OSError | KeyError | TypeError | AttributeError | RuntimeError) or (
            isinstance(error, ValueError) and not isinstance(error, ArchiveError)
        ):
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> ArchiveError:
        return ArchiveError(f"{self._path} is damaged ({type(error).__name__}: {error}); record it again")


def _read_text(file: Any) -> str:
    return str(file["text"].asstr()[()])


def _parse(kind: type[Content], file: Any) -> Content:
    return check(kind, json.loads(_read_text(file)))
