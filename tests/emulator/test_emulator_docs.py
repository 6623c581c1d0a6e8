"""The page on the emulator says what the presets hold."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from hxtrain.emulator import CALIBRATED, UNCALIBRATED, Preset

PAGE = Path(__file__).parents[2] / "docs" / "emulator.md"


def written(value: object) -> tuple[float, ...]:
    return tuple(map(float, value)) if isinstance(value, tuple) else (float(value),)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [field.name for field in fields(Preset)])
def test_every_field_is_documented_with_its_values(name: str) -> None:
    row = re.search(rf"^\| `{name}`[^|]*\|([^|]+)\|([^|]+)\|([^|]+)\|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert row is not None
    for cell, preset in zip(row.groups()[:2], (CALIBRATED, UNCALIBRATED), strict=True):
        assert tuple(map(float, cell.split(","))) == written(getattr(preset, name))
    assert re.search(r"\[[PCD]\]|\*estimate\*", row[3])
