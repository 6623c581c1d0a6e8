r"""Errors of an output while a trial runs, for rules that learn during it (`rules/online.py`).

The error of a step is the derivative of the loss with respect to the output `y` of this step. A loss of a whole trial
knows it only at the end, so here each step is judged by the scores `z` up to it, with the softmax p and the label's
distribution q::

    mean over time     e[t] = c / T (p(c z[t]) - q)                z[t] = mean of y[0..t], or from a start on
    numbers of spikes  e[t] = c (p(c z[t]) - q)                    z[t] = sum of y[0..t]
    squared numbers    e[t] = 2 / C (z[t] - target (t + 1) / T)    z[t] = sum of y[0..t]
    max over time      e[t] = c (p(c z[t + 1]) - q)  where y[t] is a peak above all earlier ones, else 0
                                                                   z[t] = max of y[0..t]

At the end of the trial the scores are those of the loss, so the last error is exact. A peak is known a step later, when
the output falls, or at the end of the trial (`lag`). An output with a single peak has it where its maximum is; of
several peaks, each higher than the one before, all but the last are judged in addition.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


class Grid(NamedTuple):
    """Time grid of a trial.

    Attributes:
        steps: Number of steps.
        dt: Width of a step (s).
    """

    steps: int
    dt: float


class OnlineErrors(ABC):
    """Base: errors of the output of a batch of trials, a window of time steps at a time.

    Attributes:
        lag: Steps after which the error of a step is known.
    """

    lag: ClassVar[int] = 0

    @abstractmethod
    def observe(self, output: Tensor, is_end: bool) -> Tensor:
        """Return the errors of the next steps, the derivative of the mean loss of the batch.

        They belong to the `lag` steps that the previous call left, and to all but the last `lag` steps of this one; at
        the end of the trials to all steps.

        Args:
            output: Output of the next steps `[W, B, C]`.
            is_end: Whether the trials end with them.
        """

    @abstractmethod
    def loss(self) -> float:
        """Return the mean loss of the trials up to the last step."""


class SoftmaxErrors(OnlineErrors):
    """Base: errors of the cross-entropy of scores that the output sums up step by step.

    Args:
        labels: True classes, int64 `[B]`.
        scale: Factor on the scores before the softmax.
        smoothing: Share of probability spread over all classes.
        steps: Number of steps of a trial.
    """

    def __init__(self, labels: Tensor, scale: float, smoothing: float, steps: int) -> None:
        self.labels = labels
        self.scale = scale
        self.smoothing = smoothing
        self.steps = steps
        self.scores: Tensor | None = None

    def observe(self, output: Tensor, is_end: bool) -> Tensor:
        """Return the errors of the next steps, see `OnlineErrors`."""
        if self.scores is None:
            self.start(output)
        return self.advance(output, is_end).mul_(self.scale / output.shape[1])

    def start(self, output: Tensor) -> None:
        """Set the state of the trials to their start."""
        self.scores = torch.zeros_like(output[0])
        classes = output.shape[2]
        self.target = torch.full_like(output[0], self.smoothing / classes)
        self.target.scatter_(1, self.labels[:, None], 1 - self.smoothing + self.smoothing / classes)

    @abstractmethod
    def advance(self, output: Tensor, is_end: bool) -> Tensor:
        """Return the errors of the next steps without the factors of scale and batch, and take note of the scores."""

    def surplus(self, scores: Tensor) -> Tensor:
        """Return the softmax of scores `[W, B, C]` without the label's distribution."""
        return torch.softmax(self.scale * scores, 2).sub_(self.target)

    def loss(self) -> float:
        """Return the mean cross-entropy of the scores, see `OnlineErrors`."""
        assert self.scores is not None
        return float(cross_entropy(self.scale * self.scores, self.labels, label_smoothing=self.smoothing))


