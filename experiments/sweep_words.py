"""`sweep.dry_run` and `sweep.on_error` on the command line: settings of the callback that accompanies a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .mistakes import Command, MistakeError
from .words import is_sweep

PREFIX = "sweep."
CALLBACK = "hydra.callbacks.sweep."
SETTINGS: Mapping[str, tuple[Sequence[str], str]] = {
    "dry_run": (("true", "false"), "print the runs of a sweep in their order, with what is finished, and end"),
    "on_error": (("continue", "stop"), "what a sweep does after a run that failed"),
}
"""Values and text of each setting; the first value of `on_error` is its default."""


def translated(words: Sequence[str], command: Command) -> list[str]:
    """Return the words with `sweep.NAME=VALUE` as settings of the callback that accompanies a sweep.

    Raises:
        MistakeError: The setting or its value is unknown, or there is no sweep.
    """
    return [_translated(word, words, command) for word in words]


def _translated(word: str, words: Sequence[str], command: Command) -> str:
    key, equals, value = word.partition("=")
    name = key.removeprefix(PREFIX)
    if name == key or not equals:
        return word
    if "sweep" not in command.callbacks:
        raise MistakeError(f"{key} is for the sweeps of hxtrain, hxtrain ann, hxtrain convert and hxtrain play")
    if name not in SETTINGS:
        raise MistakeError(
            f"{key} is not a setting; choose among {', '.join(PREFIX + setting for setting in SETTINGS)}"
        )
    values, _ = SETTINGS[name]
    if value.lower() not in values:
        raise MistakeError(f"{word}: choose one of {', '.join(values)}")
    if not is_sweep(words):
        raise MistakeError(f"{word} is for sweeps: add --multirun and a setting with several values, or sweep=NAME")
    return f"{CALLBACK}{name}={value.lower()}"
