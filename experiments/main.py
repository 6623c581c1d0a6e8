"""`hxtrain VERB`: the verb's module is imported only when it is called, and torch and Hydra with it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from pkgutil import resolve_name

from hxtrain import __version__

from .verbs import DEFAULT, PROGRAM, VERBS

HELP = ("--help", "-h", "help")


def main() -> int | None:
    """Call the verb that the command line names; return its exit status.

    The name of an older script is an alias: `hxtrain-evaluate` is `hxtrain evaluate`. The verb finds its words in
    `sys.argv`, whose first entry names program and verb.
    """
    alias = Path(sys.argv[0]).stem.removeprefix(f"{PROGRAM}-")
    words = sys.argv[1:]
    if alias in VERBS:
        return _call(alias, sys.argv[0], words)
    first = words[0] if words else ""
    if first in HELP:
        return _help(words[1:])
    if first == "--version":
        show(f"{PROGRAM} {__version__}")
        return None
    if first in VERBS:
        return _call(first, f"{sys.argv[0]} {first}", words[1:])
    close = similar(first)
    if close:
        print(f"error: {first} is no verb of {PROGRAM}; did you mean {' or '.join(close)}?", file=sys.stderr)
        return 2
    return _call(DEFAULT, sys.argv[0], words)


def _call(verb: str, name: str, words: Sequence[str]) -> int | None:
    sys.argv = [name, *words]
    status: int | None = resolve_name(VERBS[verb].main)()
    return status


def _help(words: Sequence[str]) -> int | None:
    """Show the help of the verb among the words, or else of `hxtrain`."""
    verb = next((word for word in words if word in VERBS), None)
    if verb:
        return _call(verb, f"{sys.argv[0]} {verb}", ["--help"])
    show("\n".join(overview()))
    return None


def overview() -> Iterator[str]:
    """Yield the lines of the help: each verb with its page."""
    yield f"{PROGRAM}: spiking neural networks, trained in the loop with analog chips"
    yield ""
    yield "Usage:"
    yield f"  {PROGRAM} [VERB] [GROUP=OPTION ...] [SETTING=VALUE ...]"
    yield f"  {PROGRAM} VERB --help        groups and settings of a verb, with defaults"
    yield f"  {PROGRAM} --version"
    yield ""
    yield f"Verbs ({DEFAULT} if there is none):"
    width = max(len(verb.summary) for verb in VERBS.values())
    for name, verb in VERBS.items():
        yield f"  {name:<11}  {verb.summary:<{width}}  {verb.page}"
    yield ""
    yield f"A first run: {PROGRAM} experiment=digits"


def similar(word: str) -> list[str]:
    """Return the commands whose verb is close to a word; none if the word is no name."""
    if not re.fullmatch(r"[a-z]{3,}", word):
        return []
    longer = [verb for verb in VERBS if verb.startswith(word) or word.startswith(verb)]
    return [f"{PROGRAM} {verb}" for verb in longer or get_close_matches(word, VERBS, 2, 0.7)]


def show(text: str) -> None:
    """Print a text; a reader that stops early, such as `head`, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
