"""Text of `--help`: a sentence, the groups of the command, and a line on each of its settings."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from textwrap import wrap
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from .mistakes import Command
from .schema import choices, register

WIDEST = 120
OPTIONS = (
    ("--help, --version", "this text; the version of hxtrain"),
    ("--cfg job", "print the settings as they would be, and end"),
    ("run=FOLDER/config.yaml", "begin with the settings of a run (hxtrain, hxtrain-ann)"),
    ("--multirun", "several runs: SETTING=VALUE,VALUE (docs/scale.md)"),
    ("--config-dir FOLDER", "a folder with experiment/NAME.yaml of your own, for experiment=NAME"),
    ("hydra.run.dir=FOLDER", "where results go; by default outputs/DATE/TIME below the current folder"),
    ("--hydra-help", "all options of Hydra, which reads the command line"),
)


def overview(command: Command, summary: str, usage: str = "") -> str:
    """Return the help of a command.

    Args:
        command: Command of the help.
        summary: Description, one sentence.
        usage: Further forms of the command.
    """
    width = max(60, min(WIDEST, shutil.get_terminal_size().columns))
    ways = usage or f"{command.program} [GROUP=OPTION ...] [SETTING=VALUE ...] [--multirun]"
    parts = [f"{command.program}: {summary}", "", "Usage:", *(f"  {line}" for line in ways.splitlines())]
    if command.groups:
        parts += ["", "Groups (GROUP=OPTION; * is the default):", *_columns(_groups(command), width)]
    parts += ["", "Settings (SETTING=VALUE; the default is shown):", *_columns(_settings(command), width)]
    return "\n".join([*parts, "", "Options:", *_columns(OPTIONS, width)])


def _groups(command: Command) -> Iterator[tuple[str, str]]:
    for group, default in command.groups.items():
        defaults = default if isinstance(default, list) else [default]
        names = choices(command.name, group)
        yield group, ", ".join(f"{name}*" if name in defaults else name for name in names)


def _settings(command: Command) -> Iterator[tuple[str, str]]:
    defaults = _defaults(command)
    for name, setting in command.settings.items():
        value = OmegaConf.select(defaults, name, default="")
        yield f"{name}={_text(value)}", setting.text


def _defaults(command: Command) -> Any:
    register(command.name)
    GlobalHydra.instance().clear()
    with initialize_config_module("hxtrain.experiments.conf", version_base="1.3"):
        open_groups = [group for group, name in command.groups.items() if name == "???"]
        missing = [f"{group}={choices(command.name, group)[0]}" for group in open_groups]
        config: Any = OmegaConf.to_container(compose(command.name, overrides=missing), throw_on_missing=False)
    return OmegaConf.create(config)


def _text(value: Any) -> str:
    if OmegaConf.is_config(value):
        container = OmegaConf.to_container(value)
        return str(container).replace("'", "").replace(" ", "") if len(str(container)) < 40 else "..."
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _columns(rows: Iterable[tuple[str, str]], width: int) -> list[str]:
    """Return two columns; after a long name, the text starts on a separate line."""
    lines: list[str] = []
    for name, text in rows:
        first, *rest = wrap(text, width - 36) or [""]
        lines += [f"  {name:<32}  {first}"] if len(name) <= 32 else [f"  {name}", f"{'':36}{first}"]
        lines += [f"{'':36}{line}" for line in rest]
    return [line.rstrip() for line in lines]
