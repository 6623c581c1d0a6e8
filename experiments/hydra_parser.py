"""Hydra's command line on Python 3.14 and later.

Hydra (up to 1.3.8) gives argparse an object as a help text, which is converted to text only when it is shown. Since
Python 3.14, argparse checks each help text when its option is added, and refuses other types.
"""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any

from hydra._internal import utils


class LateText(str):
    """A help text that is created when it is shown.

    Args:
        source: Object whose `str` is the text.
    """

    source: object

    def __new__(cls, source: object) -> LateText:
        """Return a text that looks empty until it is shown."""
        text = super().__new__(cls)
        text.source = source
        return text

    def __str__(self) -> str:
        return str(self.source)

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


class Parser(argparse.ArgumentParser):
    """Parser that accepts help texts of any type."""

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """Add an option; its help may be an object that is converted to text when it is shown."""
        text = options.get("help")
        if text is not None and not isinstance(text, str):
            options["help"] = LateText(text)
        return super().add_argument(*names, **options)


def accept_late_texts() -> None:
    """Let Hydra, and no other module, create its options with `Parser`."""
    vars(utils)["argparse"] = SimpleNamespace(ArgumentParser=Parser)
