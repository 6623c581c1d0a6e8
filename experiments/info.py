"""`hxtrain info`: devices, presets, capabilities of chips, versions."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict
from typing import Any

from rich.console import Console

from hxtrain import __version__
from hxtrain.backends import Capabilities, available_backends, create_backend, required_settings
from hxtrain.console import print_table, write_any_letter
from hxtrain.execution.config import SOFTWARE
from hxtrain.runs.versions import versions

from .docstrings import attribute_texts
from .files import options


def main() -> None:
    """Print devices, chips and versions, as tables or as JSON."""
    parser = argparse.ArgumentParser(prog="hxtrain info", description="devices, capabilities, versions")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--version", action="version", version=f"hxtrain {__version__}")
    as_json = parser.parse_args().json
    write_any_letter()
    content = collect()
    if as_json:
        print(json.dumps(content, indent=2))
        return
    console = Console()
    print_table(console, "versions", ("package", "version"), list(content["versions"].items()))
    names = [name for name, device in content["backends"].items() if "capabilities" in device]
    capabilities = [content["backends"][name]["capabilities"] for name in names]
    texts = attribute_texts(Capabilities)
    rows = [
        (key, _unit(texts.get(key, "")), *(_value(values[key]) for values in capabilities)) for key in capabilities[0]
    ]
    print_table(console, "devices (backend=NAME)", ("capability", "unit", *names), rows)
    for name, device in content["backends"].items():
        if name not in names:
            console.print(f"backend={name}: limits depend on {', '.join(device['needs'])}")
    console.print(f"backend={SOFTWARE}: no device, the software twin")
    individuals = [(c["chip"], c["preset"], c["chip_hash"], c.get("calibration", "")) for c in content["chips"]]
    title = "chips that come calibrated (chip=NAME chip.preset=PRESET; any other with chip.name=NAME)"
    print_table(console, title, ("name", "preset", "hash", "calibration"), individuals)


def collect() -> dict[str, Any]:
    """Return versions, devices with their capabilities or required settings, and the chips of the package."""
    backends = {}
    for name, point in available_backends().items():
        needs = sorted(required_settings(name))
        details = {"needs": needs} if needs else {"capabilities": asdict(create_backend(name).capabilities)}
        backends[name] = {"provided_by": point.value, **details}
    presets = ("calibrated", "uncalibrated")
    names = options("chip")
    chips = [dict(create_backend("emulator", chip=n, preset=preset).identity) for n in names for preset in presets]
    return {"versions": versions(), "backends": backends, "chips": chips}


def _value(value: object) -> str:
    """Return the value of a capability as a text."""
    if isinstance(value, tuple | list):
        return " .. ".join(map(_value, value))
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _unit(text: str) -> str:
    """Return the unit in brackets in a description."""
    match = re.search(r"\((s|W|bits|bytes|trace units(?: / s)?)\)", text)
    return match[1] if match else ""
