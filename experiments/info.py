"""`hxtrain-info`: devices, presets, chip capabilities, versions."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from hxtrain.backends import available_backends, create_backend, required_settings
from hxtrain.config import SOFTWARE
from hxtrain.training import versions

from .schema import options


def main() -> None:
    """Print what is installed, as tables or as JSON."""
    parser = argparse.ArgumentParser(prog="hxtrain-info", description="devices, capabilities, versions")
    parser.add_argument("--json", action="store_true", help="print JSON")
    found = collect()
    if parser.parse_args().json:
        print(json.dumps(found, indent=2))
        return
    console = Console()
    console.print(_table("versions", ("package", "version"), list(found["versions"].items())))
    names = [name for name, device in found["backends"].items() if "capabilities" in device]
    rows = [(key, *(str(found["backends"][n]["capabilities"][key]) for n in names)) for key in _fields(found)]
    console.print(_table("devices (backend=NAME)", ("capability", *names), rows))
    for name, device in found["backends"].items():
        if name not in names:
            console.print(f"backend={name}: limits depend on {', '.join(device['needs'])}")
    console.print(f"backend={SOFTWARE}: no device, the software twin")
    individuals = [(c["chip"], c["preset"], c["chip_hash"], c.get("calibration", "")) for c in found["chips"]]
    title = "chips that come calibrated (chip=NAME chip.preset=PRESET; any other with chip.name=NAME)"
    console.print(_table(title, ("name", "preset", "hash", "calibration"), individuals))


def collect() -> dict[str, Any]:
    """Return versions, devices with capabilities or the settings they need first, and the chips of the package."""
    backends = {}
    for name, point in available_backends().items():
        needs = sorted(required_settings(name))
        known = {"needs": needs} if needs else {"capabilities": asdict(create_backend(name).capabilities)}
        backends[name] = {"provided_by": point.value, **known}
    presets = ("calibrated", "uncalibrated")
    names = options("chip")
    chips = [dict(create_backend("emulator", chip=n, preset=preset).identity) for n in names for preset in presets]
    return {"versions": versions(), "backends": backends, "chips": chips}


def _fields(found: dict[str, Any]) -> list[str]:
    return list(found["backends"]["emulator"]["capabilities"])


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(*columns, title=title, title_justify="left", box=SIMPLE)
    for row in rows:
        table.add_row(*row)
    return table
