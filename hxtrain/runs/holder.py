"""The process that works in a run directory, written into the lock file, and whether it is alive.

The lock file is empty while no process works, and after one that ended in order. A killed process leaves its entry. It
needs the standard library alone, and never takes the lock.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

LOCK = ".lock"
"""File of a run directory that the working process holds the lock of."""
LARGEST = 4096
"""Largest lock file that is read (bytes)."""


class Holder(NamedTuple):
    """A process.

    Attributes:
        host: Name of its machine.
        pid: Number of the process there.
        started: Start of the process, in the clock ticks of its machine, so that a later process of the same number is
            another one; None where the system does not tell.
    """

    host: str
    pid: int
    started: int | None

    @classmethod
    def current(cls) -> Holder:
        """Return this process."""
        return cls(socket.gethostname(), os.getpid(), _start_of(os.getpid()))

    @property
    def is_alive(self) -> bool | None:
        """Whether the process exists; None for one of another machine, or where the system does not tell."""
        if self.host != socket.gethostname() or sys.platform == "win32":  # where os.kill would end it
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return self.started is None or _start_of(self.pid) == self.started


def write_holder(descriptor: int) -> None:
    """Write this process into an open lock file, unless it holds something else; a full disk is no error."""
    with suppress(OSError):
        if _is_free(descriptor):
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, json.dumps(Holder.current()._asdict()).encode())


def clear_holder(descriptor: int) -> None:
    """Empty an open lock file, unless it holds something else than a process."""
    with suppress(OSError):
        if _is_free(descriptor):
            os.ftruncate(descriptor, 0)


def _is_free(descriptor: int) -> bool:
    os.lseek(descriptor, 0, os.SEEK_SET)
    text = os.read(descriptor, LARGEST)
    return not text or parse_holder(text) is not None


def parse_holder(text: bytes) -> Holder | None:
    """Return the process that a lock file names; None for an empty file, or one that names none."""
    try:
        values = json.loads(text[:LARGEST])
        holder = Holder(**values)
    except (ValueError, TypeError, RecursionError):
        return None
    is_valid = isinstance(holder.host, str) and type(holder.pid) is int and 0 < holder.pid < 2**31
    return holder if is_valid and (holder.started is None or type(holder.started) is int) else None


def _start_of(pid: int) -> int | None:
    """Return the start of a process since the machine's start (clock ticks); None if the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        return int(text[text.rindex(")") + 1 :].split()[19])
    except (OSError, ValueError, IndexError):
        return None
