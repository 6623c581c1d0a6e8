"""Settings of a process for speed: threads of torch, and retention of free memory.

Tensors of a training step are small (a few megabytes). Sharing their arithmetic between threads costs
more than it saves, and on a busy machine the threads wait for each other a hundred times longer; the
emulated chip has separate threads. By default, glibc returns blocks of that size to the system as soon
as they are freed, but the next step allocates the same blocks: the page faults cost more than the sums.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
RETAINED_BYTES = 512 * 2**20
"""Free memory at the end of the heap that the process retains (bytes)."""
LARGEST_BLOCK = 32 * 2**20
"""Largest block on the heap (bytes), at the upper limit of glibc."""


def keep_freed_memory() -> bool:
    """Tell glibc to retain freed memory; return whether it does (without effect on other systems)."""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    settings = ((_M_MMAP_THRESHOLD, LARGEST_BLOCK), (_M_TRIM_THRESHOLD, RETAINED_BYTES), (_M_TOP_PAD, LARGEST_BLOCK))
    accepted = [mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings]
    return all(accepted)


@contextmanager
def tuned(threads: int) -> Iterator[None]:
    """Retain freed memory, and use a number of torch threads until the end of the block."""
    keep_freed_memory()
    previous = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(previous)
