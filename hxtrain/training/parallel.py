"""Data parallelism: processes that share every batch, each with a separate chip or server.

    torchrun --nproc-per-node 2 --no-python hxtrain parallel.chips=[W66F3,W62F0]

Each process runs its part of a batch on its device and computes the gradient of that part; the gradients are averaged
over the samples of the whole batch, so that all processes take the same step. A trial keeps the place on the clock
that it has in the whole batch: with one and the same emulated chip everywhere, recordings are bit by bit those of a
single process, and weights are equal to rounding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, List, NamedTuple  # noqa: UP035 - OmegaConf resolves these on every Python

import torch
from torch import Tensor, distributed

PATIENCE = timedelta(minutes=90)
"""How long a process waits for the slowest process: its chip (3600 s in a queue by default), or its repeated runs."""
LONGEST = 2**28
"""Longest text that a process may send about its part (bytes)."""


@dataclass
class ParallelConfig:
    """Which device each process uses; without effect in a single process.

    Attributes:
        chips: Name of the emulated chip of each process; if empty, all processes use `chip.name`.
        addresses: Address of the chip server of each process (`backend=remote`); if empty, all use the same server.
    """

    chips: List[str] = field(default_factory=list)  # noqa: UP006
    addresses: List[str] = field(default_factory=list)  # noqa: UP006


class Team(NamedTuple):
    """The processes of a run: rank of this process, and number of processes."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def entry(self, values: list[str], name: str) -> str | None:
        """Return the entry of this process from a list with one entry per process; None if the list is empty.

        Raises:
            ValueError: The list has another length.
        """
        if not values:
            return None
        if len(values) != self.size:
            raise ValueError(
                f"parallel.{name} has {len(values)} entries, there are {self.size} processes; give one for each "
                f"(torchrun --nproc-per-node {len(values)}), or none"
            )
        return values[self.rank]

    def part(self, count: int) -> tuple[int, int]:
        """Return first and last (exclusive) index of this process's part of `count` samples; the parts are adjacent."""
        return count * self.rank // self.size, count * (self.rank + 1) // self.size

    def sum_gradients(self, parameters: Iterable[Tensor], share: float, values: list[float]) -> list[float]:
        """Replace gradients by their weighted sum over all processes; return the sums of further values.

        Args:
            parameters: Parameters with or without gradients, the same in all processes; those that require no
                gradient are left alone. One without a gradient in any process has none afterwards, so that an
                optimiser skips it, as in a single process.
            share: Weight of the gradients of this process: its share of the batch.
            values: Further values, which are summed over all processes.
        """
        if self.size == 1:
            return values
        tensors = [parameter for parameter in parameters if parameter.requires_grad]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad * share for p in tensors]
        owners = [float(parameter.grad is not None) for parameter in tensors]
        numbers = torch.tensor([*owners, *values], dtype=torch.float32)
        flat = torch.cat([*(grad.reshape(-1).cpu() for grad in grads), numbers])
        distributed.all_reduce(flat)
        *sums, numbers = torch.split(flat, [*(grad.numel() for grad in grads), len(numbers)])
        for parameter, total, number in zip(tensors, sums, numbers, strict=False):
            parameter.grad = total.view_as(parameter).to(parameter) if number else None
        return [float(value) for value in numbers[len(tensors) :]]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in their order: numbers, text, lists and mappings, which travel as JSON.

        Objects are never sent: reading an object of another process would run its code.

        Raises:
            ValueError: A process sends other types, or more than `LONGEST` bytes.
        """
        if self.size == 1:
            return [value]
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [int(length) for length in self._all(torch.tensor([len(text)]))]
        if not 0 < min(lengths) <= max(lengths) <= LONGEST:
            raise ValueError(f"a process sends {max(lengths)} bytes about its part, 1 to {LONGEST} are taken")
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(text)] = text
        parts = zip(self._all(padded), lengths, strict=True)
        try:
            return [json.loads(part[:length].numpy().tobytes()) for part, length in parts]
        except (ValueError, RecursionError) as error:
            raise ValueError(
                "a process of this run sends something else than JSON about its part; start all of them with the same "
                "version of hxtrain, and keep others away from the ports of torchrun"
            ) from error

    def _all(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, all of one shape and type."""
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        distributed.all_gather(parts, tensor)
        return parts


ALONE = Team()
"""A run in a single process."""


@contextmanager
def team(say: Callable[[str], None] = lambda text: None) -> Iterator[Team]:
    """Join the processes that torchrun has started (`RANK`, `WORLD_SIZE`, ...); without torchrun, return `ALONE`.

    Args:
        say: Called with a line of text before this process waits for the remaining ones.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    _select_gpu()
    place = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
    say(
        f"process {os.environ.get('RANK', '?')} waits for {size} processes at {place}, since the environment has "
        f"WORLD_SIZE={size}; to train alone, unset WORLD_SIZE"
    )
    distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Team(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()


def _select_gpu() -> None:
    """Let `cuda` mean a separate GPU in each process of a machine, as far as there are enough GPUs."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
