"""Pages of the API: every public name of `hxtrain` and of its rooms."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import resolve_name
from pkgutil import iter_modules
from typing import Any

from sphinx.pycode import ModuleAnalyzer

import hxtrain

COLON = "\uf8ff"
"""Placeholder of a colon, where Google's style would take the words before it for a type."""
ROOMS: Mapping[str, str] = {
    "network": "layers, networks and what a pass returns",
    "neurons": "the model of a layer, spikes and membranes on the time grid, surrogate derivatives",
    "gradients": "how a measured pass enters autograd",
    "execution": "a network on a device: placement, weights, runs",
    "objectives": "losses, penalties, rewards",
    "rules": "learning rules, optimisers, constraints",
    "masks": "which synapses exist",
    "training": "fitting, evaluation, the loop of the command line",
    "datasets": "samples, encoders, sources of spikes",
    "audio": "sound to spikes",
    "environments": "closed loops that give rewards",
    "conversion": "networks of rates on a device",
    "comparison": "two devices, layer by layer",
    "characterisation": "the neurons of a device, measured",
    "backends": "the contract with a device, and the devices",
    "backends.conformance": "the checks of a backend",
    "backends.remote": "a device behind a server",
    "backends.replay": "a recorded run as a device",
    "emulator": "the emulated chip",
}
"""Rooms with public names, in the order of the reference."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "Networks": ("network",),
    "Devices": ("backends", "execution"),
    "Data and encoders": ("datasets",),
    "Losses and penalties": ("objectives",),
    "Gradients and learning rules": ("gradients", "rules"),
    "Training": ("training", "commands"),
}
"""Headings of the page on `hx`, with the rooms of their names; the rest comes last."""


def pages() -> Mapping[str, str]:
    """Return the pages by their place below `_generated`."""
    places = {id(getattr(hxtrain, name)): f"hxtrain.{name}" for name in _names()}
    result = {"api/hxtrain.rst": "\n".join(_face()) + "\n"}
    for room, summary in rooms().items():
        result[f"api/{room}.rst"] = "\n".join(_room(room, summary, places)) + "\n"
    return result


def rooms() -> Mapping[str, str]:
    """Return all rooms with public names, those of `ROOMS` first, with a description of each."""
    result = dict(ROOMS)
    for module in iter_modules(hxtrain.__path__):
        room = import_module(f"hxtrain.{module.name}") if module.ispkg and module.name not in ROOMS else None
        if room is not None and hasattr(room, "__all__"):
            result[module.name] = (room.__doc__ or module.name).splitlines()[0].rstrip(".")
    return result


def _names() -> list[str]:
    return sorted((name for name in hxtrain.__all__ if not name.startswith("__")), key=str.lower)


def _heading(text: str, line: str) -> list[str]:
    return [text, line * len(text), ""]


def _face() -> Iterator[str]:
    yield from _heading("hxtrain (hx)", "=")
    yield from ("The names of ``import hxtrain as hx``.", "")
    remaining = _names()
    for heading, rooms in {**GROUPS, "More": ("",)}.items():
        starts = tuple(f"hxtrain.{room}" for room in rooms)
        names = [name for name in remaining if getattr(hxtrain, name).__module__.startswith(starts)]
        remaining = [name for name in remaining if name not in names]
        if names:
            yield from _heading(heading, "-")
            for name in names:
                yield from _entry("hxtrain", name)


def _room(room: str, summary: str, places: dict[int, str]) -> Iterator[str]:
    """Yield the page of a room.

    Args:
        room: Name below `hxtrain`.
        summary: What it holds.
        places: Full name of each object that a page describes; those of this page are added.
    """
    module = import_module(f"hxtrain.{room}")
    names = sorted(module.__all__, key=str.lower)
    shared = [name for name in names if id(getattr(module, name)) in places]
    yield from _heading(f"hxtrain.{room}", "=")
    yield from (f"{summary[0].upper()}{summary[1:]}.", "")
    if shared:
        links = ", ".join(f":py:obj:`~{places[id(getattr(module, name))]}`" for name in shared)
        yield from (f"Described elsewhere: {links}.", "")
    for name in names:
        if name not in shared:
            yield from _entry(f"hxtrain.{room}", name)
            if is_documented(getattr(module, name)):
                places[id(getattr(module, name))] = f"hxtrain.{room}.{name}"


def is_documented(value: Any) -> bool:
    """Return whether an object has a docstring of its own, as classes and functions have."""
    return inspect.isclass(value) or inspect.isroutine(value) or hasattr(value, "__wrapped__")


def _entry(module: str, name: str) -> Iterator[str]:
    value = getattr(import_module(module), name)
    if not is_documented(value):
        yield from (f".. py:data:: {module}.{name}", "")
        yield from (f"   {line}" for line in data_docstring(module, name))
        yield ""
        return
    is_error = inspect.isclass(value) and issubclass(value, BaseException)
    kind = "exception" if is_error else "class" if inspect.isclass(value) else "function"
    yield from (f".. auto{kind}:: {module}.{name}", "")


def data_docstring(module: str, name: str) -> list[str]:
    """Return the docstring below the assignment of a name, in the module that assigns it."""
    analyzer = ModuleAnalyzer.for_module(module)
    analyzer.analyze()
    if ("", name) in analyzer.attr_docs:
        return analyzer.attr_docs["", name]
    for node in ast.walk(ast.parse(analyzer.code)):
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            package = module if hasattr(import_module(module), "__path__") else module.rpartition(".")[0]
            return data_docstring(resolve_name("." * node.level + (node.module or ""), package), name)
    return []


def clean_signature(*arguments: Any) -> tuple[str | None, str | None]:
    """Return a signature with defaults that Python can read, so that types become links."""
    signature: str | None = arguments[5]
    result: str | None = arguments[6]
    return (signature.replace("<factory>", "...") if signature else signature, result)


def hide_colons(*arguments: Any) -> None:
    """Hide the colons in the first lines of properties and attributes from napoleon."""
    kind: str = arguments[1]
    lines: list[str] = arguments[5]
    if kind in ("property", "attribute", "data"):
        end = lines.index("") if "" in lines else len(lines)
        lines[:end] = [line.replace(": ", f"{COLON} ") for line in lines[:end]]


def show_colons(*arguments: Any) -> None:
    """Put the hidden colons back."""
    lines: list[str] = arguments[5]
    lines[:] = [line.replace(COLON, ":") for line in lines]
