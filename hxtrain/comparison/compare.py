r"""Two targets compared: the same weights and the same input spikes on two devices, or a device and the twin.

Each layer is compared in two ways. Its *outcome* (spikes, membranes: `OUTCOME`) also depends on the upstream layers.
Its *response to the spikes that it measurably received* (`RESPONSE`, see `response`) does not, and therefore shows
which layers differ themselves. One target runs twice: a layer disagrees if the difference between the targets exceeds
both a tolerance and a multiple of the difference between the repetitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from torch import Tensor

from hxtrain.backends import Health, Spikes
from hxtrain.execution import Device
from hxtrain.network import Network
from hxtrain.objectives import Loss

from .difference import Difference, cosine, difference, neuron_rates
from .passes import LayerPass, Pass, run_pass
from .response import Response, first_spikes

OUTCOME = ("trace", "only_one", "first_spike")
"""Differences in the outcome of a layer, by their names in `Difference` and `Tolerance`."""
RESPONSE = ("gain", "threshold", "residual")
"""Differences in the response of a layer to its input."""


@dataclass
class Tolerance:
    """Largest differences at which a layer still agrees, see `Difference`.

    With the defaults, two ideal devices of different time resolution agree (the reference device stamps spikes
    0.4 us early, the emulated chip's ideal preset to 8 ns), in networks of up to about one spike per sample
    and neuron.

    Attributes:
        trace: difference of the traces (threshold - leak).
        only_one: share of pairs that fired in exactly one pass.
        first_spike: magnitude of the median difference of first spikes (s).
        gain: difference of the gains, in units of gain 1.
        threshold: difference of the thresholds (threshold - leak).
        residual: difference of the residuals (threshold - leak).
        multiple: limit in units of the difference between two passes on one target.
    """

    trace: float = 0.15
    only_one: float = 0.05
    first_spike: float = 0.85e-6
    gain: float = 0.05
    threshold: float = 0.15
    residual: float = 0.05
    multiple: float = 3.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                raise ValueError(f"tolerance.{name}={value} must not be negative")

    def exceeded(self, between: Difference, repeat: Difference) -> tuple[str, ...]:
        """Return the names of the differences that exceed the tolerance."""
        return tuple(
            name for name in OUTCOME + RESPONSE if self._exceeds(name, getattr(between, name), getattr(repeat, name))
        )

    def _exceeds(self, name: str, between: float | None, repeat: float | None) -> bool:
        limit = max(getattr(self, name), self.multiple * abs(repeat or 0.0))
        return between is not None and not abs(between) <= limit


class Example(NamedTuple):
    """Membranes `[T]` of one neuron in one sample: on both targets, and repeated on the target that ran twice."""

    sample: int
    neuron: int
    first: Tensor
    second: Tensor
    repeat: Tensor


@dataclass(frozen=True)
class LayerComparison:
    """A layer on both targets; a pair is (first, second).

    Attributes:
        name: name of the layer.
        rates: mean spikes per sample of each neuron, two tensors `[N]`; None for a readout.
        responses: responses of the layer, relative to the model with its measured input.
        between: difference of the second target from the first.
        repeat: difference between two passes on one target.
        exceeded: names of the differences in `between` that exceed the tolerance.
        example: neuron and sample whose difference of membranes is the median, among pairs that fired on
            any target (in a readout, among all pairs).
    """

    name: str
    rates: tuple[Tensor, Tensor] | None
    responses: tuple[Response, Response]
    between: Difference
    repeat: Difference
    exceeded: tuple[str, ...]
    example: Example

    @property
    def agrees(self) -> bool:
        """Return whether the layer's outcome is the same on both targets, within the tolerance."""
        return not set(self.exceeded) & set(OUTCOME)

    @property
    def responds_alike(self) -> bool:
        """Return whether the layer responds to its input equally on both targets, within the tolerance."""
        return not set(self.exceeded) & set(RESPONSE)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "spikes_per_sample_and_neuron": None if self.rates is None else [float(r.mean()) for r in self.rates],
            "agrees": self.agrees,
            "responds_alike": self.responds_alike,
            "exceeded": list(self.exceeded),
            "between": _scalars(self.between),
            "repeat": _scalars(self.repeat),
            "responses": [{name: getattr(r, name) for name in RESPONSE} for r in self.responses],
        }


