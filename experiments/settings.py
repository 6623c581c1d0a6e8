"""Settings of a command: the fields of its dataclasses, with types, texts, and search for similar names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from hxtrain.backends import FAULTS, accepted_settings, available_backends
from hxtrain.execution.config import BackendConfig

from .docstrings import attribute_texts as attribute_texts
from .schema import SEVERAL, nodes, place

SYNONYMS = {"lr": "learning_rate", "dataset": "data", "device": "backend", "wd": "weight_decay"}
"""Names of settings and groups in other libraries."""


class Setting(NamedTuple):
    """A setting of a command.

    Attributes:
        name: Name such as `trainer.epochs`.
        kind: Type of the value.
        text: Description.
    """

    name: str
    kind: Any
    text: str


def settings(kind: type) -> Mapping[str, Setting]:
    """Return the settings of a command by name, in their order; `kind` is its dataclass."""
    return {setting.name: setting for setting in _settings(kind, "")}


def _settings(kind: type, prefix: str) -> Iterator[Setting]:
    hints = _hints(kind)
    texts = attribute_texts(kind)
    for item in fields(kind):
        name = prefix + item.name
        hint = hints[item.name]
        if item.name in SEVERAL and is_dictionary(hint):
            for option, node in nodes(item.name).items():
                yield from _settings(node, f"{name}.{place(option)}.")
        elif is_dataclass(hint):
            base: Any = hint
            kinds = [node for node in nodes(item.name).values() if issubclass(node, base)] or [base]
            parts = (part for node in kinds for part in _settings(node, f"{name}."))
            yield from {part.name: part for part in parts}.values()
        else:
            yield Setting(name, hint, texts.get(item.name, ""))


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    """Return the types of the fields of a dataclass."""
    return get_type_hints(kind)


def entries(name: str, backend: str) -> frozenset[str] | None:
    """Return the allowed names in a dictionary of settings; None if only the configured object can check them.

    Args:
        name: Name of the dictionary, such as `backend.faults`.
        backend: Name of the backend in the same group.
    """
    group, _, field = name.removeprefix("other_").partition(".")
    if (group, field) == ("backend", "faults"):
        return frozenset(FAULTS)
    if (group, field) == ("backend", "settings") and backend in available_backends():
        return frozenset(accepted_settings(backend))
    return None


def of_device(names: Collection[str], backend: str) -> list[str]:
    """Return the settings of a command with those of its device, and without a chip if the device has none to choose.

    Args:
        names: Settings of the command.
        backend: Name of the device.
    """
    accepted = entries("backend.settings", backend)
    if accepted is None:
        return [*names]
    if not BackendConfig(backend).takes_chip():
        return [name for name in names if not name.startswith("chip.")] + [f"backend.settings.{x}" for x in accepted]
    shared = {"chip", *(name.removeprefix("chip.") for name in names)}
    return [*names, *(f"backend.settings.{name}" for name in accepted - shared)]


def nearest(name: str, candidates: Collection[str]) -> list[str]:
    """Return up to three candidates that are similar to an unknown name."""
    parent, _, leaf = name.rpartition(".")
    leaf = SYNONYMS.get(leaf, leaf)
    same_leaf = [candidate for candidate in candidates if candidate.rpartition(".")[2] == leaf]
    siblings = {
        candidate.rpartition(".")[2]: candidate for candidate in candidates if candidate.rpartition(".")[0] == parent
    }
    close = [siblings[match] for match in get_close_matches(leaf, siblings, 3, 0.6)]
    whole = [] if siblings and parent else get_close_matches(name, candidates, 3, 0.75)
    return list(dict.fromkeys([*close, *same_leaf] or whole))[:3]


def is_list(kind: Any) -> bool:
    """Return whether a type is a list, optional or not."""
    return list in (get_origin(kind), *map(get_origin, get_args(kind)))


def is_text(kind: Any) -> bool:
    """Return whether a type is a text, optional or not."""
    return kind is str or str in (get_args(kind) if type(None) in get_args(kind) else ())


def is_dictionary(kind: Any) -> bool:
    """Return whether a type is a dictionary."""
    return get_origin(kind) is dict
