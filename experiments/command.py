"""A verb of the command line: Hydra composes its settings, and `mistakes` replaces the texts of Hydra's errors."""

from __future__ import annotations

import errno
import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from hxtrain import __version__
from hxtrain.backends import DeviceError
from hxtrain.console import write_any_letter
from hxtrain.runs.checkpoint import CheckpointError

from .components import import_named
from .keys import with_keys
from .main import show
from .mistakes import Command, MistakeError, explain, mistakes, misused_groups
from .overview import overview
from .rerun import expanded
from .resolvers import register_resolvers
from .schema import register
from .settings import nearest
from .sweep_words import translated
from .verbs import PROGRAM
from .words import readable, swept

FULL_ERROR = "HYDRA_FULL_ERROR"
"""Environment variable that makes Hydra raise errors; if a user sets it, so do the commands."""
TYPED: ContextVar[tuple[str, ...]] = ContextVar("typed")
"""The command line as typed, while `sys.argv` has the words that Hydra reads."""
EXPECTED = (ValueError, CheckpointError, OmegaConfBaseException, DeviceError, OSError)


def command(name: str, usage: str = "") -> Callable[[Callable[[DictConfig], None]], Callable[..., None]]:
    """Return a decorator that makes a verb of a function of a config.

    Args:
        name: Verb, and name of its YAML file in `conf`.
        usage: Further forms of the command.
    """

    def decorate(work: Callable[[DictConfig], None]) -> Callable[..., None]:
        register_resolvers()
        run = hydra.main(version_base="1.3", config_path="conf", config_name=name)(work)

        @functools.wraps(work)
        def main() -> None:
            write_any_letter()
            with plain_warnings():
                if {"--help", "-h"} & set(sys.argv):
                    show(overview(Command(name), usage))
                elif "--version" in sys.argv:
                    show(f"{PROGRAM} {__version__}")
                else:
                    _main(name, run)

        return main

    return decorate


def _main(name: str, run: Callable[[], None]) -> None:
    invocation = Command(name)
    try:
        import_named(sys.argv[1:])
        register(name)
        words = swept(readable(translated(expanded(sys.argv[1:], invocation), invocation), invocation.settings))
        invocation = _command(name, words)
        faults = misused_groups(invocation)
        if faults:
            raise MistakeError("; ".join(dict.fromkeys([*faults, *mistakes(invocation)])))
        with _arguments(words), _raised_errors():
            run()
    except Exception as error:
        _report(error, invocation)


def _report(error: Exception, invocation: Command) -> NoReturn:
    text = explain(error, invocation)
    if text is None and isinstance(error, EXPECTED):
        text = of_system(error) if isinstance(error, OSError) else str(error)
        text = text if isinstance(error, MistakeError) else with_keys(text, invocation.settings)
    if text is None or os.environ.get(FULL_ERROR) == "1":
        raise error
    end(f"error: {text}", 3 if isinstance(error, DeviceError) else 2)


def _command(name: str, words: list[str]) -> Command:
    """Return a command with separate settings and options.

    Raises:
        ValueError: An option is unknown.
    """
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[assignment, method-assign]
    arguments, unknown_words = parser.parse_known_args(words)
    invocation = Command(name, arguments.overrides, [word for word in words if word.startswith("-")])
    for word in unknown_words:
        key = word.lstrip("-").partition("=")[0]
        close = nearest(key, {*invocation.settings, *invocation.groups})
        remedy = f"did you mean {close[0]}=VALUE?" if close else f"{invocation.program} --help lists what can be set"
        raise ValueError(f"{word} is not an option; settings are written NAME=VALUE, without dashes: {remedy}")
    return invocation


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text}; settings are written NAME=VALUE, such as trainer.epochs=3")


@contextmanager
def _arguments(words: list[str]) -> Iterator[None]:
    """Let Hydra read these words within the block."""
    previous = sys.argv
    token = TYPED.set(tuple(previous))
    sys.argv = [previous[0], *words]
    try:
        yield
    finally:
        sys.argv = previous
        TYPED.reset(token)


@contextmanager
def _raised_errors() -> Iterator[None]:
    """Let Hydra raise errors within the block, not print them."""
    previous = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"
    try:
        yield
    finally:
        os.environ.pop(FULL_ERROR)
        if previous is not None:
            os.environ[FULL_ERROR] = previous


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show warnings for users as lines without file and source, within the block."""
    previous = warnings.formatwarning

    def line(message: Warning | str, category: type[Warning], *place: Any) -> str:
        return f"warning: {message}\n" if category is UserWarning else previous(message, category, *place)

    warnings.formatwarning = line  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.formatwarning = previous


def of_system(error: OSError) -> str:
    """Return the text of a system error: file, reason and remedy."""
    place = "" if error.filename is None else f"{error.filename}: "
    text = f"{place}{error.strerror or error}"
    name = errno.errorcode.get(error.errno or 0)
    if name in ("ENOSPC", "EDQUOT"):
        return f"{text}; free some space, or name another folder. Files that were there are intact"
    if name in ("EROFS", "EACCES", "EPERM"):
        return f"{text}; name a folder that can be written"
    return text


def end(text: str, status: int) -> NoReturn:
    """End the program with a text."""
    print(text, file=sys.stderr)
    sys.exit(status)
