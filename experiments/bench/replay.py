"""A device that takes no time: it gives the recordings of its first runs again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from hxtrain.backends import Backend, BackendWrapper, Batching, Circuit, DeviceError, Recording, Stimulus


class ReplayBackend(BackendWrapper, Batching):
    """What is left of a training step on it is the host's share, which a real chip would wait for.

    Args:
        backend: the device that is recorded.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._known: dict[tuple[int, ...], list[Recording | DeviceError]] = {}

    @property
    def identity(self) -> Mapping[str, str]:
        """Return the device's, marked."""
        return {**super().identity, "replay": "yes"}

    @property
    def takes_any_batch(self) -> bool:
        """No: it stands for a chip, whose host splits batches."""
        return False

    def configure(self, circuit: Circuit) -> None:
        """Configure the device, and forget."""
        super().configure(circuit)
        self._known = {}

    def run(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        """Return the first recording of so many trials."""
        (found,) = self.run_all(weights, [stimulus])
        if isinstance(found, DeviceError):
            raise found
        return found

    def run_all(self, weights: Mapping[str, Tensor], stimuli: Sequence[Stimulus]) -> list[Recording | DeviceError]:
        """Return the first recordings of runs of so many trials."""
        sizes = tuple(stimulus.spikes.samples for stimulus in stimuli)
        if sizes not in self._known:
            self._known[sizes] = [self.backend.run(weights, stimulus) for stimulus in stimuli]
        recordings = zip(self._known[sizes], stimuli, strict=True)
        return [_at(recording, stimulus.clock) for recording, stimulus in recordings]


def _at(recording: Recording | DeviceError, clock: int) -> Recording | DeviceError:
    """Return a recording as that of a run at another time; an error stays."""
    return recording if isinstance(recording, DeviceError) else replace(recording, clock=clock)
