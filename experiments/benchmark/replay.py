"""A device that takes no time: it repeats the recordings of its first runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from hxtrain.backends import Backend, BackendWrapper, Batching, Circuit, DeviceError, Recording, Stimulus


class ReplayBackend(BackendWrapper, Batching):
    """Device with recorded runs, so that the time of a training step is the host's share alone.

    Args:
        backend: Device whose runs are recorded.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._recordings: dict[tuple[int, ...], list[Recording | DeviceError]] = {}

    @property
    def identity(self) -> Mapping[str, str]:
        """Return the identity of the recorded device, with a mark."""
        return {**super().identity, "replay": "yes"}

    @property
    def takes_any_batch(self) -> bool:
        """Return False: the device stands for a chip, whose host splits batches."""
        return False

    def configure(self, circuit: Circuit) -> None:
        """Configure the recorded device, and discard all recordings."""
        super().configure(circuit)
        self._recordings = {}

    def run(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        """Return the first recording of the same number of trials."""
        (outcome,) = self.run_all(weights, [stimulus])
        if isinstance(outcome, DeviceError):
            raise outcome
        return outcome

    def run_all(self, weights: Mapping[str, Tensor], stimuli: Sequence[Stimulus]) -> list[Recording | DeviceError]:
        """Return the first recordings of runs of the same numbers of trials."""
        sizes = tuple(stimulus.spikes.samples for stimulus in stimuli)
        if sizes not in self._recordings:
            self._recordings[sizes] = [self.backend.run(weights, stimulus) for stimulus in stimuli]
        recordings = zip(self._recordings[sizes], stimuli, strict=True)
        return [_at(recording, stimulus.clock) for recording, stimulus in recordings]


def _at(recording: Recording | DeviceError, clock: int) -> Recording | DeviceError:
    """Return a recording with another clock; an error is returned unchanged."""
    return recording if isinstance(recording, DeviceError) else replace(recording, clock=clock)
