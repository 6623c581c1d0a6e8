"""Print what a linear classifier makes of the spoken digits: of counts per channel, and per channel and period.

    python tests/audio/rate_baseline.py              # test part
    python tests/audio/rate_baseline.py 2 11         # speakers 2 and 11, held out from training to choose settings

Counts per channel are all that a network without a sense of time could use; the periods add the time course. Softmax
regression by Adam on `log(1 + count)`, standardised; 300 steps on all samples, weight decay 1e-4.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from hxtrain.datasets import load_dataset
from hxtrain.datasets.events import EventSamples
from hxtrain.datasets.holdout import hold_out_groups

PERIODS = (1, 10)
DURATION = 1.2
"""Time that the periods divide (s); later spikes count in the last one."""
STEPS = 300


def counts(samples: EventSamples, periods: int) -> Tensor:
    """Return `log(1 + count)` per channel and period [N, C * periods]."""
    events = samples.events(slice(None))
    period = (events.time / DURATION * periods).long().clamp(max=periods - 1)
    place = (events.sample * events.units + events.unit) * periods + period
    return torch.bincount(place, minlength=len(samples) * events.units * periods).view(len(samples), -1).float().log1p()


def accuracies(train: EventSamples, test: EventSamples, periods: int, classes: int) -> tuple[float, float]:
    """Return the accuracy of a linear classifier on training samples and on the others."""
    inputs = counts(train, periods)
    mean = inputs.mean(0)
    deviation = inputs.std(0) + 1e-3
    torch.manual_seed(0)
    layer = torch.nn.Linear(inputs.shape[1], classes)
    optimizer = torch.optim.Adam(layer.parameters(), 1e-2, weight_decay=1e-4)
    for _ in range(STEPS):
        loss = torch.nn.functional.cross_entropy(layer((inputs - mean) / deviation), train.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scores = [
        float((layer((counts(part, periods) - mean) / deviation).argmax(1) == part.labels).float().mean())
        for part in (train, test)
    ]
    return scores[0], scores[1]


def main(speakers: list[int]) -> None:
    """Print the accuracies."""
    data = load_dataset("spoken_digits")
    if speakers:
        data = hold_out_groups(data, speakers)
    assert isinstance(data.train, EventSamples)
    assert isinstance(data.test, EventSamples)
    for periods in PERIODS:
        train, test = accuracies(data.train, data.test, periods, len(data.classes))
        print(f"{periods} periods: training {train:.1%}, {data.evaluated_on} {test:.1%}")


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
