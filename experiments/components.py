"""Components of a user's own modules: `loss=my_module:MyLoss` makes the class an option like a registered one."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from .mistakes import MistakeError
from .schema import NAMED, REGISTRIES, SEVERAL, VALUES, fault, place, registry
from .words import is_sweep

PATH = r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*"
"""Pattern of a component in a module."""
PLACES = {*REGISTRIES, *NAMED, *VALUES}
"""Groups and settings that take components."""


def import_named(words: Sequence[str]) -> None:
    """Import the components that the words of a command name by module; modules may lie in the current folder.

    Raises:
        MistakeError: A component cannot be an option, or two have the same name for their settings.
        UnknownComponentError: A component cannot be imported.
    """
    paths = list(named(words))
    for group, path in paths:
        registry(group).resolve(path)
        reason = fault(group, path)
        if reason is not None:
            raise MistakeError(reason)
        namesakes = [other for key, other in paths if key == group and place(other) == place(path) and other != path]
        if group in SEVERAL and namesakes:
            raise MistakeError(
                f"{group}: {path} and {namesakes[0]} would both be {group}.{place(path)}; rename one of the classes"
            )
    folder = str(Path.cwd())
    if paths and is_sweep(words) and folder not in sys.path:
        sys.path.append(folder)  # for the processes that Hydra's launchers start


def named(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the group, or the setting, and the path of every component in a module that the words name."""
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        group = key.removeprefix("other_")
        if group in PLACES and not value.startswith("{"):
            yield from ((group, path) for path in re.findall(PATH, value))


class NamedComponents(Callback):
    """Imports the components of a job in the process in which it runs."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Import the components that the words of the job name."""
        words: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
        import_named(words)
