"""Text of `--help`: a sentence, the groups of the command, and a line on each of its settings."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from itertools import groupby
from textwrap import wrap
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from .mistakes import Command, type_text
from .rerun import hydra_value
from .schema import choices, register, schema
from .settings import attribute_texts
from .sweep_words import PREFIX, SETTINGS
from .verbs import VERBS

WIDEST = 120
LONGEST = 80
"""Largest length of a default that is shown."""
GROUPS = {
    "backend": "kind of the device",
    "chip": "chip of the device",
    "network": "layers and their constants",
    "model": "artificial network",
    "encoder": "input spikes from values",
    "loss": "loss of the output",
    "gradient": "derivative of a measured pass",
    "rule": "learning rule",
    "optimizer": "optimiser of the weights",
    "constraint": "restrictions of the weights; several as [NAME,NAME]",
    "mask": "synapses that exist",
    "regularizer": "penalties; several as [NAME,NAME]",
    "data": "data set",
    "tasks": "tasks that are learnt one after the other",
    "augment": "distortion of training samples",
    "distillation": "teacher",
    "trainer": "training",
    "tolerances": "tolerances of the checks",
    "environment": "closed loop that gives rewards",
    "experiment": "named settings of a run; your own with --config-dir",
    "substrate": "device of a run",
    "replica": "seed and chip of a repetition",
    "sweep": "named sweep: several runs",
    "report": "named report",
}
"""Groups without a text among the fields of a command's dataclass."""
OPTIONS = (
    ("--help, --version", "this text; the version of hxtrain"),
    ("--cfg job", "print the settings as they would be, and end"),
    ("--multirun", "several runs: SETTING=VALUE,VALUE (docs/scale.md)"),
    ("--config-dir FOLDER", "a folder with experiment/NAME.yaml of your own, for experiment=NAME"),
    ("hydra.run.dir=FOLDER", "where results go; by default outputs/DATE/TIME below the current folder"),
    ("--hydra-help", "all options of Hydra, which reads the command line"),
)
RERUN = ("run=FOLDER/config.yaml", "begin with the settings of a run")


def overview(command: Command, usage: str = "") -> str:
    """Return the help of a command.

    Args:
        command: Command of the help.
        usage: Further forms of the command.
    """
    width = max(60, min(WIDEST, shutil.get_terminal_size().columns))
    ways = usage or f"{command.program} [GROUP=OPTION ...] [SETTING=VALUE ...] [--multirun]"
    verb = VERBS[command.name]
    parts = [f"{command.program}: {verb.summary} ({verb.page})", "", "Usage:"]
    parts += [f"  {line}" for line in ways.splitlines()]
    if command.groups:
        parts += ["", "Groups (GROUP=OPTION; * is the default):", *_columns(_groups(command), width)]
    parts += ["", "Settings (SETTING=VALUE; the default is shown):"]
    for _, rows in groupby(_settings(command), key=_group):
        parts += [*_columns(rows, width), ""]
    options = list(OPTIONS if command.name not in ("train", "ann") else (*OPTIONS, RERUN))
    if "sweep" in command.callbacks:
        options += [(f"{PREFIX}{name}={values[0]}|{values[1]}", text) for name, (values, text) in SETTINGS.items()]
    return "\n".join([*parts, "Options:", *_columns(options, width)])


def _groups(command: Command) -> Iterator[tuple[str, str]]:
    texts = attribute_texts(schema(command.name))
    for group, default in command.groups.items():
        defaults = default if isinstance(default, list) else [default]
        names = choices(command.name, group)
        text = _in_yaml(texts.get(group, "").rstrip(".")) or GROUPS[group]
        yield group, f"{text}: {', '.join(f'{name}*' if name in defaults else name for name in names)}"


def _group(row: tuple[str, str]) -> str:
    """Return the group of a setting; empty for a setting of the command itself."""
    group, dot, _ = row[0].partition("=")[0].partition(".")
    return group if dot else ""


def _settings(command: Command) -> Iterator[tuple[str, str]]:
    defaults = _defaults(command)
    for name, setting in command.settings.items():
        value = OmegaConf.select(defaults, name, default="")
        kind = f" ({type_text(setting.kind)})" if value in (None, "", "???") else ""
        yield f"{name}={_text(value)}", _in_yaml(setting.text.rstrip(".")) + kind


def _in_yaml(text: str) -> str:
    """Return a text of Python's docstrings with the constants as the command line has them."""
    return re.sub(
        r"\b(None|True|False)\b", lambda match: _text({"None": None, "True": True}.get(match[0], False)), text
    )


def _defaults(command: Command) -> Any:
    register(command.name)
    GlobalHydra.instance().clear()
    with initialize_config_module("hxtrain.experiments.conf", version_base="1.3"):
        open_groups = [group for group, name in command.groups.items() if name == "???"]
        missing = [f"~{group}" for group in open_groups]
        config: Any = OmegaConf.to_container(compose(command.name, overrides=missing), throw_on_missing=False)
    return OmegaConf.create(config)


def _text(value: Any) -> str:
    if OmegaConf.is_config(value):
        return _short(hydra_value(OmegaConf.to_container(value)).replace("???", ""))
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else _short(str(value))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else "..."


def _columns(rows: Iterable[tuple[str, str]], width: int) -> list[str]:
    """Return two columns; after a long name, the text starts on a separate line."""
    lines: list[str] = []
    for name, text in rows:
        first, *rest = wrap(text, width - 36) or [""]
        lines += [f"  {name:<32}  {first}"] if len(name) <= 32 else [f"  {name}", f"{'':36}{first}"]
        lines += [f"{'':36}{line}" for line in rest]
    return [line.rstrip() for line in lines]
