"""Input on another time scale than the window, or without events: late, early, silent or sparse."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from hxtrain.neurons import GridEvents

log = logging.getLogger(__name__)
FEW_EVENTS = 0.05
"""Number of input events per sample within the window below which the input counts as silent."""
SPARSE = 0.05
"""Number of events per sample and input below which sparse input may explain a silent first layer."""
EARLY = 0.05
"""Share of the window within which nearly all events of early input lie."""
NEARLY_ALL = 0.99
"""Share of the events that counts as nearly all."""
REPEATED = 0.1
"""Share of the events that follow another one of their input, above which the input is no code of one spike each."""
MIN_SAMPLES = 2
"""Number of samples below which silence is no evidence."""
TIME_UNITS = (
    "Times are in seconds from the start of each sample; another unit is named by data.settings.time_unit, by an array "
    "time_unit, or in Spikes.from_events(..., time_unit=1e-6)"
)


def missing_input(passes: Sequence[GridEvents]) -> str | None:
    """Return a warning, with a remedy, if the input of some passes does not arrive; None if it does."""
    samples, events, late = _totals(passes)
    if 2 * late > events:
        return (
            f"the input is late: {late} of {events} events lie after the window of {_window(passes[0])}. Take a larger "
            f"encoder.speedup, at which recordings pass faster, or more network.steps. {TIME_UNITS}. The encoder's "
            "`tau` is in seconds, too"
        )
    if samples >= MIN_SAMPLES and events - late < FEW_EVENTS * samples:
        return (
            f"the input is silent: {events - late} events in {samples} samples. Images are to span 0..1 (divided by "
            "255 once; 8-bit files use all levels up to 255), with values above the `threshold` of the encoder"
        )
    return None


def early_input(passes: Sequence[GridEvents]) -> str | None:
    """Return a warning, with a remedy, if the input of some passes ends at the start of the window; else None.

    Codes with one spike of each input may end there, such as the latencies of a binary image. Recordings have several
    events of an input.
    """
    samples, events, _ = _totals(passes)
    steps = int(EARLY * passes[0].steps) if passes else 0
    if not steps or samples < MIN_SAMPLES:
        return None
    early = sum(grid.first_events(steps) for grid in passes)
    if not early or early < NEARLY_ALL * events:
        return None
    distinct = sum(int(grid.counts(0, steps).sum(0).count_nonzero()) for grid in passes)
    if early - distinct <= REPEATED * early:
        return None
    return (
        f"the input is early: {early} of {events} events lie in the first {EARLY:.0%} of the window of "
        f"{_window(passes[0])}. Take a smaller encoder.speedup, at which recordings pass more slowly, or fewer "
        f"network.steps. {TIME_UNITS}: milliseconds that are taken for microseconds come 1000 times too early"
    )


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


def _window(grid: GridEvents) -> str:
    """Return the window of a pass as text."""
    return f"{grid.steps * grid.dt:.3g} s ({grid.steps} steps of {grid.dt:.3g} s)"


def _totals(passes: Sequence[GridEvents]) -> tuple[int, int, int]:
    """Return the numbers of samples, of events and of late events."""
    samples = events = late = 0
    for grid in passes:
        samples += grid.samples
        events += grid.events
        late += grid.late
    return samples, events, late


class InputWatch:
    """Logs one warning if the input of a network does not arrive, or not as it is meant to.

    Attributes:
        active: Whether passes are checked: False once a warning is logged, or if a trainer checks them instead.
    """

    def __init__(self) -> None:
        self.active = True
        self._passes = 0

    def look(self, events: GridEvents) -> None:
        """Check a pass; what takes time, or makes the host wait for a GPU, at ever longer intervals."""
        if not self.active:
            return
        self._passes += 1
        is_power_of_two = not self._passes & (self._passes - 1)
        if events.on_gpu and not is_power_of_two:
            return
        text = missing_input([events])
        if text is None and is_power_of_two:
            text = early_input([events])
        if text is not None:
            self.active = False
            log.warning("%s", text)
