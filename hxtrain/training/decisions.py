"""Accuracy of answers that are read before the end of the window."""

from __future__ import annotations

import torch

from hxtrain.datasets import Samples, Source
from hxtrain.datasets.encoders import Encoder, LatencyEncoder
from hxtrain.datasets.source import source as source_of
from hxtrain.network import Network
from hxtrain.objectives import Loss
from hxtrain.objectives.losses import default_loss, predictions
from hxtrain.plots.decisions import DecisionCurve

from .evaluation import check_evaluation


@torch.no_grad()
def decision_curve(
    net: Network,
    source: Source | Samples,
    loss: Loss | None = None,
    batch_size: int = 500,
    *,
    encoder: Encoder | None = None,
) -> DecisionCurve:
    """Run all samples once, and compare the answers at each time step with the labels.

    The device records the whole window; an answer at a step is that of the output up to there. With a loss of spike
    times, an answer is right once it is decided and right. The arguments are those of `evaluate`.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: The source is empty, or does not fit the network or the loss.
    """
    loss = default_loss(net) if loss is None else loss
    if isinstance(source, Samples):
        source = source_of(source, encoder or LatencyEncoder(), torch_device=net.torch_device)
    check_evaluation(net, source, loss, batch_size)
    delay = 1 if loss.reads == "spikes" else 0
    steps = (torch.arange(net.steps, dtype=torch.float64) + delay) * net.dt
    correct = torch.zeros(net.steps, dtype=torch.long)
    times = []
    for indices in torch.split(torch.arange(len(source)), batch_size):
        labels = source.labels[indices]
        output = loss.read(net(source.spikes(indices).to(net.torch_device)))
        decided = loss.decision_times(output, net.dt).cpu().double()
        times.append(decided)
        if output.ndim == 3:
            first = net.steps - len(output)
            answers = torch.stack([predictions(loss.scores(output[: k + 1])).cpu() for k in range(len(output))])
            correct[first:] += (answers == labels).sum(1)
        else:
            is_right = predictions(loss.scores(output)).cpu() == labels
            correct += (is_right & (decided <= steps[:, None])).sum(1)
    accuracies = correct.double() / len(source)
    decisions = torch.cat(times)
    return DecisionCurve(
        times=steps,
        accuracies=accuracies,
        accuracy=float(accuracies[-1]),
        decision_time=float(decisions.mean()),
        decision_time_95=float(decisions.quantile(0.95)),
    )