class Similarity(NamedTuple):
    """Similarity of the two targets, and of two passes on one target; None if it is not defined."""

    between: float | None
    repeat: float | None


@dataclass(frozen=True)
class Comparison:
    """Result of a comparison of two targets with the same weights and the same input.

    Attributes:
        layers: comparison of each layer, in the network's order.
        gradients: cosine of the loss's gradients in the weights of each learned projection, by name.
        same_answers: share of samples with the same answer.
        accuracies: share of correct answers (first, second); None without labels.
        samples: number of samples `B`.
        repeated: target that ran twice, `first` or `second`.
        dt: time between two membrane samples (s).
        tolerance: largest differences at which a layer agrees.
        health: losses and retries of all three passes.
    """

    layers: tuple[LayerComparison, ...]
    gradients: Mapping[str, Similarity]
    same_answers: Similarity
    accuracies: tuple[float, float] | None
    samples: int
    repeated: str
    dt: float
    tolerance: Tolerance
    health: Health

    @property
    def first_disagreeing(self) -> str | None:
        """Return the first layer with a different outcome; downstream layers inherit the difference."""
        return next((layer.name for layer in self.layers if not layer.agrees), None)

    @property
    def responding_differently(self) -> list[str]:
        """Return the layers that respond differently to the spikes that they received."""
        return [layer.name for layer in self.layers if not layer.responds_alike]

    @property
    def verdict(self) -> str:
        """Return a line about the first layer that disagrees and the layers with different responses."""
        first = next((layer for layer in self.layers if not layer.agrees), None)
        differing = [f"{layer.name} ({_reasons(layer, RESPONSE)})" for layer in self.layers if not layer.responds_alike]
        text = "no layer disagrees beyond tolerance and noise"
        if first is not None:
            text = f"{first.name} is the first layer that disagrees ({_reasons(first, OUTCOME)})"
        return f"{text}; own response differs in {', '.join(differing) or 'no layer'}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "verdict": self.verdict,
            "first_disagreeing": self.first_disagreeing,
            "responding_differently": self.responding_differently,
            "samples": self.samples,
            "accuracies": None if self.accuracies is None else list(self.accuracies),
            "same_answers": self.same_answers._asdict(),
            "gradient_cosines": {name: pair._asdict() for name, pair in self.gradients.items()},
            "layers": {layer.name: layer.as_dict() for layer in self.layers},
            "repeated": self.repeated,
            "tolerance": vars(self.tolerance).copy(),
        }


def compare(
    net: Network,
    first: Device | None,
    second: Device | None,
    spikes: Spikes,
    loss: Loss,
    labels: Tensor | None = None,
    tolerance: Tolerance | None = None,
) -> Comparison:
    """Run a network on two targets and compare the passes.

    The first target runs twice, at consecutive times on its clock. If it is the twin, which repeats itself exactly, the
    second target runs twice. Spikes after the recorded window are left out. The twin's spikes lie on the grid of time
    steps: if one target is the twin, first-spike times of both are floored to the grid. Responses are relative to a
    model with the host's float weights, so rounding and clipping count as differences of the device. All samples form
    one batch, whose membranes stay in memory. There is no dropout, `.grad` is not changed, and the network is attached
    to its previous device at the end.

    Args:
        net: network to run.
        first: open device; None for the twin.
        second: open device; None for the twin.
        spikes: input of `B` samples.
        loss: loss that defines the answers and the gradients.
        labels: true classes `[B]`; None: the gradient is for the first target's answers.
        tolerance: largest differences at which a layer agrees; None for the defaults.

    Raises:
        ValueError: there are no samples, or the number of labels differs.
        PlacementError: the network does not fit one of the devices.
        DeviceError: a run failed.
    """
    if not spikes.samples:
        raise ValueError("there are no samples to compare; give at least one")
    if labels is not None and len(labels) != spikes.samples:
        raise ValueError(f"{len(labels)} labels for {spikes.samples} samples; give one for each")
    tolerance = tolerance or Tolerance()
    with _restored_device(net):
        net.attach(first)
        first_pass = run_pass(net, spikes, loss, labels)
        classes = first_pass.answers if labels is None else labels
        repeat = None if first is None else run_pass(net, spikes, loss, classes)
        net.attach(second)
        second_pass = run_pass(net, spikes, loss, classes)
        repeated = (second_pass, run_pass(net, spikes, loss, classes)) if repeat is None else (first_pass, repeat)
    pairs = ((first_pass, second_pass), repeated)
    return Comparison(
        layers=tuple(_compare_layer(net, place, pairs, tolerance) for place in range(len(net.layers))),
        gradients={
            name: Similarity(*(cosine(a.gradients[name], b.gradients[name]) for a, b in pairs))
            for name in first_pass.gradients
        },
        same_answers=Similarity(*(_share(a.answers, b.answers) for a, b in pairs)),
        accuracies=None
        if labels is None
        else (_share(first_pass.answers, labels), _share(second_pass.answers, labels)),
        samples=spikes.samples,
        repeated="second" if repeat is None else "first",
        dt=net.dt,
        tolerance=tolerance,
        health=first_pass.health + second_pass.health + repeated[1].health,
    )


