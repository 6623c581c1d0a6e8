"""Speed of learning rules: an epoch of 16x16 MNIST by each rule, beside surrogate gradients on the same network.

Rules are timed in turns in one process. Each one trains the first network that it takes, with its own optimiser:
256-246-10 with a readout, with a spiking output, or 256-10 with a spiking output. The loss is the usual one of the
output, or the first registered one with which the rule makes a step. Every turn begins with the same weights, so that
the activity stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hxtrain.backends import Backend, Spikes, create_backend
from hxtrain.datasets import load_dataset
from hxtrain.execution import device_of
from hxtrain.network import Network
from hxtrain.objectives import LOSSES, Burst, Loss
from hxtrain.objectives.losses import default_loss
from hxtrain.rules import RULES, Batch, LearningRule, Need, Objective, default_optimizer, learn, require_fit
from hxtrain.runs.metrics import write_json
from hxtrain.runs.process import tuned
from hxtrain.runs.versions import versions

from .config import BenchConfig
from .rounds import Report, Spread, in_turns, ratios, spread
from .workload import RATE, Workload

REFERENCE = "backprop"
CLASSES = 10
TARGET = 1.5e-5
"""Time of a target spike (s)."""
SAMPLES = 1000
"""Images of a turn."""
BATCH = 100
"""Samples of a step."""
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "256-246-10, readout": {"output": "membranes"},
    "256-246-10, spikes": {"output": "spikes"},
    "256-10, spikes": {"hidden": [], "output": "spikes"},
}
"""Settings of the networks by name, in the order in which a rule is offered them."""
GRADIENT_LIMIT = 2.0
LOCAL_LIMIT = 1.0
"""Largest time of an epoch, relative to surrogate gradients, that is aimed at."""


class Training(NamedTuple):
    """A rule on a network: what a turn runs.

    Attributes:
        rule: Name of the rule.
        network: Name of the network.
        place: Name of the device.
    """

    rule: str
    network: str
    place: str


class Refusal(NamedTuple):
    """A rule that trains none of the networks on a device, and the reason of each network."""

    rule: str
    place: str
    reason: str


class RuleTiming(NamedTuple):
    """Time of an epoch (s) by a rule, and its ratio to that of surrogate gradients in the same round."""

    training: Training
    epoch: float
    ratio: Spread

    @property
    def limit(self) -> float:
        """Largest ratio that is aimed at."""
        return LOCAL_LIMIT if RULES[self.training.rule].is_local else GRADIENT_LIMIT


def bench_rules(
    config: BenchConfig, folder: Path, command: str, report: Report = lambda count, total: None
) -> tuple[list[RuleTiming], list[Refusal]]:
    """Time an epoch by every registered rule that can train one of the networks; write `bench_rules.json`.

    Args:
        config: All settings; `torch_device` and `batch` have no effect.
        folder: Folder of `bench_rules.json`.
        command: Command that started the benchmark, for the record.
        report: Called with the number of finished rounds and the number of all rounds.

    Returns:
        The timings, and the refusals of rules without one.
    """
    with tuned(config.threads), ExitStack() as stack:
        load = Workload(stack, SAMPLES)
        places: dict[str, Callable[[], Backend | None]] = {
            "software": lambda: None,
            "calibrated emulated chip": lambda: create_backend("emulator", chip=config.chip.name),
        }
        works: dict[Training, Callable[[], object]] = {}
        refusals: list[Refusal] = []
        for place, backend in places.items():
            for name in [REFERENCE, *(name for name in RULES.names() if name != REFERENCE)]:
                try:
                    network, work = _training(load, name, backend)
                except ValueError as error:
                    refusals.append(Refusal(name, place, str(error)))
                    continue
                works[Training(name, network, place)] = work
        for training in [*works]:
            reference = training._replace(rule=REFERENCE)
            if reference not in works:
                backend = places[training.place]
                works[reference] = _on_network(load, REFERENCE, training.network, backend)
        times = in_turns(works, config.rounds, report)
    epoch = len(load_dataset("mnist").train) / SAMPLES
    timings = [
        RuleTiming(training, epoch * spread(times[training]).middle, _ratio(times, training)) for training in times
    ]
    content = {
        "rules": [*map(_plain, timings)],
        "refusals": [refusal._asdict() for refusal in refusals],
        "chip": config.chip.name,
        "rounds": config.rounds,
    }
    write_json(folder / "bench_rules.json", {**content, "command": command, "versions": versions()})
    return timings, refusals


def rule_rows(timings: list[RuleTiming]) -> list[tuple[str, ...]]:
    """Return the table: device, network, rule, time of an epoch, ratio with quartiles, and the limit."""
    ordered = sorted(timings, key=lambda t: (t.training.place, t.training.network, t.ratio.middle))
    return [
        (
            t.training.place,
            t.training.network,
            t.training.rule,
            f"{t.epoch:.2f} s",
            f"{t.ratio.middle:.2f}",
            f"{t.ratio.low:.2f}..{t.ratio.high:.2f}",
            "reference" if t.training.rule == REFERENCE else f"{t.limit:g}",
        )
        for t in ordered
    ]


def _training(load: Workload, name: str, backend: Callable[[], Backend | None]) -> tuple[str, Callable[[], object]]:
    """Return the first network that a rule takes, and its turn.

    Raises:
        ValueError: The rule takes none of the networks; the text has the reason of each.
    """
    reasons = []
    for network in NETWORKS:
        try:
            return network, _on_network(load, name, network, backend)
        except ValueError as error:
            reasons.append(f"{network}: {' '.join(str(error).split())}")
    raise ValueError("; ".join(reasons))


def _on_network(load: Workload, name: str, network: str, backend: Callable[[], Backend | None]) -> Callable[[], object]:
    """Return the turn of a rule on a network, with the first loss with which it makes a step.

    Raises:
        ValueError: The rule makes a step with no loss; the text is the first reason.
    """
    net = load.network(backend(), **NETWORKS[network])
    device = device_of(net)
    require_fit(RULES[name](), net, None if device is None else device.backend.capabilities)
    reasons: list[ValueError] = []
    for loss in _losses(net):
        try:
            rule = _prepared(RULES[name](), net, loss)
            work = _turn(load, net, rule)
            learn(net, rule, default_optimizer(rule).build(net.parameters(), RATE), _batches(load)[0])
        except ValueError as error:
            reasons.append(error)
        else:
            return work
    raise reasons[0]


def _losses(net: Network) -> Iterator[Loss]:
    """Yield the usual loss of a network's output, then all others that read it and need no settings."""
    usual = default_loss(net)
    yield usual
    for kind in LOSSES.values():
        if kind.reads == net.output_kind and kind is not type(usual):
            yield kind()


