"""The recorder: a wrapper that writes every run of a device into an archive.

with Recorder(create_backend("emulator"), "recorded") as backend:
    net.attach(backend)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from hxtrain.backends.backend import Backend
from hxtrain.backends.checks import check_recording
from hxtrain.backends.circuit import Circuit
from hxtrain.backends.recording import Recording, Stimulus
from hxtrain.backends.wrapper import BackendWrapper

from .archive import Session
from .backend import ReplayBackend


class Recorder(BackendWrapper):
    """A device whose runs are recorded: nothing else about it changes.

    Each run is on the disk before the host gets its recording. A run that failed gives no recording, and is not in the
    archive; its repetition is.

    Args:
        backend: Device to record.
        archive: Folder of the archive; runs are added to those that it has.

    Raises:
        ValueError: The device is a replay.
    """

    def __init__(self, backend: Backend, archive: str | Path) -> None:
        if isinstance(backend, ReplayBackend):
            raise ValueError("record: a replay is recorded already; leave record out")
        super().__init__(backend)
        self.archive = Path(archive).expanduser()
        self._session: Session | None = None
        self._circuit: Circuit | None = None
        self._weights: Mapping[str, Tensor] = {}

    def __repr__(self) -> str:
        """Describe device and archive in a line."""
        return f"{type(self).__name__}({self.backend!r}, {str(self.archive)!r})"

    @property
    def session(self) -> Session:
        """Session of this recorder in the archive, which its first use makes."""
        if self._session is None:
            self._session = Session(self.archive, self.backend)
        return self._session

    def open(self) -> None:
        """Open the device, and begin a session of the archive, unless it has begun."""
        self.backend.open()
        try:
            _ = self.session
        except BaseException:
            self.backend.close()
            raise

    def configure(self, circuit: Circuit) -> None:
        """Configure the device, and record the circuit."""
        self.backend.configure(circuit)
        self._circuit = circuit
        self.session.configure(circuit, self.backend)

    def map_weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Note the weights of the next runs."""
        self._weights = weights
        return weights

    def map_recording(self, recording: Recording, stimulus: Stimulus) -> Recording:
        """Write a run into the archive, and return its recording.

        Raises:
            DeviceError: The recording is none of the circuit; it is not written.
            ArchiveError: The file cannot be written.
        """
        assert self._circuit is not None  # else the device does not run
        self.session.add(self._weights, stimulus, check_recording(self._circuit, recording, stimulus))
        return recording
