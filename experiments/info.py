"""`hxtrain info`: devices, presets, capabilities of chips, versions; `hxtrain info rules`: learning rules."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from inspect import cleandoc
from typing import Any

from rich.console import Console
from rich.text import Text

from hxtrain import __version__
from hxtrain.backends import Capabilities, available_backends, create_backend, required_settings
from hxtrain.backends.registry import path_of
from hxtrain.console import print_table, write_any_letter
from hxtrain.execution.config import SOFTWARE
from hxtrain.runs.versions import versions

from .docstrings import attribute_texts
from .files import options


def main() -> None:
    """Print devices, chips and versions, or learning rules, as tables or as JSON."""
    parser = argparse.ArgumentParser(prog="hxtrain info", description="devices, capabilities, versions; learning rules")
    parser.add_argument(
        "topic", nargs="?", choices=("rules",), help="rules: learning rules, what they need and what they solve"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--version", action="version", version=f"hxtrain {__version__}")
    words = parser.parse_args()
    write_any_letter()
    is_of_rules = words.topic == "rules"
    content = collect_rules() if is_of_rules else collect()
    if words.json:
        print(json.dumps(content, indent=2, default=str))
        return
    show = print_rules if is_of_rules else print_devices
    show(Console(), content)


def print_devices(console: Console, content: Mapping[str, Any]) -> None:
    """Print what `collect` returned, as tables."""
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


def print_rules(console: Console, content: Mapping[str, Any]) -> None:
    """Print what `collect_rules` returned, as a table."""
    rules = content["rules"]
    rows = [
        (
            name,
            "local" if rule["local"] else "gradient",
            "windows" if rule["streaming"] else "trials",
            ", ".join(rule["needs"]),
            rule["solves"] or "-",
        )
        for name, rule in rules.items()
    ]
    title = "learning rules (rule=NAME; a local rule goes with optimizer=sgd)"
    print_table(console, title, ("rule", "kind", "takes", "needs", "solves"), rows)
    for name, rule in rules.items():
        console.print(Text(f"{name}: {rule['summary']}"), soft_wrap=True)
        for setting, entry in rule["settings"].items():
            console.print(Text(f"  rule.{setting}={entry['default']}  {entry['text']}"), soft_wrap=True)


def collect_rules() -> dict[str, Any]:
    """Return the registered learning rules with what they need, their kind, their settings and what they solve."""
    from hxtrain.rules import RULES, StreamingRule  # the devices need none of it

    rules = {}
    for name, kind in RULES.items():
        texts = attribute_texts(kind)
        rules[name] = {
            "provided_by": path_of(kind),
            "summary": cleandoc(kind.__doc__ or "").split("\n")[0],
            "local": kind.is_local,
            "streaming": issubclass(kind, StreamingRule),
            "needs": sorted(need.value for need in kind.needs),
            "solves": kind.solves,
            "settings": {key: {"default": value, "text": texts.get(key, "")} for key, value in asdict(kind()).items()},
        }
    return {"rules": rules}


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
