"""A user's events in .npz files: flat arrays of all samples of a part.

Per part::

    times     time of each event since the start of its sample [E]; in seconds, or in units of `time_unit`
    units     unit of each event [E], from 0
    offsets   first event of each sample, and the number of events [N + 1]
    samples   in place of `offsets`: sample of each event [E], in any order
    labels    class of each sample [N]
    groups    number of the speaker or subject of each sample [N], optional

and for both parts together, in any of the files::

    inputs     number of units; without it, one more than the largest unit
    time_unit  unit of the times (s), such as 1e-6; without it, a second
"""

from __future__ import annotations

from collections.abc import Sequence

from hxtrain.backends import Spikes

from ..arrays import Part
from ..errors import DatasetError
from .split import EventSplit


def read_events(parts: Sequence[Part]) -> list[EventSplit]:
    """Return the events of each part.

    Raises:
        DatasetError: an array is missing, or what it holds does not fit; the text names the file.
    """
    units = _units(parts)
    time_unit = _scalar(parts, "time_unit")
    return [_events(part, units, 1.0 if time_unit is None else time_unit) for part in parts]


def _events(part: Part, units: int, time_unit: float) -> EventSplit:
    times = part.find("times")[1]
    numbers = part.find("units")[1]
    edges = part.find("offsets", "samples")[1]
    labels = part.labels()
    speakers = part.groups()
    try:
        if part.holds("offsets"):
            return EventSplit.from_arrays(times, numbers, edges, labels, units, time_unit, speakers)
        spikes = Spikes.from_events(edges, numbers, times, len(labels), units, time_unit)
        return EventSplit.from_spikes(spikes, labels, speakers)
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{part.file}, {part.name} part: {error}") from error


def _units(parts: Sequence[Part]) -> int:
    """Return the number of units."""
    inputs = _scalar(parts, "inputs")
    if inputs is not None:
        if not inputs.is_integer() or inputs < 1:
            raise DatasetError(f"{parts[0].file}: inputs={inputs} must be a whole number above 0")
        return int(inputs)
    arrays = [part.find("units")[1] for part in parts]
    largest = [int(array.max()) for array in arrays if array.size and array.dtype.kind in "uif"]
    if not largest:
        raise DatasetError(f"{parts[0].file}: it holds no event; give the number of units as `inputs`")
    return max(largest) + 1


def _scalar(parts: Sequence[Part], name: str) -> float | None:
    """Return a number that all files which have it agree on; None if no file has it.

    Raises:
        DatasetError: it is no single number, or the files differ.
    """
    arrays = [part.arrays[name] for part in parts if name in part.arrays]
    values = {float(array) for array in arrays if array.size == 1 and array.dtype.kind in "uif"}
    if len(values) > 1 or (arrays and not values) or any(array.size != 1 for array in arrays):
        raise DatasetError(f"{parts[0].file}: {name} must be one number, equal in all files")
    return values.pop() if values else None
