"""Recordings of consecutive trials, joined to one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .contract import Cost, Health, Recording
from .spikes import Spikes


def join(pieces: Sequence[Recording]) -> Recording:
    """Return one recording of the trials of all pieces, in their order."""
    first = pieces[0]
    whole = all(piece.lost is None for piece in pieces)
    return Recording(
        spikes={name: Spikes.cat([p.spikes[name] for p in pieces]) for name in first.spikes},
        traces={name: torch.cat([p.traces[name] for p in pieces]) for name in first.traces},
        cost=total([piece.cost for piece in pieces]),
        health=sum((piece.health for piece in pieces), Health()),
        lost=None if whole else torch.cat([_lost(piece) for piece in pieces]),
        clock=first.clock,
    )


def total(costs: Sequence[Cost]) -> Cost:
    """Return the sum of costs; unknown energy stays unknown."""
    energies = [cost.energy for cost in costs]
    known = [energy for energy in energies if energy is not None]
    return Cost(
        sum(cost.chip_time for cost in costs),
        sum(known) if len(known) == len(energies) else None,
        "measured" if all(cost.origin == "measured" for cost in costs) else "estimated",
    )


def _lost(recording: Recording) -> Tensor:
    """Return the lost trials, bool `[B]`."""
    trials = len(next(iter(recording.traces.values())))
    return torch.zeros(trials, dtype=torch.bool) if recording.lost is None else recording.lost
