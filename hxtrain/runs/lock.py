"""One process per run directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from hxtrain.backends.files import remove_leftovers

from .checkpoint import CheckpointError
from .holder import LOCK, clear_holder, write_holder

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
FAR = 2**30
"""Byte that is locked on Windows, behind the end of the file: others can read the file."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; the system frees it even if the process is killed. The lock file names the process.

    Incomplete files of a killed process are removed.

    Raises:
        CheckpointError: Another process works in the folder, the folder cannot be written, or its lock is a link.
    """
    descriptor = _open(folder / LOCK)
    try:
        _take(descriptor, folder)
        write_holder(descriptor)
        remove_leftovers(folder)
        try:
            yield
        finally:
            clear_holder(descriptor)
    finally:
        os.close(descriptor)


def _open(file: Path) -> int:
    """Return a descriptor of the lock file; its content is preserved, and a link is refused."""
    if file.is_symlink():
        raise CheckpointError(f"{file} is a link to somewhere else, which no run makes; delete it")
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | FLAGS, 0o666)
    except OSError as error:
        raise CheckpointError(
            f"the run directory {file.parent} cannot be written ({error.strerror}); name another one (hydra.run.dir)"
        ) from error


def _take(descriptor: int, folder: Path) -> None:
    try:
        if fcntl is None:
            os.lseek(descriptor, FAR, os.SEEK_SET)
            windows: Any = import_module("msvcrt")
            windows.locking(descriptor, windows.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise CheckpointError(
            f"another process trains in {folder}, or evaluates there; wait for it, or name another hydra.run.dir"
        ) from error
