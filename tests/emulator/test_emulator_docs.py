"""The page on the emulator agrees with the code."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from hxtrain.emulator import FABRICATED, FAULTS, IMPERFECTIONS, Preset
from hxtrain.emulator.calibration import STAGES, procedure, search, shipped_chips
from hxtrain.emulator.cells import CIRCUIT_CELLS, QUADRANT_CELLS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "emulator.md").read_text("utf-8")
NOTES = (ROOT / "emulator" / "README.md").read_text("utf-8")


def written(value: object) -> tuple[float, ...]:
    return tuple(map(float, value)) if isinstance(value, tuple) else (float(value),)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [field.name for field in fields(Preset)])
def test_every_field_is_documented_with_its_value_and_source(name: str) -> None:
    row = re.search(rf"^\| `{name}`[^|]*\|([^|]+)\|([^|]+)\|([^|]+)\|", PAGE, re.MULTILINE)
    assert row is not None
    value, source, span = (cell.strip() for cell in row.groups())
    assert tuple(map(float, value.split(","))) == pytest.approx(written(getattr(FABRICATED, name)))
    assert re.search(r"\[[PCD]\]|\*estimate\*", source)
    assert span


def test_no_other_field_is_documented() -> None:
    table = PAGE[PAGE.index("| field | value | source | range |") :].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    assert sorted(rows) == sorted(field.name for field in fields(Preset))


@pytest.mark.parametrize("name", [*IMPERFECTIONS, *FAULTS, *STAGES, *shipped_chips(), "dac_bias", "cadc_digital"])
def test_every_name_that_can_be_chosen_is_documented(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_cells_of_the_parameter_memory_are_documented() -> None:
    section = PAGE[PAGE.index("## Parameter cells") : PAGE.index("## From circuits to neurons")]
    for name in (*CIRCUIT_CELLS, *QUADRANT_CELLS):
        assert name.removesuffix("_exc").removesuffix("_inh") in section, name


def test_tolerances_of_the_success_mask_are_documented() -> None:
    assert f"{procedure.TOLERANCE['potential']:.0f} LSB" in PAGE
    assert f"{100 * procedure.TOLERANCE['relative']:.0f} %" in PAGE
    assert f"then {search.REFINEMENTS} measurements nearby" in PAGE


def test_every_module_is_in_the_notes() -> None:
    for folder in (ROOT / "emulator", ROOT / "emulator" / "calibration"):
        for file in folder.glob("*.py"):
            if file.name != "__init__.py":
                assert f"`{file.relative_to(ROOT / 'emulator').as_posix()}`" in NOTES, file.name
