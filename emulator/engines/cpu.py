"""The engine for CPUs: `cpu_kernel.py` with tensors in and out; threads run different trials."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from hxtrain.emulator.dynamics import SynapseBlock
from hxtrain.emulator.parameters import Float, Int, recorded_neurons
from hxtrain.emulator.trials import Events, Trials

from . import cpu_kernel as kernel
from .engine import Setup, SubstepEngine

PIECES = 5
"""Pieces of a run per thread; a thread on a busy core takes fewer of them."""
LONGEST_PIECE = 1 << 26
"""Largest trials times neurons times sub-steps of a piece; an interruption waits for the pieces in progress."""
BUFFER_SPIKES = 1 << 22
"""Largest number of spikes of a run after which the spike buffers stay allocated (48 MiB)."""
BUFFER_BYTES = 1 << 28
"""Largest size of the spike buffers that stay allocated between runs (bytes)."""


class InterruptedRunError(RuntimeError):
    """A run was interrupted by another thread."""


@dataclass
class _Progress:
    """The state of a run.

    Attributes:
        pieces: pieces that no thread has started, as index of the first trial and index after the last trial.
        interrupted: whether the run was interrupted.
    """

    pieces: deque[tuple[int, int]]
    interrupted: bool = False


class CpuEngine(SubstepEngine):
    """Compiled loops, with threads and spike buffers that successive runs share.

    Args:
        threads: number of threads, including the calling one; None for the number of cores.
    """

    name = "cpu"

    def __init__(self, threads: int | None = None) -> None:
        super().__init__(torch.device("cpu"))
        self._threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads)
        self._buffers = _empty_buffers()
        self._progress: _Progress | None = None
        self._recorded = 0

    def prepare(self, setup: Setup) -> None:
        """Take the chips; see `Engine.prepare`."""
        super().prepare(setup)
        self._recorded = len(recorded_neurons(setup.params))

    def interrupt(self) -> None:
        """Interrupt the run in progress, from another thread; no effect without a run."""
        if (progress := self._progress) is not None:
            progress.interrupted = True
            progress.pieces.clear()

    def write(self, block: SynapseBlock, weights: Tensor, first: int, rows: Float) -> None:
        """Write the charges that an event delivers; see `SubstepEngine.write`."""
        if block.low is None or block.high is None:
            kernel.write_charges(weights.numpy(), block.factor, first, rows)
        else:
            rows[:, first : first + weights.shape[1]] = block.charges(weights.numpy())

    def simulate(self, trials: Trials) -> tuple[Tensor, Events]:
        """Simulate trials; see `SubstepEngine.simulate`.

        Raises:
            InterruptedRunError: `interrupt` was called.
        """
        params = self.setup.params
        scalars = self.setup.scalars
        capacity = self.setup.capacity
        events = trials.events
        batch = len(trials.chip)
        offsets = np.zeros(batch + 1, np.int64)
        np.cumsum(np.bincount(events.sample.numpy(), minlength=batch), out=offsets[1:])
        codes = np.empty((batch, scalars.samples, self._recorded), np.uint8)
        counts = np.zeros(batch, np.int64)
        spike_neurons, spike_times = self._spike_buffers(batch, capacity)
        inputs = kernel.Inputs(
            offsets, events.unit.numpy(), events.time.numpy(), trials.external.numpy(), trials.internal.numpy(),
            trials.chip, trials.row, trials.keys,
        )  # fmt: skip
        outputs = kernel.Outputs(codes, counts, spike_neurons, spike_times)

        is_chained = scalars.gap >= 0  # each trial continues from the previous one
        volume = batch * scalars.samples * scalars.per_sample * params.mem.shape[1]
        n_pieces = 1 if is_chained else min(batch, max(PIECES * self._threads, -(-volume // LONGEST_PIECE)))
        pieces = deque(pairwise(batch * piece // n_pieces for piece in range(n_pieces + 1)))
        progress = self._progress = _Progress(pieces)

        def work() -> None:
            while pieces:
                try:
                    begin, end = pieces.popleft()
                except IndexError:  # another thread took the last piece
                    return
                kernel.simulate(begin, end, inputs, trials.rows, params, scalars, outputs)

        tasks = [self._pool.submit(work) for _ in range(min(n_pieces, self._threads) - 1)]
        try:
            work()  # the calling thread takes part
        finally:
            self._progress = None
            pieces.clear()  # after an interruption no thread may write to buffers that the next run uses
            running = [task for task in tasks if not task.cancel()]
            wait(running)
        for task in running:
            task.result()
        if progress.interrupted:
            raise InterruptedRunError("the run was interrupted")
        if counts.max(initial=0) > capacity:
            raise RuntimeError(f"a trial had {counts.max()} spikes, but its buffer holds {capacity}; this is a bug")
        spikes = Events(*(torch.empty(int(counts.sum()), dtype=t) for t in (torch.int64, torch.int64, torch.float32)))
        kernel.collect_spikes(counts, spike_neurons, spike_times, *(part.numpy() for part in spikes))
        if len(spikes.sample) > BUFFER_SPIKES or self._buffers[0].nbytes + self._buffers[1].nbytes > BUFFER_BYTES:
            self._buffers = _empty_buffers()
        return torch.from_numpy(codes), spikes

    def _spike_buffers(self, batch: int, capacity: int) -> tuple[Int, Float]:
        """Return the buffers for neurons and times of the spikes of each trial `[B, capacity]`, shared by all runs."""
        rows, columns = self._buffers[0].shape
        if rows < batch or columns != capacity:
            self._buffers = np.empty((batch, capacity), np.int64), np.empty((batch, capacity), np.float32)
        spike_neurons, spike_times = self._buffers
        return spike_neurons[:batch], spike_times[:batch]


def _empty_buffers() -> tuple[Int, Float]:
    return np.empty((0, 0), np.int64), np.empty((0, 0), np.float32)
