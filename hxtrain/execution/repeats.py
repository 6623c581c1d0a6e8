"""Repeats of a run: trials that arrived whole are kept, missing ones run again."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hxtrain.backends import Cost, DeviceError, Health, Recording, Spikes, Stimulus, total

MAX_NAMES = 8
"""Number of missing trials that a text names."""


class Arrivals:
    """The trials of one run that have arrived, out of `B`.

    Args:
        stimulus: all trials of the run.
        independent: whether a trial does not depend on earlier ones; if it does, repeats begin with the first trial.

    Attributes:
        missing: mask of the trials that have not arrived whole, bool `[B]`.
    """

    def __init__(self, stimulus: Stimulus, independent: bool) -> None:
        self.stimulus = stimulus
        self.independent = independent
        self.missing = torch.ones(stimulus.spikes.samples, dtype=torch.bool)
        self._recording: Recording | None = None
        self._costs: list[Cost] = []
        self._trials = 0
        self._failed_trials = 0
        self._health = Health()

    def next_part(self) -> Stimulus:
        """Return the stimulus to run next: from the first missing trial to the last, at their time on the clock."""
        if self._recording is None:
            return self.stimulus
        rows = self.missing.nonzero()[:, 0].tolist()
        return _stretch(self.stimulus, rows[0] if self.independent else 0, rows[-1] + 1)

    def take(self, part: Stimulus, outcome: Recording | DeviceError) -> DeviceError | None:
        """Take the outcome of a part, and return its error, if it is one."""
        if isinstance(outcome, DeviceError):
            self.fail(part)
            return outcome
        self.add(part, outcome)
        return None

    def fail(self, part: Stimulus) -> None:
        """Count the trials of a part of which nothing arrived."""
        self._failed_trials += part.spikes.samples

    def add(self, part: Stimulus, recording: Recording) -> None:
        """Add the trials of a part that arrived whole and were missing."""
        first = part.clock - self.stimulus.clock
        trials = part.spikes.samples
        if part is self.stimulus and recording.lost is None:  # the usual case
            self._recording = recording
            self.missing = torch.zeros_like(self.missing)
            self._count(recording, trials)
            return
        arrived = torch.zeros_like(self.missing)
        arrived[first : first + trials] = True if recording.lost is None else ~recording.lost.cpu()
        mask = self.missing & arrived
        self._recording = recording if self._recording is None else _fill(self._recording, recording, mask, first)
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
        """Return the whole recording, with the cost and the losses of all attempts.

        An attempt that ended in an error has no cost; each of its trials is charged the mean cost of the others.
        """
        assert self._recording is not None  # the recording is whole
        if repeats == 0:
            return self._recording
        cost = total(self._costs)
        if self._failed_trials:
            share = 1 + self._failed_trials / self._trials
            energy = None if cost.energy is None else cost.energy * share
            cost = Cost(cost.chip_time * share, energy, "estimated")
        return replace(self._recording, cost=cost, health=self._health + Health(retries=repeats), lost=None)

    def describe(self, error: DeviceError | None) -> str:
        """Return a text about the last attempt and the missing trials.

        Args:
            error: error of the last attempt; None if it ran.
        """
        rows = self.missing.nonzero()[:, 0].tolist()
        names = ", ".join(map(str, rows[:MAX_NAMES])) + (", ..." if len(rows) > MAX_NAMES else "")
        kind = "trial" if len(rows) == 1 else "trials"
        text = f"{len(rows)} of {len(self.missing)} trials did not arrive whole ({kind} {names} of the run)"
        if error is None:
            return text
        return str(error) if self._recording is None else f"{error}; {text}"


def _stretch(stimulus: Stimulus, first: int, last: int) -> Stimulus:
    """Return the trials from `first` up to, not including, `last`."""
    return replace(stimulus, spikes=stimulus.spikes.stretch(first, last), clock=stimulus.clock + first)


def _fill(recording: Recording, repeat: Recording, mask: Tensor, first: int) -> Recording:
    """Replace the trials in `mask` (bool `[B]`) by those of a repeat, whose trial 0 is trial `first`."""
    traces = {name: _fill_codes(codes, repeat.traces[name], mask, first) for name, codes in recording.traces.items()}
    spikes = {name: _fill_spikes(old, repeat.spikes[name], mask, first) for name, old in recording.spikes.items()}
    return replace(recording, traces=traces, spikes=spikes)


def _fill_codes(codes: Tensor, repeat: Tensor, mask: Tensor, first: int) -> Tensor:
    rows = mask.nonzero()[:, 0].to(codes.device)
    return codes.index_copy(0, rows, repeat.index_select(0, rows - first))


def _fill_spikes(spikes: Spikes, repeat: Spikes, mask: Tensor, first: int) -> Spikes:
    sample = repeat.sample + first
    mask = mask.to(spikes.sample.device)
    old = ~mask[spikes.sample]
    new = mask[sample]
    return Spikes.from_events(
        torch.cat([spikes.sample[old], sample[new]]),
        torch.cat([spikes.unit[old], repeat.unit[new]]),
        torch.cat([spikes.time[old], repeat.time[new]]),
        spikes.samples,
        spikes.units,
    )
