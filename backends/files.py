"""Atomic replacement of files, and names that become a part of a path."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

LONGEST_NAME = 64
"""Length limit of a name that becomes a part of a path (characters)."""
_NAME = re.compile(r"[A-Za-z0-9_+.-]+")
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
REPETITIONS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Waits between attempts to replace a file that another program reads (s)."""
_NO_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)
"""Errors of systems that cannot flush a folder."""


@contextmanager
def replacing(path: Path, previous: Path | None = None, flushed: bool = True) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends; until then, and after an error, nothing changes.

    The new file gets a random name in the same folder, so that no link is followed and no two processes share it. At
    the end of the block, content and final name are on the disk.

    Args:
        path: Path of the file.
        previous: Path that keeps the replaced file; None: the replaced file is lost.
        flushed: Whether the block waits for the disk; a file that a crash of the machine may take needs no wait.

    Raises:
        OSError: The file cannot be written; the error names `path`.
    """
    temporary = path.with_name(f".{path.name[:100]}.{uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            if flushed:
                os.fsync(file.fileno())
        if previous is not None and path.exists():
            _keep(path, previous)
        _replace(temporary, path)
        if flushed:
            flush_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _replace(temporary: Path, path: Path) -> None:
    """Give a file its final name; Windows refuses this as long as a reader has the old file open, for a moment."""
    for delay in REPETITIONS if os.name == "nt" else ():
        try:
            os.replace(temporary, path)
        except PermissionError:
            time.sleep(delay)
        else:
            return
    os.replace(temporary, path)


def _keep(path: Path, previous: Path) -> None:
    """Keep the file at `path` as `previous`; `path` exists at every moment."""
    temporary = path.with_name(f".{previous.name}.{uuid4().hex}.tmp")
    try:
        os.link(path, temporary)
    except OSError:  # no links here
        with replacing(previous) as file:
            file.write(path.read_bytes())
        return
    try:
        os.replace(temporary, previous)
    finally:
        temporary.unlink(missing_ok=True)  # of two links to one file, replace leaves both


def flush_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can do that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDERS:
            raise
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of `replacing` after a killed process; no other process may be writing to the folder."""
    for file in folder.iterdir():
        if _LEFTOVER.fullmatch(file.name):
            file.unlink(missing_ok=True)


def path_part(name: str, field: str) -> str:
    """Return a name that may become a part of a path.

    Args:
        name: At most 64 letters, digits and `-_+.`; the first is no dot.
        field: Setting that holds the name, for the error.

    Raises:
        ValueError: The name may not become a part of a path.
    """
    if len(name) <= LONGEST_NAME and _NAME.fullmatch(name) and not name.startswith(".") and ".." not in name:
        return name
    excerpt = ascii(name) if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]!a}..."
    raise ValueError(
        f"{field}={excerpt} becomes a part of file names: use letters, digits and -_+. alone, without '..' or a dot in "
        f"front, at most {LONGEST_NAME} characters"
    )
