"""Words of the command line: conversion from typed words to Hydra's grammar, and back to a command for a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from .files import varied_by
from .settings import Setting, is_dictionary, is_text

PATHS = {"hydra.run.dir", "hydra.sweep.dir", "checkpoint", "file", "out", "keys", "state", "data_folder"} | {
    "trainer.initial", "distillation.teacher", "data.folder", "chip.calibration", "chip.parameters",
    "other_chip.calibration", "other_chip.parameters", "backend.settings.keys", "backend.settings.calibration",
    "other_backend.settings.keys", "other_backend.settings.calibration",
}  # fmt: skip
"""Settings with a path."""
PATTERNS = {"match"}
"""Settings with a shell pattern of paths."""
FOLDERS = ("--config-dir", "-cd")
"""Options of Hydra with a path."""
MULTIRUN = ("--multirun", "-m")


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def parsed(word: str) -> Override | None:
    """Return the override that Hydra reads in a word; None if the word violates its grammar."""
    try:
        return _parser().parse_override(word)
    except HydraException:
        return None


def readable(words: Sequence[str], schema: Mapping[str, Setting]) -> list[str]:
    """Return the words in Hydra's grammar, with the meaning that a user intends.

    A path, and a text outside of the grammar, is taken literally: `checkpoint=a=1,b/checkpoint.pt`. Entries of a
    dictionary need no `+`.

    Args:
        words: Words of the command line.
        schema: Settings of the command, by name.
    """
    multirun = is_sweep(words)
    return [_readable(word, schema, multirun) for word in words]


def is_sweep(words: Sequence[str]) -> bool:
    """Return whether the words of a command ask for several runs."""
    return any(word in MULTIRUN or word.startswith(("sweep=", "hydra.mode=")) for word in words)


def swept(words: Sequence[str]) -> list[str]:
    """Return the words of a sweep, where a setting of a swept group is a choice of one value.

    Hydra composes the settings that all runs have in common first, with the default of a swept group. A setting such as
    `mask.fan_in=6` may not exist there, while it does in each run of `mask=random,snip`.

    Args:
        words: Words in Hydra's grammar.
    """
    if not is_sweep(words):
        return list(words)
    overrides = [parsed(word) for word in words]
    varied = {key for word in words if word.startswith("sweep=") for key in varied_by(word.partition("=")[2])}
    single = {override.key_or_group for override in overrides if override and not override.is_sweep_override()}
    varied = (varied - single) | {x.key_or_group for x in overrides if x is not None and x.is_sweep_override()}
    return [
        word if override is None else _choice_of_one(word, override, varied)
        for word, override in zip(words, overrides, strict=True)
    ]


def _choice_of_one(word: str, override: Override, varied: Collection[str]) -> str:
    key, _, value = word.partition("=")
    group, dot, _ = key.partition(".")
    is_plain = bool(dot) and value != "" and not override.is_sweep_override() and key == override.key_or_group
    return f"{key}=choice({value})" if is_plain and group in varied else word


def _readable(word: str, schema: Mapping[str, Setting], multirun: bool) -> str:
    match = re.fullmatch(r"(\+{0,2})([\w.]+)=(.*)", word, re.DOTALL)
    if not match:
        return word
    plus, key, value = match.groups()
    kind = schema[key].kind if key in schema else None
    owner = key if is_dictionary(kind) else key.rpartition(".")[0]
    if not plus and owner in schema and is_dictionary(schema[owner].kind):
        return f"++{word}" if key not in PATHS else f"++{_quoted(key, value, multirun)}"
    if key in PATHS | PATTERNS:
        return plus + _quoted(key, value, multirun)
    if is_text(kind) and parsed(word) is None:
        return f"{plus}{key}={quote(value)}"
    return word


def _quoted(key: str, value: str, multirun: bool) -> str:
    """Return `key=value` of a path, quoted unless it is in Hydra's grammar: quoted, null, a list or a choice."""
    word = f"{key}={value}"
    override = parsed(word)
    if "${" in value or value in ("", "null") or value[0] + value[-1] in ("''", '""'):
        return word
    if override is not None and (override.value() == value or not _is_path(override, multirun, value)):
        return word
    return f"{key}={quote(value)}"


def _is_path(override: Override, multirun: bool, value: str) -> bool:
    if Path(value).expanduser().exists():
        return True
    is_sweep_value = multirun and override.is_sweep_override()
    return not is_sweep_value and not isinstance(override.value(), list)


def quote(value: str) -> str:
    """Return a text in a form that Hydra reads literally, quoted if necessary."""
    override = parsed(f"key={value}") if value else None
    is_plain = override is not None and not override.is_sweep_override() and "${" not in value
    if is_plain and override is not None and override.value() == value:
        return value
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)  # no interpolation
    mark = Quote.single if '"' in text and "'" not in text else Quote.double
    return QuotedString(text, mark).with_quotes()


def pasted(program: str, words: Sequence[str], folder: Path) -> str:
    """Return a command for a shell in any folder.

    Args:
        program: Program and verb, such as `hxtrain evaluate`.
        words: Words as typed in `folder`, or as returned by `readable`.
        folder: Folder in which relative paths start.
    """
    command = shlex.join([*program.split(), *_absolute(words, folder)])
    return (
        f"cd {shlex.quote(str(folder))} && {command}" if any(_names_module(word, folder) for word in words) else command
    )


def _names_module(word: str, folder: Path) -> bool:
    """Return whether a word names a component of a module in a folder, `loss=my_module:MyLoss`."""
    value = word.partition("=")[2]
    modules = re.findall(r"\b([A-Za-z_]\w*)(?:\.\w+)*:[A-Za-z_]", value)
    return any((folder / f"{module}.py").is_file() or (folder / module).is_dir() for module in modules)


def _absolute(words: Sequence[str], folder: Path) -> list[str]:
    texts: list[str] = []
    for previous, word in zip(["", *words], words, strict=False):
        texts.append(_absolute_word(word, previous, folder))
    return texts


def _absolute_word(word: str, previous: str, folder: Path) -> str:
    if previous in FOLDERS:
        return str(folder / word)
    key, equals, value = word.partition("=")
    if equals and key in FOLDERS:
        return f"{key}={folder / value}"
    if not equals or key.lstrip("+") not in PATHS | {"run"}:
        return word
    override = parsed(word)
    path: Any = value if override is None or key == "run" else override.value()
    if isinstance(path, list) and path:
        return f"{key}=[{','.join(quote(str(folder / Path(str(item)).expanduser())) for item in path)}]"
    if override is not None and (override.is_sweep_override() or path in (None, "") or "${" in value):
        return word
    text = str(folder / Path(str(path)).expanduser())
    return f"{key}={text if key == 'run' else quote(text)}"


def is_set(key: str, words: Collection[str]) -> bool:
    """Return whether a setting is among the words."""
    return any(word.lstrip("+").split("=")[0] == key for word in words)
