"""Small files in the layout of the Heidelberg data sets, written as the published ones are, without the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

TIMES = [[0.1, 1.399], [], [0.25, 0.25, 0.5], [1.0]]
UNITS = [[699, 0], [], [3, 3, 1], [2]]
LABELS = [1, 0, 2, 1]
SPEAKERS = [4, 5, 4, 11]
KEYS = ("zero", "null", "fünf")


def write(path: Path, times: Any = TIMES, units: Any = UNITS, **changes: Any) -> Path:
    """Write a file; a change names an array, or the type of `time` or `unit`; None leaves an array out."""
    arrays = {
        "labels": np.array(LABELS, np.uint16),
        "extra/speaker": np.array(SPEAKERS, np.uint16),
        "extra/keys": np.array([key.encode() for key in KEYS]),
        "extra/meta_info/age": np.array([30, 31], np.uint16),
    }
    time_type = changes.pop("time", np.float16)
    unit_type = changes.pop("unit", np.uint16)
    with h5py.File(path, "w") as file:
        for name, rows, kind in (("spikes/times", times, time_type), ("spikes/units", units, unit_type)):
            array = file.create_dataset(name, (len(rows),), h5py.vlen_dtype(kind))
            for number, row in enumerate(rows):
                array[number] = np.array(row, kind)
        for name, values in (arrays | changes).items():
            if values is not None:
                file[name] = values
    return path
