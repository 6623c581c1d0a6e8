"""Input that does not arrive: events after the recorded window, or none at all."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from hxtrain.neurons import GridEvents

log = logging.getLogger(__name__)
FEW_EVENTS = 0.05
"""Number of input events per sample within the window below which the input counts as silent."""
SPARSE = 0.05
"""Number of events per sample and input below which sparse input may explain a silent first layer."""
MIN_SAMPLES = 2
"""Number of samples below which silence is no evidence."""


def missing_input(passes: Sequence[GridEvents]) -> str | None:
    """Return a warning, with a remedy, if the input of some passes does not arrive; None if it does."""
    samples, events, late = _totals(passes)
    if 2 * late > events:
        dt, steps = passes[0].dt, passes[0].steps
        return (
            f"the input is late: {late} of {events} events lie after the window of {steps * dt:.3g} s "
            f"({steps} steps of {dt:.3g} s). Take a larger encoder.speedup, at which recordings pass faster, or more "
            "network.steps. Times are in seconds from the start of each sample; another unit is named by "
            "data.settings.time_unit, by an array time_unit, or in Spikes.from_events(..., time_unit=1e-6). The "
            "encoder's `tau` is in seconds, too"
        )
    if samples >= MIN_SAMPLES and events - late < FEW_EVENTS * samples:
        return (
            f"the input is silent: {events - late} events in {samples} samples. Images are to span 0..1 (divided by "
            "255 once; 8-bit files use all levels up to 255), with values above the `threshold` of the encoder"
        )
    return None


def sparse_input(passes: Sequence[GridEvents]) -> str | None:
    """Return a warning if the input of some passes may be too sparse to make a layer fire; None if it is not."""
    samples, events, late = _totals(passes)
    if not samples or events - late >= SPARSE * samples * passes[0].units:
        return None
    return (
        f"only {(events - late) / samples:.2g} input events per sample of {passes[0].units} inputs arrive. Images are "
        "to span 0..1 (divided by 255 once; 8-bit files use all levels up to 255), with values above "
        "the `threshold` of the encoder, which can be lowered"
    )


def _totals(passes: Sequence[GridEvents]) -> tuple[int, int, int]:
    """Return the numbers of samples, of events and of late events."""
    samples = events = late = 0
    for grid in passes:
        samples += grid.samples
        events += grid.events
        late += grid.late
    return samples, events, late


class InputWatch:
    """Logs one warning if the input of a network does not arrive.

    Attributes:
        active: Whether passes are checked: False once a warning is logged, or if a trainer checks them instead.
    """

    def __init__(self) -> None:
        self.active = True
        self._passes = 0

    def look(self, events: GridEvents) -> None:
        """Check a pass; on a GPU, where each check makes the host wait, at ever longer intervals."""
        if not self.active:
            return
        self._passes += 1
        if events.on_gpu and self._passes & (self._passes - 1):
            return
        text = missing_input([events])
        if text is not None:
            self.active = False
            log.warning("%s", text)
