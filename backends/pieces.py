"""Recordings of consecutive trials, and how they are joined."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .circuit import Circuit
from .recording import Cost, Health, Recording
from .spikes import Spikes


def nothing(circuit: Circuit, device: torch.device) -> Recording:
    """Return the recording of no trials, with tensors on a device."""
    empty = torch.zeros(0, dtype=torch.int64, device=device)
    codes = empty.to(torch.uint8)
    return Recording(
        spikes={p.name: Spikes(empty, empty, empty.float(), 0, p.size) for p in circuit.spiking},
        traces={p.name: codes.view(0, circuit.samples, p.size) for p in circuit.traced},
        cost=total([]),
    )


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
    values = [energy for energy in energies if energy is not None]
    return Cost(
        sum(cost.chip_time for cost in costs),
        sum(values) if len(values) == len(energies) else None,
        "measured" if all(cost.origin == "measured" for cost in costs) else "estimated",
    )


def _lost(recording: Recording) -> Tensor:
    """Return the lost trials, bool `[B]`."""
    traced = [len(codes) for codes in recording.traces.values()]
    trials = [*traced, *(spikes.samples for spikes in recording.spikes.values())][0]
    return torch.zeros(trials, dtype=torch.bool) if recording.lost is None else recording.lost
