"""Components of a user's own modules: `loss=my_module:MyLoss` makes the class an option like a registered one.

Only words that a user types name modules to import; words from the file of a run (`run=FOLDER`) do not.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from .mistakes import MistakeError
from .schema import NAMED, REGISTRIES, SEVERAL, VALUES, fault, place, registry
from .words import is_sweep

PATH = r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*"
"""Pattern of a component in a module."""
PLACES = {*REGISTRIES, *NAMED, *VALUES}
"""Groups and settings that take components."""
COMPONENTS = "HXTRAIN_COMPONENTS"
"""Environment variable that tells the jobs of a sweep, in any process, groups and paths of the user's components."""


def import_named(words: Sequence[str]) -> None:
    """Import the components that the typed words of a command name by module; modules may be in the current folder.

    Raises:
        MistakeError: A component cannot be an option, or two have the same name for their settings.
        UnknownComponentError: A component cannot be imported.
    """
    paths = list(_named(words))
    _import(paths)
    for group, path in paths:
        reason = fault(group, path)
        if reason is not None:
            raise MistakeError(reason)
        namesakes = [item for key, item in paths if key == group and place(item) == place(path) and item != path]
        if group in SEVERAL and namesakes:
            raise MistakeError(
                f"{group}: {path} and {namesakes[0]} would both be {group}.{place(path)}; rename one of the classes"
            )
    if is_sweep(words):
        os.environ[COMPONENTS] = json.dumps(paths)
        if paths and str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # for the processes of Hydra's launchers, which unpickle these classes


def _named(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the group, or the setting, and the path of every component in a module that the words name."""
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        group = key.removeprefix("other_")
        if group in PLACES and not value.startswith("{"):
            yield from ((group, path) for path in re.findall(PATH, value))


def _import(paths: Iterable[tuple[str, str]]) -> None:
    for group, path in paths:
        registry(group).resolve(path)


class NamedComponents(Callback):
    """Imports a user's components in the process of a sweep's job."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Import the components that the words of the sweep name."""
        _import(json.loads(os.environ.get(COMPONENTS, "[]")))
