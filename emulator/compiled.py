"""The fast engine for CPUs: what `kernel.py` computes, with tensors in and out; threads take different trials."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import kernel
from .trials import Events, Trials

PIECES = 5
"""Pieces of a run for each thread, which takes one after the other: a core that is busy elsewhere takes fewer."""
LONGEST_PIECE = 1 << 26
"""Most trials times neurons times sub-steps of a piece: an interruption waits for the pieces in progress."""
KEPT_SPIKES = 1 << 22
"""Spikes of a run beyond which the room for them is not kept for the next one (48 MiB)."""
KEPT_ROOM = 1 << 28
"""Largest room for spikes that is kept from run to run (bytes)."""


class InterruptedRunError(RuntimeError):
    """A run was ended from outside."""


@dataclass
class _Progress:
    """A run: its pieces that nobody has begun, first and behind the last trial, and whether it was ended."""

    pieces: deque[tuple[int, int]]
    interrupted: bool = False


class Compiled:
    """Runs trials, and keeps what runs can share: threads, and room for spikes.

    Args:
        threads: that take part, the calling one among them; None: as many as there are cores.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads)
        self._room = _no_room()
        self._progress: _Progress | None = None

    def interrupt(self) -> None:
        """End the run in progress, from another thread; without one, nothing happens."""
        if (progress := self._progress) is not None:
            progress.interrupted = True
            progress.pieces.clear()

    def run(
        self, params: kernel.Params, scalars: kernel.Scalars, capacity: int, trials: Trials
    ) -> tuple[Tensor, Events]:
        """Simulate trials.

        Args:
            params, scalars: configured chips. capacity: largest number of spikes of a trial.
            trials: times in sub-steps.

        Returns:
            CADC codes `[B, T, N]` uint8, and spikes, times in sub-steps.

        Raises:
            InterruptedRunError: `interrupt` was called.
        """
        events = trials.events
        batch = len(trials.chip)
        offsets = np.zeros(batch + 1, np.int64)
        np.cumsum(np.bincount(events.sample.numpy(), minlength=batch), out=offsets[1:])
        codes = np.empty((batch, scalars.samples, params.mem.shape[1]), np.uint8)
        counts = np.zeros(batch, np.int64)
        spike_neurons, spike_times = self._room_for_spikes(batch, capacity)
        external, internal = trials.external.numpy(), trials.internal.numpy()

        chained = scalars.gap >= 0  # each trial needs the one before
        volume = batch * scalars.samples * scalars.per_sample * params.mem.shape[1]
        n_pieces = 1 if chained else min(batch, max(PIECES * self._threads, -(-volume // LONGEST_PIECE)))
        pieces = deque(pairwise(batch * piece // n_pieces for piece in range(n_pieces + 1)))
        progress = self._progress = _Progress(pieces)

        def work() -> None:
            while pieces:
                try:
                    begin, end = pieces.popleft()
                except IndexError:  # another thread took the last one
                    return
                kernel.simulate(
                    begin, end, offsets, events.unit.numpy(), events.time.numpy(), external, internal, trials.chip,
                    trials.row, trials.keys, trials.rows, params, scalars, codes, counts, spike_neurons, spike_times,
                )  # fmt: skip

        tasks = [self._pool.submit(work) for _ in range(min(n_pieces, self._threads) - 1)]
        try:
            work()  # the calling thread takes part
        finally:
            self._progress = None
            pieces.clear()  # after an interruption nothing may be written into a room that the next run uses
            running = [task for task in tasks if not task.cancel()]
            wait(running)
        for task in running:
            task.result()
        if progress.interrupted:
            raise InterruptedRunError("the run was interrupted")
        if counts.max(initial=0) > capacity:
            raise RuntimeError(f"a trial had {counts.max()} spikes, room was for {capacity}; this is a bug")
        spikes = Events(*(torch.empty(int(counts.sum()), dtype=t) for t in (torch.int64, torch.int64, torch.float32)))
        kernel.collect_spikes(counts, spike_neurons, spike_times, *(part.numpy() for part in spikes))
        if len(spikes.sample) > KEPT_SPIKES or self._room[0].nbytes + self._room[1].nbytes > KEPT_ROOM:
            self._room = _no_room()
        return torch.from_numpy(codes), spikes

    def _room_for_spikes(self, batch: int, capacity: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return room for neurons and times of the spikes of each trial `[B, capacity]`, the same in every run."""
        rows, columns = self._room[0].shape
        if rows < batch or columns != capacity:
            self._room = np.empty((batch, capacity), np.int64), np.empty((batch, capacity), np.float32)
        spike_neurons, spike_times = self._room
        return spike_neurons[:batch], spike_times[:batch]


def _no_room() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    return np.empty((0, 0), np.int64), np.empty((0, 0), np.float32)
