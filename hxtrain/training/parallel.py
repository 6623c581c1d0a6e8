"""Data parallelism: processes that share every batch, each with a chip or server of its own.

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

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others: for the slowest chip, or its repeats."""
LONGEST = 2**28
"""Longest text that a process may send about its part (bytes)."""


@dataclass
class ParallelConfig:
    """Which device each process uses; without effect in a single process.

    Attributes:
        chips: name of the emulated chip of each process; empty: all use `chip.name`.
        addresses: address of the chip server of each process (`backend=remote`); empty: all use the same.
    """

    chips: List[str] = field(default_factory=list)  # noqa: UP006
    addresses: List[str] = field(default_factory=list)  # noqa: UP006


class Team(NamedTuple):
    """The processes of a run: this one's number, and how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def own(self, values: list[str], name: str) -> str | None:
        """Return this process's entry of a list with one for each; None if the list is empty.

        Raises:
            ValueError: the list has another length.
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
        """Return first and last (exclusive) of this process's part of `count` items; parts follow each other."""
        return count * self.rank // self.size, count * (self.rank + 1) // self.size

    def sum_gradients(self, parameters: Iterable[Tensor], share: float, values: list[float]) -> list[float]:
        """Replace gradients by their sum over all processes, each times its share; return sums of further values.

        Args:
            parameters: with gradients, or none; the same in all processes.
            share: weight of this process's gradients, its part of the batch.
            values: what else is to be summed up.
        """
        if self.size == 1:
            return values
        given = list(parameters)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad * share for p in given]
        flat = torch.cat([*(grad.reshape(-1).cpu() for grad in grads), torch.tensor(values, dtype=torch.float32)])
        distributed.all_reduce(flat)
        at = 0
        for parameter, grad in zip(given, grads, strict=True):
            parameter.grad = flat[at : at + grad.numel()].view_as(parameter).to(parameter)
            at += grad.numel()
        return [float(value) for value in flat[at:]]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in their order: numbers, text, lists and mappings, which travel as JSON.

        Objects are never sent: to read one of another process would mean to run its code.

        Raises:
            ValueError: a process sends something else, or too much.
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

    def _all(self, own: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, all of one shape and type."""
        parts = [torch.empty_like(own) for _ in range(self.size)]
        distributed.all_gather(parts, own)
        return parts


ALONE = Team()
"""A run in a single process."""


@contextmanager
def team(say: Callable[[str], None] = lambda text: None) -> Iterator[Team]:
    """Join the processes that torchrun has started (`RANK`, `WORLD_SIZE`, ...); alone without it.

    Args:
        say: is told for whom this process waits.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    _take_own_gpu()
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


def _take_own_gpu() -> None:
    """Make `cuda` mean another GPU in each process of a machine, as far as there are."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