@contextmanager
def _restored_device(net: Network) -> Iterator[None]:
    """Attach the network to its previous device at the end."""
    previous = net.device
    try:
        yield
    finally:
        net.attach(previous)


def _compare_layer(
    net: Network, place: int, pairs: tuple[tuple[Pass, Pass], tuple[Pass, Pass]], tolerance: Tolerance
) -> LayerComparison:
    """Compare the layer with index `place`: between the targets, and between the repetitions."""
    (first, second), (_, repetition) = pairs
    grid = net.dt if first.in_software != second.in_software else None
    between, repeat = (difference(a.layers[place], b.layers[place], grid) for a, b in pairs)
    a, b = first.layers[place], second.layers[place]
    rates = None
    if a.spikes is not None and b.spikes is not None:
        rates = neuron_rates(a.spikes), neuron_rates(b.spikes)
    return LayerComparison(
        name=net.layers[place].name,
        rates=rates,
        responses=(a.response, b.response),
        between=between,
        repeat=repeat,
        exceeded=tolerance.exceeded(between, repeat),
        example=_example(a, b, repetition.layers[place]),
    )


def _example(first: LayerPass, second: LayerPass, repeat: LayerPass) -> Example:
    """Return the neuron and sample whose difference is the median."""
    distances = (second.trace - first.trace).square().sum(0)
    if first.spikes is not None and second.spikes is not None:
        active = first_spikes(first.spikes).isfinite() | first_spikes(second.spikes).isfinite()
        distances = distances.where(active, -1.0)  # the smallest value, first in the order
    order = distances.flatten().argsort(stable=True)
    counted = max(int((distances >= 0).sum()), 1)
    sample, neuron = divmod(int(order[len(order) - (counted + 1) // 2]), distances.shape[1])
    return Example(sample, neuron, *(layer.trace[:, sample, neuron].cpu() for layer in (first, second, repeat)))


def _share(answers: Tensor, labels: Tensor) -> float:
    """Return the share of equal answers."""
    return float((answers.cpu() == labels.cpu()).double().mean())


def _reasons(layer: LayerComparison, names: tuple[str, ...]) -> str:
    """Return a text of the differences that exceed the tolerance, each with the difference of the repetition."""
    texts = []
    for name in names:
        if name in layer.exceeded:
            values = (getattr(layer.between, name), getattr(layer.repeat, name) or 0.0)
            a, b = (f"{1e6 * v:.2g} us" if name == "first_spike" else f"{v:.2g}" for v in values)
            texts.append(f"{name} {a} against {b}")
    return "; ".join(texts)


def _scalars(values: Difference) -> dict[str, float | None]:
    return {f.name: getattr(values, f.name) for f in fields(values) if f.name != "first_spikes"}
