"""Compiled code: where numba keeps it, and what a user hears while it is made.

numba writes the loops of the emulator and of the host to `__pycache__` beside them, or else to the user's cache, and
refuses to define them where it can write to neither: in a container with a foreign user, in a read-only image. It is
given a folder then, before the first loop is defined.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

COMPILATION = "numba:compile"
"""numba's name for the events of a function that is compiled, and not read from a file."""
SECONDS = 13
"""What the loops of a training run take to compile on two cores, s."""


_private: list[str] = []


def keeps() -> bool:
    """Return whether compiled code outlives this process."""
    return not _private


def secure_cache() -> None:
    """Give numba a private temporary folder where it finds none to keep compiled code in.

    Raises:
        ImportError: there is no temporary folder either.
    """
    if _can_keep():
        return
    _private.append(_private_folder())
    os.environ["NUMBA_CACHE_DIR"] = _private[0]
    import numba

    vars(numba.config)["CACHE_DIR"] = _private[0]
    log.warning(
        "compiled code cannot be kept, since neither the installed package nor the user's cache can be written: "
        "every start compiles anew. To keep it, set NUMBA_CACHE_DIR to a folder that can be written"
    )


def secure_plots() -> None:
    """Give matplotlib a private temporary folder for a user who has no home, of which it asks when it is imported."""
    try:
        Path.home()
    except RuntimeError:
        if not os.environ.get("MPLCONFIGDIR"):
            os.environ["MPLCONFIGDIR"] = _private_folder()


@contextmanager
def announced(say: Callable[[str], None]) -> Iterator[None]:
    """Say so when compilation begins, once."""
    from numba.core import event

    class Announcement(event.Listener):
        said = False

        def on_start(self, event: Any) -> None:
            if not self.said:
                self.said = True
                say(f"compiling for this machine; this takes about {SECONDS} s{', once' if keeps() else ''}")

        def on_end(self, event: Any) -> None:
            """Nothing to say."""

    with event.install_listener(COMPILATION, Announcement()):
        yield


def _can_keep() -> bool:
    """Return whether numba finds a folder for the compiled code of this package."""
    try:
        beside = Path(__file__).parent / "__pycache__"
        beside.mkdir(exist_ok=True)
        tempfile.TemporaryFile(dir=beside).close()
    except OSError:
        return _numba_finds_one()
    return True


def _numba_finds_one() -> bool:
    """Return whether numba finds a folder; it takes long to import, so it is asked only where it must be."""
    import numba

    try:
        numba.njit(cache=True)(_sample)
    except RuntimeError:
        return False
    return True


def _sample() -> None:
    """Stand for all functions to compile; it never is."""


def _private_folder() -> str:
    """Return a folder that only this user can read or write, and that goes with the process."""
    try:
        folder = tempfile.mkdtemp(prefix="hxtrain-numba-")
    except OSError as error:
        raise ImportError(
            f"hxtrain compiles code and finds no folder to write it to ({error}); "
            "set NUMBA_CACHE_DIR to a folder that can be written"
        ) from None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
