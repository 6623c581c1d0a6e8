"""The reference of all settings, from the dataclasses that the command line is made of."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
HEADINGS = {"commands": "Settings of commands", "chips-and-data": "Chips and data", "devices": "Settings of devices"}
"""Headings of pages that are not about a group."""
TEXTS = {
    "commands": "What a command has beside its groups.",
    "chips-and-data": "Settings that all options of these groups have.",
    "devices": "`backend.settings.NAME=VALUE`; in Python they are arguments of `hx.open_device(name, ...)`.",
}
"""Texts at the top of these pages."""
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


class Section(NamedTuple):
    """A heading with a table of settings.

    Attributes:
        page: Name of the page below `_generated/options`.
        anchor: Name to which links lead.
        title: Heading, in Markdown.
        text: Sentence below it.
        rows: Settings.
    """

    page: str
    anchor: str
    title: str
    text: str
    rows: Sequence[Row]


def pages() -> Mapping[str, str]:
    """Return the pages on options by file below `_generated`: one for each group, and an index of all settings."""
    register()
    sections = [*_groups(), *_commands(), *_shared(), *_devices()]
    names = dict.fromkeys(section.page for section in sections)
    result = {f"options/{name}.md": _page(name, [s for s in sections if s.page == name]) for name in names}
    result["options/all.md"] = "\n".join(_index(sections)) + "\n"
    result["parts/options.md"] = "\n".join([*_table_of_groups(), *_toctree(names)]) + "\n"
    return result


def _page(name: str, sections: Sequence[Section]) -> str:
    lines = [f"# {HEADINGS.get(name, name)}", "", TEXTS.get(name) or f"{GROUPS.get(name, name).capitalize()}.", ""]
    for section in sections:
        lines += [f"({section.anchor})=", "", f"## {section.title}", "", section.text, ""]
        lines += table(section.rows) if section.rows else ["It has no settings.", ""]
    return "\n".join(lines) + "\n"


def _index(sections: Sequence[Section]) -> Iterator[str]:
    """Yield a page that names each setting once, with links to the tables that describe it."""
    yield from ("# All settings by name", "", "Each setting with its default; a link leads to its description.", "")
    yield from ("| setting | default | described at |", "|---|---|---|")
    settings: dict[str, list[tuple[str, Section]]] = {}
    for section in sections:
        for row in section.rows:
            settings.setdefault(row.name, []).append((row.default, section))
    for name, places in sorted(settings.items()):
        defaults = " or ".join(dict.fromkeys(f"`{_short(default)}`" for default, _ in places if default))
        links = ", ".join(f"[{section.title}](#{section.anchor})" for _, section in places)
        yield f"| `{name}` | {_escaped(defaults)} | {links} |"
    yield ""


def _toctree(names: Iterable[str]) -> Iterator[str]:
    groups_first = sorted(names, key=lambda name: name in HEADINGS)
    yield from ("```{toctree}", ":hidden:", "", "_generated/options/all")
    yield from (f"_generated/options/{name}" for name in groups_first)
    yield from ("```", "")


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
        default = f"`{_short(row.default)}`" if row.default else ""
        lines.append(f"| `{row.name}` | {row.kind} | {_escaped(default)} | {unit[1] if unit else ''} | {text} |")
    return [*lines, ""]


def _short(default: str) -> str:
    return textwrap.shorten(default, LONGEST, placeholder=" ...")


def _escaped(text: str) -> str:
    """Return a text for a cell of a table: formulas stay, bars and stars are no syntax."""
    text = re.sub(r"\bNone\b", "`null`", text) if "`None`" not in text else text
    text = text.replace("|", r"\|")
    return re.sub(r"docs/([\w/-]+)\.md", r"[\1](/\1.md)", text)


def _table_of_groups() -> Iterator[str]:
    commands, shared, devices = (f"/_generated/options/{name}.md" for name in ("commands", "chips-and-data", "devices"))
    yield "Each group has a page with all its options. [All settings by name](/_generated/options/all.md) are an index."
    yield f"Beside the groups there are settings of [commands]({commands}), of [chips and data]({shared}) and of"
    yield f"[devices]({devices})."
    yield ""
    yield from ("| group | what it chooses | options | commands |", "|---|---|---|---|")
    for group, commands in _members().items():
        names = choices(commands[0], group)
        listed = ", ".join(f"`{name}`" for name in names)
        verbs = ", ".join(commands[:FEW]) + (f" and {len(commands) - FEW} more" if len(commands) > FEW else "")
        page = group if _has_dataclasses(group) else "chips-and-data" if group in ("backend", "chip", "data") else ""
        link = f"[`{group}`](/_generated/options/{page}.md)" if page else f"`{group}`"
        yield f"| {link} | {GROUPS.get(group.removeprefix('other_'), _text(group, commands[0]))} | {listed} | {verbs} |"
    yield ""


def _groups() -> Iterator[Section]:
    for group in filter(_has_dataclasses, _members()):
        usual = groups(_members()[group][0])[group]
        for option, kind in sorted(nodes(group).items(), key=lambda item: item[0] not in (usual, *(usual or ()))):
            prefix = f"{group}.{place(option)}." if group in SEVERAL else f"{group}."
            summary = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
            yield Section(group, _anchor(group, option), f"`{group}={option}`", summary, list(rows(kind, prefix)))


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


def _anchor(*names: str) -> str:
    return "-".join(("options", *names)).replace("_", "-")


def _commands() -> Iterator[Section]:
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
        text = f"{VERBS[command].summary.capitalize()} ([page](/{page}))."
        yield Section("commands", _anchor("command", command), f"`{title}`", text, entries)


def _shared() -> Iterator[Section]:
    for name, part in _shared_parts().items():
        text = f"{GROUPS.get(name, name).capitalize()}."
        yield Section("chips-and-data", _anchor("part", name), f"`{name}`", text, list(rows(part, f"{name}.")))


def _shared_parts() -> Mapping[str, type]:
    """Return the dataclasses of groups whose options are files: their fields are settings of every option."""
    hints = get_type_hints(schema(DEFAULT))
    return {name: hints[name] for name in ("backend", "chip", "data")}


def _devices() -> Iterator[Section]:
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
        summary = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
        yield Section("devices", _anchor("device", name), f"`backend={name}`", summary, entries)


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
