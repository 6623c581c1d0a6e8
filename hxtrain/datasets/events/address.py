"""Address events, (x, y, t, p) or (unit, t): what the fields of recordings mean, and which unit an event belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hxtrain.checks import count, flag, mapping, positive, text

from ..errors import DatasetError
from .store import Integers

NAMES: Mapping[str, tuple[str, ...]] = {
    "t": ("t", "times", "time", "ts", "timestamp", "timestamps"),
    "x": ("x",),
    "y": ("y",),
    "p": ("p", "pol", "polarity"),
    "unit": ("unit", "units"),
}
"""Names of a field that are looked for, in this order, unless a layout declares one."""


class Addresses(NamedTuple):
    """Events in terms of units.

    Attributes:
        time: times (s), float64, or of the type of the file if these are seconds [E].
        unit: units, any integer type [E].
    """

    time: npt.NDArray[Any]
    unit: npt.NDArray[Any]


@dataclass(frozen=True)
class AddressLayout:
    """What the fields of recordings mean.

    A sensor has `width`, `height` and `polarities`; its unit of an event is `(p * height + y) * width + x`. Recordings
    of units without a place have `units` alone.

    Attributes:
        width: number of columns of the sensor; None: the recordings name units.
        height: number of rows.
        polarities: number of polarities. With 1 the polarity is not read: both belong to one unit. With 2 a polarity of
            -1 counts as 0.
        units: number of units; None: the recordings have places.
        time_unit: unit of the times (s), 1e-6 for microseconds.
        fields: names of the fields `x`, `y`, `t`, `p` and `unit` where they differ from those in `NAMES`.
        pool: side of squares of pixels that share a unit; all their events count.
        from_first: whether times count from the first event of a sample, as those of a clock that runs on need.

    Raises:
        DatasetError: a value is out of range, or neither `width` nor `units` is given.
    """

    width: int | None = None
    height: int = 1
    polarities: int = 2
    units: int | None = None
    time_unit: float = 1e-6
    fields: Mapping[str, str] = field(default_factory=dict)
    pool: int = 1
    from_first: bool = False

    def __post_init__(self) -> None:
        if (self.width is None) == (self.units is None):
            raise DatasetError(
                "declare the sensor, data.settings.width=34 data.settings.height=34, or the number of units, "
                "data.settings.units=700"
            )
        try:
            for name in ("width", "height", "polarities", "units", "pool"):
                if getattr(self, name) is not None:
                    count(f"data.settings.{name}", getattr(self, name))
            positive("data.settings.time_unit", self.time_unit)
            flag("data.settings.from_first", self.from_first)
            for name, value in mapping("data.settings.fields", self.fields).items():
                text(f"data.settings.fields.{name}", value)
        except ValueError as error:
            raise DatasetError(str(error)) from None
        unknown = set(self.fields) - set(NAMES)
        if unknown:
            raise DatasetError(f"data.settings.fields.{min(unknown)}: no such field; there are {', '.join(NAMES)}")

    @property
    def roles(self) -> tuple[str, ...]:
        """Fields that recordings of this layout need."""
        if self.units is not None:
            return ("t", "unit")
        return ("t", "x", *(["y"] if self.height > 1 else []), *(["p"] if self.polarities > 1 else []))

    @property
    def total_units(self) -> int:
        """Number of units of the network's input."""
        if self.units is not None:
            return self.units
        return self.polarities * -(-self.height // self.pool) * -(-(self.width or 0) // self.pool)

    def names(self, present: Any, place: str) -> dict[str, str]:
        """Return the name of every field that is needed.

        Args:
            present: names that a recording has.
            place: name of the recording, for errors.

        Raises:
            DatasetError: a field is missing.
        """
        names: dict[str, str] = {}
        for role in self.roles:
            candidates = (self.fields[role],) if role in self.fields else NAMES[role]
            name = next((candidate for candidate in candidates if candidate in present), None)
            if name is None:
                text = ", ".join(map(str, present)) or "none"
                raise DatasetError(
                    f"{place}: expected a field {' or '.join(candidates)}, found {text}; name it by "
                    f"data.settings.fields.{role}"
                )
            names[role] = name
        return names

    def convert(self, columns: Mapping[str, npt.NDArray[Any]], counts: Integers, place: str) -> Addresses:
        """Return the events of recordings.

        Args:
            columns: fields of the events by their roles `t`, `x`, `y`, `p` or `unit`, [E] each.
            counts: number of events of each recording, one after the other [S].
            place: name of the recordings, for errors.

        Raises:
            DatasetError: a field is of another type or length, or holds a place outside the sensor.
        """
        times = columns["t"]
        for role, values in columns.items():
            kinds = "fui" if role == "t" else "uib"
            if values.ndim != 1 or len(values) != len(times) or values.dtype.kind not in kinds:
                raise DatasetError(
                    f"{place}: {self.fields.get(role, role)} is {values.dtype} {list(values.shape)}, expected "
                    f"{'numbers' if role == 't' else 'whole numbers'} [{len(times)}]"
                )
        if self.from_first and len(times):
            times = times - _firsts(times, counts)
        if self.time_unit != 1 or times.dtype.kind != "f":
            times = times.astype(np.float64) * self.time_unit
        return Addresses(times, self._unit(columns, place))

    def _unit(self, columns: Mapping[str, npt.NDArray[Any]], place: str) -> npt.NDArray[Any]:
        """Return the unit of each event."""
        if self.units is not None:
            return self._within(columns["unit"], self.units, "unit", place)
        unit = np.zeros(len(columns["t"]), np.int64)
        if "p" in columns:
            polarity = columns["p"]
            if self.polarities == 2 and polarity.dtype.kind == "i":
                polarity = np.where(polarity == -1, 0, polarity)
            unit += self._within(polarity, self.polarities, "p", place)
        if "y" in columns:
            unit *= -(-self.height // self.pool)
            unit += self._within(columns["y"], self.height, "y", place) // self.pool
        unit *= -(-(self.width or 0) // self.pool)
        unit += self._within(columns["x"], self.width or 0, "x", place) // self.pool
        return unit

    def _within(self, values: npt.NDArray[Any], limit: int, role: str, place: str) -> npt.NDArray[Any]:
        """Return whole numbers after a check that they are in `0..limit - 1` [E]."""
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < limit:
            raise DatasetError(
                f"{place}: {self.fields.get(role, role)} spans {int(values.min())}..{int(values.max())}, allowed "
                f"0..{limit - 1}; declare another layout, or mend the file"
            )
        return values


def _firsts(times: npt.NDArray[Any], counts: Integers) -> npt.NDArray[Any]:
    """Return the smallest time of the recording that each event belongs to [E]."""
    edges = (np.cumsum(counts) - counts)[counts > 0]
    return np.repeat(np.minimum.reduceat(times, edges), counts[counts > 0])
