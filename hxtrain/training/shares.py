"""The shares of processes in a step: which samples of a batch each runs, and what it adds to the sums."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hxtrain.objectives import Loss
from hxtrain.objectives.losses import predictions
from hxtrain.rules import Step

from .parallel import Team


class StepSums(NamedTuple):
    """Sums over the samples of a step, which processes add up; a positive `stop` or `failed` ends all of them."""

    samples: float
    loss: float
    correct: float
    hidden_spikes: float
    dropped_spikes: float = 0.0
    retries: float = 0.0
    stop: float = 0.0
    failed: float = 0.0

    def means(self) -> dict[str, float]:
        """Return loss, accuracy and hidden spikes per sample."""
        loss, correct, spikes = (value / self.samples for value in (self.loss, self.correct, self.hidden_spikes))
        return {"loss": loss, "accuracy": correct, "hidden_spikes": spikes}


def shared_part(team: Team, count: int) -> tuple[int, int, float]:
    """Return the first and the last (exclusive) sample of this process in a batch, and their share of the batch.

    In a batch of fewer samples than processes, some processes repeat a sample, which gets a share of 0.
    """
    first, last = team.part(count)
    if first == last:
        index = min(first, count - 1)
        return index, index + 1, 0.0
    return first, last, (last - first) / count


@torch.no_grad()
def step_sums(step: Step, loss: Loss, labels: Tensor, share: float, is_stopped: bool) -> StepSums:
    """Return the sums over the samples of this process; the loss takes note of their outputs.

    Args:
        step: Step of this process.
        loss: Loss that turns outputs into answers.
        labels: True classes `[B]`.
        share: Share of the batch; the samples of a share of 0 do not count.
        is_stopped: Whether the training is to end after this step.
    """
    output = loss.read(step.activity)
    answers = predictions(loss.scores(output))
    correct = float((answers == labels.to(answers.device)).sum())
    loss.observe(output, labels)
    health = step.activity.health
    n_counted = len(labels) * (share > 0)
    return StepSums(
        n_counted,
        step.loss * n_counted,
        correct * (share > 0),
        step.activity.hidden_spikes() * (share > 0),
        health.dropped_spikes,
        health.retries,
        float(is_stopped),
    )
