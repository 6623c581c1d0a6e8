"""`run=FOLDER/config.yaml`: the settings of a run as words of its command, to start the run again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from hxtrain.runs.checkpoint import load_checkpoint
from hxtrain.runs.names import current_names

from .mistakes import Command, MistakeError
from .schema import REGISTRIES, SEVERAL, nodes
from .settings import is_dictionary
from .verbs import program
from .words import is_set, quote

RUN = "run"
CONFIG = "config.yaml"
MERGED = ("experiment", "substrate", "replica", "sweep")
"""Groups whose choice is already part of the settings of a run."""


def expanded(words: Sequence[str], command: Command) -> list[str]:
    """Return the words with `run=FOLDER/config.yaml` replaced by the settings of the run, which further words change.

    Raises:
        MistakeError: The file does not exist, or belongs to another command.
    """
    run_words = [word for word in words if word.startswith(f"{RUN}=")]
    if not run_words:
        return list(words)
    remaining = [word for word in words if word not in run_words]
    conflicts = [group for group in MERGED if is_set(group, remaining)]
    if conflicts:
        raise MistakeError(
            f"{run_words[0]} holds all settings of an experiment already; leave {', '.join(conflicts)}= out"
        )
    file = Path(run_words[-1].partition("=")[2].strip("'\"")).expanduser()
    file = file if file.suffix == ".yaml" else (file if file.is_dir() else file.parent) / CONFIG
    return [*_words(_settings(file, command), file, remaining, command), *remaining]


def _settings(file: Path, command: Command) -> dict[str, Any]:
    if not file.is_file():
        raise MistakeError(f"{RUN}={file}: there is no such file{_origin(file.parent)}")
    settings: Any = OmegaConf.to_container(OmegaConf.load(file))
    owner = "ann" if isinstance(settings, dict) and "model" in settings else "train"
    if not isinstance(settings, dict) or "trainer" not in settings:
        raise MistakeError(f"{RUN}={file} is not the {CONFIG} of a run{_origin(file.parent)}")
    if command.name != owner:
        raise MistakeError(f"{RUN}={file} is of {program(owner)}{_origin(file.parent)}")
    return settings


def _origin(folder: Path) -> str:
    """Return the clause of an error text on the command that wrote the results in a folder."""
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        result = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(result, dict) and result.get("command"):
            return f"; the results there were made by: {result['command']}"
    return ""


def _words(settings: Mapping[str, Any], file: Path, remaining: Sequence[str], command: Command) -> Iterator[str]:
    chosen_groups = {group for group in command.groups if is_set(group, remaining)}
    settings = {group: value for group, value in settings.items() if group not in chosen_groups or group == "chip"}
    for group in REGISTRIES:
        if group in settings:
            yield f"{group}={_options(group, settings[group], file)}"
    if "backend" in settings:
        yield "backend=reference"  # the option without settings
    for name, value in _leaves(settings, "", command):
        if not (name == "chip.name" and "chip" in chosen_groups) and name != "trainer.resume":
            yield f"{'++' if isinstance(value, dict) else ''}{name}={hydra_value(value)}"


def _leaves(settings: Mapping[str, Any], prefix: str, command: Command) -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        name = f"{prefix}{key}"
        is_leaf = name in command.settings and is_dictionary(command.settings[name].kind)
        if isinstance(value, dict) and not is_leaf:
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


def _options(group: str, settings: Mapping[str, Any], file: Path) -> str:
    """Return the choice of a group: from the record of the run, or from the names of its settings.

    Raises:
        MistakeError: The component is not registered, or the settings do not tell it.
    """
    recorded = _recorded(file.parent).get(f"{group}.kinds" if group in SEVERAL else f"{group}.kind")
    names = recorded if isinstance(recorded, list) else [recorded]
    if recorded is None:
        names = list(settings) if group in SEVERAL else _matches(group, settings)
    kinds = nodes(group)
    choice = f"[{','.join(map(str, names))}]" if group in SEVERAL else str(names[0] if names else "")
    unknown = [str(name) for name in names if name not in kinds]
    if unknown:
        raise MistakeError(
            f"{RUN}={file} has {group}={choice}, and {unknown[0]} is not registered; name it again, with its settings: "
            f"{group}={choice}"
        )
    if group not in SEVERAL and len(names) != 1:
        raise MistakeError(f"{RUN}={file} does not tell which {group} it has; add {group}={' or '.join(kinds)}")
    return choice


def _matches(group: str, settings: Mapping[str, Any]) -> list[str]:
    """Return the options of a group that have the same settings."""
    return [name for name, node in nodes(group).items() if {item.name for item in fields(node)} == set(settings)]


def _recorded(folder: Path) -> Mapping[str, Any]:
    """Return the settings in the result or the checkpoint in the folder of a run; empty without both."""
    result = folder / "result.json"
    checkpoint = folder / "checkpoint.pt"
    if result.is_file():
        return current_names(json.loads(result.read_text(encoding="utf-8"))["settings"])
    return current_names(load_checkpoint(checkpoint)["settings"]) if checkpoint.is_file() else {}
