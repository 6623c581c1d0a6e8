"""The channel between relay and server: small messages go through a socket, large ones through shared memory.

A message is a list of frames. In shared memory it is contiguous; it is copied once in and once out, and messages are
read in the order of their writing. A message without room waits at its sender.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from typing import Any

KIND = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
HEADER = 64
"""Bytes before the messages of a memory; the first eight hold the number of bytes read."""
SMALL = 2**13
"""Largest message that goes through the socket (bytes)."""
PACKET = 2**16
"""Largest packet of the socket: a small message, and the lengths of all frames (bytes)."""
START = struct.Struct("<qH")
"""Start of a message in the memory (-1: in the packet), and its number of frames; their lengths follow."""


def make_memory(size: int) -> int:
    """Return the descriptor of memory for `size` bytes of messages; the system allocates it on the first write."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("hxtrain")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, HEADER + size)
    return descriptor


class Memory:
    """Shared memory that one process writes and another reads.

    Args:
        descriptor: Descriptor from `make_memory`.
    """

    def __init__(self, descriptor: int) -> None:
        self.size = os.fstat(descriptor).st_size - HEADER
        memory = memoryview(mmap.mmap(descriptor, HEADER + self.size))
        self._read = memory[:8].cast("Q")
        self._content = memory[HEADER:]
        self._written, self._skipped = 0, 0

    def write(self, frames: Sequence[Any], size: int) -> int | None:
        """Copy frames into one piece and return its start; None if there is no room at present.

        Raises:
            ValueError: The frames are larger than the memory.
        """
        if size > self.size:
            raise ValueError(f"a message of {size} bytes is too large for a memory of {self.size}")
        begin = self._written
        read = max(self._read[0], self._skipped)
        is_empty = read == begin
        if is_empty or begin % self.size + size > self.size:
            begin = -(-begin // self.size) * self.size  # there it is contiguous, and often in the caches
        if is_empty:
            read = self._skipped = begin
        if begin + size - read > self.size:
            return None
        place = begin % self.size
        for frame in frames:
            self._content[place : place + len(frame)] = frame
            place += len(frame)
        self._written = begin + size
        return begin

    def rewind(self, begin: int) -> None:
        """Take back the last message, which begins at `begin`."""
        self._written = begin

    def read(self, begin: int, size: int) -> memoryview:
        """Return a message, valid until `free`."""
        place = begin % self.size
        return self._content[place : place + size]

    def free(self, end: int) -> None:
        """Release the memory of messages up to `end`."""
        self._read[0] = end


class Channel:
    """One end of the channel; for one thread.

    Args:
        end: Socket of a pair of kind `KIND`.
        outgoing: Memory that this end writes.
        incoming: Memory that this end reads.
    """

    def __init__(self, end: socket.socket, outgoing: Memory, incoming: Memory) -> None:
        self._end = end
        self._outgoing = outgoing
        self._incoming = incoming
        self._unsent: deque[Sequence[Any]] = deque()
        self._lent = 0
        end.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when messages arrive."""
        return self._end.fileno()

    @property
    def is_blocked(self) -> bool:
        """Whether messages wait for room; `flush` sends them."""
        return bool(self._unsent)

    def send(self, *frames: Any) -> None:
        """Send a message, or keep it until there is room."""
        if self._unsent or not self._send(frames):
            self._unsent.append(frames)

    def flush(self) -> None:
        """Send waiting messages, as far as there is room."""
        while self._unsent and self._send(self._unsent[0]):
            self._unsent.popleft()

    def receive(self) -> list[memoryview] | None:
        """Return the next message, which lasts until the next call; None if there is none.

        Raises:
            OSError: The other end is closed.
        """
        if self._lent:
            self._incoming.free(self._lent)
            self._lent = 0
        try:
            packet = memoryview(self._end.recv(PACKET))
        except BlockingIOError:
            return None
        if not packet:
            raise ConnectionResetError("the other end of the channel is closed")
        begin, count = START.unpack_from(packet)
        lengths = struct.unpack_from(f"<{count}Q", packet, START.size)
        size = sum(lengths)
        content = packet[START.size + 8 * count :] if begin < 0 else self._incoming.read(begin, size)
        self._lent = 0 if begin < 0 else begin + size
        frames = []
        place = 0
        for length in lengths:
            frames.append(content[place : place + length])
            place += length
        return frames

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def _send(self, frames: Sequence[Any]) -> bool:
        lengths = [len(frame) for frame in frames]
        size = sum(lengths)
        begin: int | None = -1 if size <= SMALL else self._outgoing.write(frames, size)
        if begin is None:
            return False
        head = START.pack(begin, len(frames)) + struct.pack(f"<{len(frames)}Q", *lengths)
        try:
            self._end.send(b"".join([head, *frames]) if begin < 0 else head)
        except (BlockingIOError, InterruptedError):
            if begin >= 0:
                self._outgoing.rewind(begin)
            return False
        except OSError:
            return True  # the other end is gone, and nobody needs the message any more
        return True