def _prepared(rule: LearningRule, net: Network, loss: Loss) -> LearningRule:
    targets = _targets()
    loss.prepare(CLASSES, targets)
    penalties = [Burst()] if Need.PENALTIES in rule.needs and len(net.layers) > 1 else []
    rule.prepare(net, Objective(loss, penalties, targets=targets))
    return rule


def _targets() -> Spikes:
    """Return target spike trains, for the rules that need some: the neuron of each class fires once."""
    return Spikes.from_times(torch.full([CLASSES, CLASSES], torch.inf).fill_diagonal_(TARGET))


def _batches(load: Workload) -> list[Batch]:
    spikes = load.spikes.split(BATCH)
    return [Batch(*part) for part in zip(spikes, torch.split(load.labels, BATCH), strict=True)]


def _turn(load: Workload, net: Network, rule: LearningRule) -> Callable[[], object]:
    """Return a function that trains on all images, from the same weights each time."""
    optimizer = default_optimizer(rule).build(net.parameters(), RATE)
    weights = {name: weight.clone() for name, weight in net.state_dict().items()}
    batches = _batches(load)

    def work() -> None:
        net.load_state_dict(weights)
        for batch in batches:
            learn(net, rule, optimizer, batch)

    return work


def _ratio(times: dict[Training, list[float]], training: Training) -> Spread:
    return ratios(times[training], times[training._replace(rule=REFERENCE)])


def _plain(timing: RuleTiming) -> dict[str, object]:
    return {
        **timing.training._asdict(),
        "epoch": timing.epoch,
        "ratio": timing.ratio._asdict(),
        "limit": timing.limit,
        "is_local": RULES[timing.training.rule].is_local,
    }
