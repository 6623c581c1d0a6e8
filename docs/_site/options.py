"""The reference of all settings, from the dataclasses that the command line is made of."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, NamedTuple, get_type_hints

from omegaconf import MISSING as REQUIRED

from hxtrain.backends import BACKENDS
from hxtrain.experiments.docstrings import attribute_texts
from hxtrain.experiments.mistakes import type_text
from hxtrain.experiments.overview import GROUPS
from hxtrain.experiments.rerun import hydra_value
from hxtrain.experiments.schema import (
    SCHEMAS,
    SEVERAL,
    VALUES,
    choices,
    groups,
    nodes,
    place,
    register,
    registry,
    schema,
)
from hxtrain.experiments.verbs import DEFAULT, VERBS

UNIT = re.compile(
    r"\(((?:s|Hz|1/s|1 / s|bits|bytes|pixels|positions|units|degrees|spikes|threshold - leak|trace units"
    r"|trace intervals|weight LSB|threshold / tau_mem|sources / synapses)(?: of the (?:device|recording))?)[,)]"
)
"""Unit in the description of a setting."""
LONGEST = 40
"""Largest length of a default that is shown."""
FEW = 4
"""Number of commands that the table of groups names."""
DATA = ("experiment", "substrate", "replica", "sweep", "report", "chip", "backend", "data", "tolerances")
"""Groups whose options are files or functions, not dataclasses."""


class Row(NamedTuple):
    """A setting in a table of the reference.

    Attributes:
        name: Name of the setting on the command line.
        kind: Description of its type.
        default: Default, as it is written on the command line.
        text: Description.
    """

    name: str
    kind: str
    default: str
    text: str


def pages() -> Mapping[str, str]:
    """Return the parts of the page on options, by file below `_generated`."""
    register()
    return {"parts/options.md": "\n".join([*_groups(), *_commands(), *_devices()]) + "\n"}


def rows(kind: type, prefix: str) -> Iterator[Row]:
    """Yield the settings of a dataclass; fields that are groups themselves are left out.

    Args:
        kind: Dataclass of settings.
        prefix: Name of the group with a dot, or nothing.
    """
    hints = get_type_hints(kind)
    texts = attribute_texts(kind)
    for item in fields(kind):
        if is_dataclass(hints[item.name]) or item.name in SEVERAL:
            continue
        name = prefix + item.name
        values = f"one of {', '.join(f'`{value}`' for value in _values(name))}" if name in VALUES else None
        yield Row(name, values or type_text(hints[item.name]), _default(item), texts.get(item.name, ""))


def _values(name: str) -> list[str]:
    return sorted(registry(name).reachable())


def _default(item: Field[Any]) -> str:
    value = item.default if item.default_factory is MISSING else item.default_factory()
    if value is MISSING or value == REQUIRED:
        return "required"
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else _written(value)


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else hydra_value(value)


def table(entries: Iterable[Row]) -> list[str]:
    """Return a table of settings in Markdown."""
    lines = ["| setting | type | default | unit | description |", "|---|---|---|---|---|"]
    for row in entries:
        unit = UNIT.search(row.text)
        text = _escaped(row.text)
        default = f"`{textwrap.shorten(row.default, LONGEST, placeholder=' ...')}`" if row.default else ""
        lines.append(f"| `{row.name}` | {row.kind} | {_escaped(default)} | {unit[1] if unit else ''} | {text} |")
    return [*lines, ""]


def _escaped(text: str) -> str:
    """Return a text for a cell of a table: formulas stay, bars and stars are no syntax."""
    text = re.sub(r"\bNone\b", "`null`", text) if "`None`" not in text else text
    text = text.replace("|", r"\|")
    return re.sub(r"docs/([\w/-]+)\.md", r"[\1](/\1.md)", text)


def _groups() -> Iterator[str]:
    yield from ("## Groups", "")
    yield from ("| group | what it chooses | options | commands |", "|---|---|---|---|")
    members = _members()
    for group, commands in members.items():
        names = choices(commands[0], group)
        listed = ", ".join(f"`{name}`" for name in names)
        verbs = ", ".join(commands[:FEW]) + (f" and {len(commands) - FEW} more" if len(commands) > FEW else "")
        link = f"[`{group}`](#{_anchor(group)})" if _has_dataclasses(group) else f"`{group}`"
        yield f"| {link} | {GROUPS.get(group.removeprefix('other_'), _text(group, commands[0]))} | {listed} | {verbs} |"
    yield ""
    for group in members:
        if not _has_dataclasses(group):
            continue
        yield from (f"({_anchor(group)})=", "", f"### {group}", "", f"{GROUPS.get(group, group).capitalize()}.", "")
        usual = groups(_members()[group][0])[group]
        for option, kind in sorted(nodes(group).items(), key=lambda item: item[0] not in (usual, *(usual or ()))):
            yield from _option(group, option, kind)


@cache
def _members() -> Mapping[str, list[str]]:
    """Return the commands of each group."""
    members: dict[str, list[str]] = {}
    for command in SCHEMAS:
        for group in groups(command):
            members.setdefault(group, []).append(command)
    return members


def _has_dataclasses(group: str) -> bool:
    """Return whether the options of a group have settings of their own, in dataclasses."""
    return group not in DATA and not group.startswith("other_")


def _text(group: str, command: str) -> str:
    return attribute_texts(schema(command)).get(group, "").rstrip(".")


def _anchor(group: str) -> str:
    return f"options-{group.replace('_', '-')}"


def _option(group: str, option: str, kind: type) -> Iterator[str]:
    prefix = f"{group}.{place(option)}." if group in SEVERAL else f"{group}."
    summary = (inspect.getdoc(kind) or "").split("\n\n")[0]
    entries = list(rows(kind, prefix))
    yield from (f"#### `{group}={option}`", "", " ".join(summary.split()), "")
    if entries:
        yield from table(entries)
    else:
        yield from ("It has no settings.", "")


def _commands() -> Iterator[str]:
    yield from ("## Settings of a command itself", "")
    for command in SCHEMAS:
        kind = schema(command)
        hints = get_type_hints(kind)
        parts = [
            (item.name, hints[item.name])
            for item in fields(kind)
            if is_dataclass(hints[item.name]) and item.name not in _members()
        ]
        entries = [row for row in rows(kind, "") if row.name not in _members()]
        entries += [row for name, part in parts for row in rows(part, f"{name}.")]
        if not entries:
            continue
        title = "hxtrain" if command == DEFAULT else f"hxtrain {command}"
        page = VERBS[command].page.removeprefix("docs/")
        yield from (f"### `{title}`", "", f"{VERBS[command].summary.capitalize()} ([page](/{page})).", "")
        yield from table(entries)
    yield from ("## Chips and data", "")
    for name, part in _shared_parts().items():
        yield from (f"### {name}", "", *table(rows(part, f"{name}.")))


def _shared_parts() -> Mapping[str, type]:
    """Return the dataclasses of groups whose options are files: their fields are settings of every option."""
    hints = get_type_hints(schema(DEFAULT))
    return {name: hints[name] for name in ("backend", "chip", "data")}


def _devices() -> Iterator[str]:
    yield from ("## Settings of devices", "")
    yield "`backend.settings.NAME=VALUE`; in Python they are arguments of `hx.open_device(name, ...)`."
    yield ""
    for name in sorted(BACKENDS.reachable()):
        kind = BACKENDS.load(name)
        texts = argument_texts(kind)
        entries = [
            Row(
                f"backend.settings.{parameter.name}",
                re.sub(r"\s*\|\s*None", ", or null", _annotation(parameter)),
                _default_of(parameter),
                texts.get(parameter.name, ""),
            )
            for parameter in inspect.signature(kind).parameters.values()
        ]
        yield from (f"### `backend={name}`", "", *table(entries))


def argument_texts(kind: Any) -> Mapping[str, str]:
    """Return the description of each argument of a device, from the docstring of its class, function or settings."""
    settings = getattr(getattr(kind, "__init__", None), "__settings__", None)
    if settings is not None:
        return attribute_texts(settings)
    text = "\n\n".join(filter(None, (inspect.getdoc(kind), inspect.getdoc(getattr(kind, "__init__", None)))))
    section = re.split(r"^Args:\n", text, flags=re.MULTILINE)
    entries = re.split(r"\n(?=    \w)", "\n" + section[1].split("\n\n")[0])[1:] if len(section) > 1 else []
    pairs = (entry.split(":", 1) for entry in entries)
    return {name.strip(): " ".join(text.split()) for name, text in pairs}


def _annotation(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _default_of(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return "required"
    value = parameter.default
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else _written(value)
