"""Compiled code: the folder in which numba keeps it, and the message that a user sees during compilation.

numba writes the loops of the emulator and of the host to `__pycache__` beside their modules, or else to the user's
cache. It refuses to define them if it can write to neither, as in a container with a foreign user or in a read-only
image. In that case it gets a private folder before the first loop is defined.
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
"""numba's name for the event that a function is compiled, rather than read from a file."""
SECONDS = 13
"""Time to compile the loops of a training run on two cores (s)."""

_private: list[str] = []


def keeps() -> bool:
    """Return whether compiled code outlives this process."""
    return not _private


def secure_cache() -> None:
    """Give numba a private temporary folder if it has no other place for compiled code.

    Raises:
        ImportError: no temporary folder can be made either.
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
    """Give matplotlib a private temporary folder if the user has no home; its import looks for one."""
    try:
        Path.home()
    except RuntimeError:
        if not os.environ.get("MPLCONFIGDIR"):
            os.environ["MPLCONFIGDIR"] = _private_folder()


@contextmanager
def announced(say: Callable[[str], None]) -> Iterator[None]:
    """Call `say` once, with a message, when compilation begins."""
    from numba.core import event

    class Announcement(event.Listener):
        is_announced = False

        def on_start(self, event: Any) -> None:
            if not self.is_announced:
                self.is_announced = True
                say(f"compiling for this machine; this takes about {SECONDS} s{', once' if keeps() else ''}")

        def on_end(self, event: Any) -> None:
            """Do nothing."""

    with event.install_listener(COMPILATION, Announcement()):
        yield


def _can_keep() -> bool:
    """Return whether numba can keep the compiled code of this package."""
    try:
        cache = Path(__file__).parent / "__pycache__"
        cache.mkdir(exist_ok=True)
        tempfile.TemporaryFile(dir=cache).close()
    except OSError:
        return _numba_has_folder()
    return True


def _numba_has_folder() -> bool:
    """Return whether numba finds a folder; numba takes long to import, so this is the last resort."""
    import numba

    try:
        numba.njit(cache=True)(_sample)
    except RuntimeError:
        return False
    return True


def _sample() -> None:
    """Stand for all functions that numba compiles; this one never is."""


def _private_folder() -> str:
    """Return a folder that only this user can read or write, and that is removed with the process."""
    try:
        folder = tempfile.mkdtemp(prefix="hxtrain-numba-")
    except OSError as error:
        raise ImportError(
            f"hxtrain compiles code and finds no folder to write it to ({error}); "
            "set NUMBA_CACHE_DIR to a folder that can be written"
        ) from None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
