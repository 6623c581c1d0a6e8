"""`run=FOLDER/config.yaml`: the settings of a run in the words of its command, so that it can be started again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from hxtrain.runs.checkpoint import load_checkpoint

from .mistakes import Command, MistakeError, program
from .schema import OPTIONS
from .settings import is_dictionary
from .words import given, quote

RUN = "run"
CONFIG = "config.yaml"
MERGED = ("experiment", "substrate", "replica", "sweep")
"""Groups whose choice a run's settings hold already."""
KINDS = ("encoder", "loss", "model")
"""Groups whose option is a dataclass of its own."""


def expanded(words: Sequence[str], command: Command) -> list[str]:
    """Return the words with `run=FOLDER/config.yaml` replaced by that run's settings; later words change them.

    Raises:
        MistakeError: the file is not there, or of another command.
    """
    found = [word for word in words if word.startswith(f"{RUN}=")]
    if not found:
        return list(words)
    others = [word for word in words if word not in found]
    merged = [group for group in MERGED if given(group, others)]
    if merged:
        raise MistakeError(f"{found[0]} holds all settings of an experiment already; leave {', '.join(merged)}= out")
    file = Path(found[-1].partition("=")[2].strip("'\"")).expanduser()
    file = file if file.suffix == ".yaml" else (file if file.is_dir() else file.parent) / CONFIG
    return [*_words(_settings(file, command), file, others, command), *others]


def _settings(file: Path, command: Command) -> dict[str, Any]:
    if not file.is_file():
        raise MistakeError(f"{RUN}={file}: there is no such file{_made_by(file.parent)}")
    settings: Any = OmegaConf.to_container(OmegaConf.load(file))
    owner = "ann" if isinstance(settings, dict) and "model" in settings else "train"
    if not isinstance(settings, dict) or "trainer" not in settings:
        raise MistakeError(f"{RUN}={file} is not the {CONFIG} of a run{_made_by(file.parent)}")
    if command.name != owner:
        raise MistakeError(f"{RUN}={file} is of {program(owner)}{_made_by(file.parent)}")
    return settings


def _made_by(folder: Path) -> str:
    """Return which command wrote the results in a folder."""
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        result = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(result, dict) and result.get("command"):
            return f"; the results there were made by: {result['command']}"
    return ""


def _words(settings: Mapping[str, Any], file: Path, others: Sequence[str], command: Command) -> Iterator[str]:
    chosen = {group for group in command.groups if given(group, others)}
    settings = {group: value for group, value in settings.items() if group not in chosen or group == "chip"}
    for group in KINDS:
        if group in settings:
            yield f"{group}={_option(group, settings[group], file)}"
    if "backend" in settings:
        yield "backend=reference"  # the option without settings of its own
    if "regularizer" in settings:
        yield f"regularizer=[{','.join(settings['regularizer'])}]"
    for name, value in _leaves(settings, "", command):
        if not (name == "chip.name" and "chip" in chosen) and name != "trainer.resume":
            yield f"{'++' if isinstance(value, dict) else ''}{name}={hydra_value(value)}"


def _leaves(settings: Mapping[str, Any], prefix: str, command: Command) -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        name = f"{prefix}{key}"
        dictionary = name in command.known and is_dictionary(command.known[name].kind)
        if isinstance(value, dict) and not dictionary:
            yield from _leaves(value, f"{name}.", command)
        else:
            yield name, value


def hydra_value(value: Any) -> str:
    """Return a value of a YAML file in Hydra's grammar."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{hydra_value(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(hydra_value, value))}]"
    if isinstance(value, str):
        return quote(value)
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _option(group: str, settings: Mapping[str, Any], file: Path) -> str:
    """Return the option of a group from the fields of its settings, or from what the run recorded."""
    nodes = OPTIONS[group]
    names = [name for name, node in nodes.items() if {item.name for item in fields(node)} == set(settings)]
    if len(names) > 1:
        kind = _recorded(file.parent, f"{group}.kind")
        names = [name for name in names if nodes[name].__name__ == kind] or names
    if len(names) != 1:
        raise MistakeError(f"{RUN}={file} does not tell which {group} it has; add {group}={' or '.join(nodes)}")
    return names[0]


def _recorded(folder: Path, key: str) -> Any:
    """Return a setting from the result or checkpoint in a run's folder; None if there is neither."""
    result, checkpoint = folder / "result.json", folder / "checkpoint.pt"
    if result.is_file():
        return json.loads(result.read_text(encoding="utf-8"))["settings"].get(key)
    return load_checkpoint(checkpoint)["settings"].get(key) if checkpoint.is_file() else None
