"""What a training process sets for speed: threads, and memory that is kept.

Tensors of a training step are small (a few megabytes). Sharing their arithmetic between threads costs
more than it saves, and on a busy machine the threads wait for each other a hundred times longer; the
emulated chip brings threads of its own. And glibc gives blocks of that size back to the system as soon
as they are freed, though the next step allocates the same again: the page faults cost more than the sums.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
KEPT = 512 * 2**20
"""Free memory at the heap's end that is kept (bytes)."""
LARGEST = 32 * 2**20
"""Largest block that comes from the heap (bytes); glibc's own limit."""


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory; returns whether it could (elsewhere nothing happens)."""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    settings = ((_M_MMAP_THRESHOLD, LARGEST), (_M_TRIM_THRESHOLD, KEPT), (_M_TOP_PAD, LARGEST))
    accepted = [mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings]
    return all(accepted)


@contextmanager
def tuned(threads: int) -> Iterator[None]:
    """Keep freed memory, and use so many torch threads until the end of the block."""
    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
