"""Repeats of a run: trials that arrived whole are kept, the others are asked for again."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hxtrain.backends import Cost, DeviceError, Health, Recording, Spikes, Stimulus, total

SHOWN = 8
"""Missing trials that a text names."""


class Arrivals:
    """What has arrived of one run of `B` trials.

    Args:
        stimulus: all its trials.
        independent: whether a trial is the same without those before it; else repeats begin with the first.

    Attributes:
        missing: trials that have not arrived whole, bool `[B]`.
    """

    def __init__(self, stimulus: Stimulus, independent: bool) -> None:
        self.stimulus, self.independent = stimulus, independent
        self.missing = torch.ones(stimulus.spikes.samples, dtype=torch.bool)
        self._recording: Recording | None = None
        self._costs: list[Cost] = []
        self._trials, self._trials_in_vain = 0, 0
        self._health = Health()

    def wanted(self) -> Stimulus:
        """Return what to run next: from the first missing trial to the last, at their place on the clock."""
        if self._recording is None:
            return self.stimulus
        rows = self.missing.nonzero()[:, 0].tolist()
        return _stretch(self.stimulus, rows[0] if self.independent else 0, rows[-1] + 1)

    def fail(self, part: Stimulus) -> None:
        """Note that nothing arrived of a part."""
        self._trials_in_vain += part.spikes.samples

    def add(self, part: Stimulus, recording: Recording) -> None:
        """Take what arrived whole of a part and was missing."""
        first, trials = part.clock - self.stimulus.clock, part.spikes.samples
        if part is self.stimulus and recording.lost is None:  # the usual case
            self._recording, self.missing = recording, torch.zeros_like(self.missing)
            self._count(recording, trials)
            return
        arrived = torch.zeros_like(self.missing)
        arrived[first : first + trials] = True if recording.lost is None else ~recording.lost.cpu()
        taken = self.missing & arrived
        self._recording = recording if self._recording is None else _fill(self._recording, recording, taken, first)
        self.missing = self.missing & ~arrived
        self._count(recording, trials)

    def _count(self, recording: Recording, trials: int) -> None:
        self._costs.append(recording.cost)
        self._trials += trials
        self._health = self._health + recording.health

    def whole(self) -> bool:
        """Return whether all trials have arrived."""
        return not bool(self.missing.any())

    def result(self, repeats: int) -> Recording:
        """Return the whole recording, with the cost of all attempts and the losses that were met.

        An attempt that ended in an error told no cost; it is charged, per trial, what the others cost.
        """
        assert self._recording is not None  # it is whole
        if repeats == 0:
            return self._recording
        cost = total(self._costs)
        if self._trials_in_vain:
            share = 1 + self._trials_in_vain / self._trials
            energy = None if cost.energy is None else cost.energy * share
            cost = Cost(cost.chip_time * share, energy, "estimated")
        return replace(self._recording, cost=cost, health=self._health + Health(retries=repeats), lost=None)

    def describe(self, error: DeviceError | None) -> str:
        """Say what went wrong last (`error`; None: it ran), and which trials are missing if not all are."""
        rows = self.missing.nonzero()[:, 0].tolist()
        shown = ", ".join(map(str, rows[:SHOWN])) + (", ..." if len(rows) > SHOWN else "")
        kind = "trial" if len(rows) == 1 else "trials"
        text = f"{len(rows)} of {len(self.missing)} trials did not arrive whole ({kind} {shown} of the run)"
        if error is None:
            return text
        return str(error) if self._recording is None else f"{error}; {text}"


def _stretch(stimulus: Stimulus, first: int, last: int) -> Stimulus:
    """Return the trials from `first` to before `last`."""
    return replace(stimulus, spikes=stimulus.spikes.stretch(first, last), clock=stimulus.clock + first)


def _fill(held: Recording, repeat: Recording, taken: Tensor, first: int) -> Recording:
    """Replace the trials `taken` (bool `[B]`) by those of a repeat, whose trial 0 is trial `first`."""
    traces = {name: _fill_codes(codes, repeat.traces[name], taken, first) for name, codes in held.traces.items()}
    spikes = {name: _fill_spikes(found, repeat.spikes[name], taken, first) for name, found in held.spikes.items()}
    return replace(held, traces=traces, spikes=spikes)


def _fill_codes(held: Tensor, repeat: Tensor, taken: Tensor, first: int) -> Tensor:
    rows = taken.nonzero()[:, 0].to(held.device)
    return held.index_copy(0, rows, repeat.index_select(0, rows - first))


def _fill_spikes(held: Spikes, repeat: Spikes, taken: Tensor, first: int) -> Spikes:
    sample, taken = repeat.sample + first, taken.to(held.sample.device)
    kept, new = ~taken[held.sample], taken[sample]
    return Spikes.from_events(
        torch.cat([held.sample[kept], sample[new]]),
        torch.cat([held.unit[kept], repeat.unit[new]]),
        torch.cat([held.time[kept], repeat.time[new]]),
        held.samples,
        held.units,
    )