class MeanErrors(SoftmaxErrors):
    """Errors of the cross-entropy of the output's mean over time.

    Args:
        labels: True classes, int64 `[B]`.
        scale: Factor on the scores before the softmax.
        smoothing: Share of probability spread over all classes.
        steps: Number of steps of a trial.
        first: First step that counts.
    """

    def __init__(self, labels: Tensor, scale: float, smoothing: float, steps: int, first: int = 0) -> None:
        super().__init__(labels, scale, smoothing, steps)
        self.first = first

    def start(self, output: Tensor) -> None:
        """Set the state of the trials to their start."""
        super().start(output)
        self.total = torch.zeros_like(output[0])
        self.count = 0

    def advance(self, output: Tensor, is_end: bool) -> Tensor:
        """Return the errors of the next steps, see `SoftmaxErrors`."""
        numbers = torch.arange(self.count, self.count + len(output), dtype=output.dtype, device=output.device)
        counts = (numbers + 1 - self.first)[:, None, None]
        totals = (output * (counts > 0)).cumsum(0).add_(self.total)
        means = totals / counts.clamp(min=1)
        self.total = totals[-1]
        self.count += len(output)
        self.scores = means[-1]
        return self.surplus(means).mul_(counts > 0).div_(self.steps - self.first)


class CountErrors(SoftmaxErrors):
    """Errors of the cross-entropy of the numbers of spikes."""

    def advance(self, output: Tensor, is_end: bool) -> Tensor:
        """Return the errors of the next steps, see `SoftmaxErrors`."""
        assert self.scores is not None
        counts = output.cumsum(0).add_(self.scores)
        self.scores = counts[-1]
        return self.surplus(counts)


class MaxErrors(SoftmaxErrors):
    """Errors of the cross-entropy of the output's maximum over time, at its peaks."""

    lag: ClassVar[int] = 1

    def start(self, output: Tensor) -> None:
        """Set the state of the trials to their start."""
        super().start(output)
        self.scores = torch.full_like(output[0], -torch.inf)
        self.pending: list[Tensor] = []  # whether the last step is above all earlier ones, and its output

    def advance(self, output: Tensor, is_end: bool) -> Tensor:
        """Return the errors of the next steps, see `SoftmaxErrors`."""
        assert self.scores is not None
        maxima = torch.cat([self.scores[None], output]).cummax(0).values
        is_record = output > maxima[:-1]
        next_output = output
        next_maxima = maxima[1:]
        if self.pending:
            is_record = torch.cat([self.pending[0][None], is_record])
            output = torch.cat([self.pending[1][None], output])
        else:
            next_output = next_output[1:]
            next_maxima = next_maxima[1:]
        if is_end:
            next_output = torch.cat([next_output, torch.full_like(output[:1], -torch.inf)])
            next_maxima = torch.cat([next_maxima, maxima[-1:]])
        self.pending = [is_record[-1], output[-1]]
        self.scores = maxima[-1]
        is_peak = is_record[: len(next_output)] & (next_output <= output[: len(next_output)])
        errors = torch.zeros_like(next_maxima)
        step, sample = is_peak.any(2).nonzero(as_tuple=True)  # few have a peak
        surplus = torch.softmax(self.scale * next_maxima[step, sample], 1).sub_(self.target[sample])
        errors[step, sample] = surplus.mul_(is_peak[step, sample])
        return errors


class SquaredCountErrors(OnlineErrors):
    """Errors of the mean squared difference of the numbers of spikes from targets, which grow in proportion to time.

    Args:
        targets: Target numbers of spikes of whole trials `[B, C]`.
        steps: Number of steps of a trial.
    """

    def __init__(self, targets: Tensor, steps: int) -> None:
        self.targets = targets
        self.steps = steps
        self.counts = torch.zeros_like(targets)
        self.count = 0

    def observe(self, output: Tensor, is_end: bool) -> Tensor:
        """Return the errors of the next steps, see `OnlineErrors`."""
        self.targets = self.targets.to(output)
        counts = output.cumsum(0).add_(self.counts.to(output))
        shares = torch.arange(self.count + 1, self.count + len(output) + 1, dtype=output.dtype, device=output.device)
        self.counts = counts[-1]
        self.count += len(output)
        return (counts - self.targets * (shares / self.steps)[:, None, None]).mul_(2 / self.targets.numel())

    def loss(self) -> float:
        """Return the mean squared difference, see `OnlineErrors`."""
        return float((self.counts - self.targets).square().mean())
