"""`hxtrain-info`: devices, presets, chip capabilities, versions."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from rich.console import Console

from hxtrain.backends import Capabilities, available_backends, create_backend, required_settings
from hxtrain.console import print_table, write_any_letter
from hxtrain.execution.config import SOFTWARE
from hxtrain.runs.versions import versions

from .schema import options
from .settings import attribute_texts


def main() -> None:
    """Print what is installed, as tables or as JSON."""
    parser = argparse.ArgumentParser(prog="hxtrain-info", description="devices, capabilities, versions")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--version", action="version", version=f"hxtrain {version('hxtrain')}")
    as_json = parser.parse_args().json
    write_any_letter()
    found = collect()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    console = Console()
    print_table(console, "versions", ("package", "version"), list(found["versions"].items()))
    names = [name for name, device in found["backends"].items() if "capabilities" in device]
    capabilities, texts = [found["backends"][name]["capabilities"] for name in names], attribute_texts(Capabilities)
    rows = [(key, _unit(texts.get(key, "")), *(_value(each[key]) for each in capabilities)) for key in capabilities[0]]
    print_table(console, "devices (backend=NAME)", ("capability", "unit", *names), rows)
    for name, device in found["backends"].items():
        if name not in names:
            console.print(f"backend={name}: limits depend on {', '.join(device['needs'])}")
    console.print(f"backend={SOFTWARE}: no device, the software twin")
    individuals = [(c["chip"], c["preset"], c["chip_hash"], c.get("calibration", "")) for c in found["chips"]]
    title = "chips that come calibrated (chip=NAME chip.preset=PRESET; any other with chip.name=NAME)"
    print_table(console, title, ("name", "preset", "hash", "calibration"), individuals)


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


def _value(value: object) -> str:
    """Return a capability's value as people write it."""
    if isinstance(value, tuple | list):
        return " .. ".join(map(_value, value))
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _unit(text: str) -> str:
    """Return the unit that a docstring gives in brackets."""
    match = re.search(r"\((s|W|bits|bytes|trace units(?: / s)?)\)", text)
    return match[1] if match else ""
