"""One run of a device: the stimulus, and the recording or the error that follows.

Times are in seconds. Shape letters: `B` trials, `T` trace samples, `N` neurons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor

from .spikes import Spikes

Origin = Literal["measured", "estimated"]
CLOCK_END = 2**53
"""End of a device's clock: no trial reaches it (57,000 years of 200 us each)."""


class DeviceError(RuntimeError):
    """A device failed; the text says what to do next."""


class QueueTimeoutError(DeviceError):
    """Others have had the device, or its server has been away, for as long as the client waits: no reason to repeat."""


@dataclass(frozen=True)
class Stimulus:
    """One batch of trials.

    Attributes:
        spikes: External events.
        clock: Number of previous trials of the host (the place of trial 0 on the device's clock). Emulated devices
            derive their temporal noise from it; chips ignore it.

    Raises:
        ValueError: The trials exceed the clock, which runs from 0 to `CLOCK_END`.
    """

    spikes: Spikes
    clock: int = 0

    def __post_init__(self) -> None:
        check_clock(self.clock, self.spikes.samples)


def check_clock(clock: int, trials: int) -> None:
    """Check that a number of trials fits on a device's clock from a place on.

    Raises:
        ValueError: The trials exceed the clock.
    """
    if not isinstance(clock, int) or isinstance(clock, bool) or not 0 <= clock <= CLOCK_END - trials:
        raise ValueError(
            f"clock={clock!r} with {trials} trials must be a whole number in 0..2^53 - {trials}: the number of trials "
            "that were run before"
        )


class Cost(NamedTuple):
    """Time (s) and energy (J; None where unknown) of a run, and how they were obtained."""

    chip_time: float
    energy: float | None
    origin: Origin


@dataclass(frozen=True)
class Health:
    """Disturbances in a run whose recording is still of use."""

    dropped_spikes: int = 0
    retries: int = 0
    notes: tuple[str, ...] = ()

    def __add__(self, other: Health) -> Health:
        """Return the sum of two pieces of one batch."""
        return Health(
            self.dropped_spikes + other.dropped_spikes,
            self.retries + other.retries,
            self.notes + other.notes,
        )


@dataclass(frozen=True, repr=False)
class Recording:
    """The result of a run on a device.

    Attributes:
        spikes: Events of each spiking population by name; at least of those in `Circuit.record`.
        traces: Raw codes uint8 `[B, T, N]` of each population by name; at least of those in `Circuit.record`, and empty
            without traces.
        cost: Time and energy.
        health: Losses and retries.
        lost: Trials whose data did not arrive whole, bool `[B]`; None: none. Their data in the recording have no
            meaning. The host repeats these trials, and fails if that does not help.
        clock: `Stimulus.clock` of the recorded run; None: the device does not know it. The host compares it to notice
            an answer to another run.
    """

    spikes: Mapping[str, Spikes]
    traces: Mapping[str, Tensor]
    cost: Cost
    health: Health = field(default_factory=Health)
    lost: Tensor | None = None
    clock: int | None = None

    def __repr__(self) -> str:
        """Describe the recording in a line."""
        spikes = ", ".join(f"{name}: {len(events)} spikes" for name, events in self.spikes.items())
        traces = ", ".join(f"{name}: {list(codes.shape)}" for name, codes in self.traces.items())
        return f"Recording({spikes or 'no spikes'}; traces {traces or 'none'})"
