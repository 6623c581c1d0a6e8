"""A device that takes no time: it gives the recordings of its first runs again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from hxtrain.backends import Backend, Batching, Capabilities, Circuit, DeviceError, Recording, Stimulus


class ReplayBackend(Backend, Batching):
    """What is left of a training step on it is the host's share, which a real chip would wait for.

    Args:
        inner: the device that is recorded.
    """

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self._known: dict[tuple[int, ...], list[Recording | DeviceError]] = {}

    @property
    def capabilities(self) -> Capabilities:
        """The inner device's."""
        return self._inner.capabilities

    @property
    def identity(self) -> Mapping[str, str]:
        """Return the inner device's, marked."""
        return {**self._inner.identity, "replay": "yes"}

    def open(self) -> None:
        """Open the inner device."""
        self._inner.open()

    def close(self) -> None:
        """Close the inner device."""
        self._inner.close()

    def configure(self, circuit: Circuit) -> None:
        """Configure the inner device, and forget."""
        self._inner.configure(circuit)
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
            self._known[sizes] = [self._inner.run(weights, stimulus) for stimulus in stimuli]
        return list(self._known[sizes])
