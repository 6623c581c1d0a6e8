r"""Two targets compared: the same weights and the same input spikes on two devices, or a device and the twin.

Each layer is compared twice. What it *did* (spikes, membranes: `OUTCOME`) it inherits from the layers
before it. What it *makes of the spikes that it measurably received* (`OWN`, see `response`) it does not, so
that this shows which layers are themselves different. One target runs twice: a layer disagrees where the
difference between the targets is larger than a tolerance and than a multiple of that of a repetition.
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
from hxtrain.objectives import MaxOverTime

from .difference import Difference, cosine, difference, neuron_rates
from .passes import LayerPass, Pass, run_pass
from .response import Response, first_spikes

OUTCOME = ("trace", "only_one", "first_spike")
"""Differences of what a layer did, by their names in `Difference` and `Tolerance`."""
OWN = ("gain", "threshold", "residual")
"""Differences of what a layer makes of its input."""


@dataclass
class Tolerance:
    """From which difference on a layer disagrees, see `Difference`.

    The defaults let two ideal devices agree that resolve time differently (the reference device stamps spikes
    0.4 us early, the emulated chip's ideal preset to 8 ns), on networks of up to about one spike per sample
    and neuron.

    Attributes:
        trace, residual, threshold: threshold - leak.
        only_one: share.
        first_spike: magnitude of the median (s).
        gain: of gain 1.
        multiple: of the difference between two passes on one target.
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
        """Return the names of the differences that are beyond the tolerance."""
        return tuple(
            name for name in OUTCOME + OWN if self._beyond(name, getattr(between, name), getattr(repeat, name))
        )

    def _beyond(self, name: str, between: float | None, repeat: float | None) -> bool:
        limit = max(getattr(self, name), self.multiple * abs(repeat or 0.0))
        return between is not None and not abs(between) <= limit


class Example(NamedTuple):
    """Membranes `[T]` of one neuron in one sample: on both targets, and again on the one that ran twice."""

    sample: int
    neuron: int
    first: Tensor
    second: Tensor
    again: Tensor


@dataclass(frozen=True)
class LayerComparison:
    """A layer on both targets; a pair is (first, second).

    Attributes:
        name: the layer's name.
        rates: mean spikes per sample of each neuron, two tensors `[N]`; None for a readout.
        responses: the layer against the model of its measured input.
        between: the second target's difference from the first.
        repeat: the difference of two passes on one target.
        exceeded: names of the differences in `between` that are beyond the tolerance.
        example: the neuron and sample whose membranes differ as much as the median does, among those that
            fired on any target (for a readout, among all).
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
        """Return whether the layer did the same on both, within the tolerance."""
        return not set(self.exceeded) & set(OUTCOME)

    @property
    def responds_alike(self) -> bool:
        """Return whether the layer makes the same of its input on both, within the tolerance."""
        return not set(self.exceeded) & set(OWN)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "spikes_per_sample_and_neuron": None if self.rates is None else [float(r.mean()) for r in self.rates],
            "agrees": self.agrees,
            "responds_alike": self.responds_alike,
            "exceeded": list(self.exceeded),
            "between": _scalars(self.between),
            "repeat": _scalars(self.repeat),
            "responses": [{name: getattr(r, name) for name in OWN} for r in self.responses],
        }


class Similarity(NamedTuple):
    """Of the two targets, and of two passes on one target; None where it is not defined."""

    between: float | None
    repeat: float | None


@dataclass(frozen=True)
class Comparison:
    """What two targets made of the same weights and the same input.

    Attributes:
        layers: in the network's order.
        gradients: cosine of the loss's gradients in the weights of each projection, by name.
        same_answers: share of samples with the same answer.
        accuracies: share of right answers (first, second); None without labels.
        samples: number of samples `B`.
        repeated: the target that ran twice, `first` or `second`.
        dt: time between two membrane samples (s).
        tolerance: from which difference on a layer disagrees.
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
        """Return the first layer that did something else; the layers behind it inherit that."""
        return next((layer.name for layer in self.layers if not layer.agrees), None)

    @property
    def responding_differently(self) -> list[str]:
        """Return the layers that make something else of the spikes that they received."""
        return [layer.name for layer in self.layers if not layer.responds_alike]

    @property
    def verdict(self) -> str:
        """Return one line: the first layer that disagrees, and the layers whose own response differs."""
        first = next((layer for layer in self.layers if not layer.agrees), None)
        own = [f"{layer.name} ({_reasons(layer, OWN)})" for layer in self.layers if not layer.responds_alike]
        text = "no layer disagrees beyond tolerance and noise"
        if first is not None:
            text = f"{first.name} is the first layer that disagrees ({_reasons(first, OUTCOME)})"
        return f"{text}; own response differs in {', '.join(own) or 'no layer'}"

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
    loss: MaxOverTime,
    labels: Tensor | None = None,
    tolerance: Tolerance | None = None,
) -> Comparison:
    """Run a network on two targets and say where they part.

    The first target runs twice, at consecutive places on its clock; where it is the twin, which repeats
    itself exactly, the second does. Spikes after the recorded window are left out. The twin's spikes lie on
    the grid of time steps: where it takes part, first-spike times of both are floored to the grid. The
    model that own responses are measured against has the host's float weights, so that rounding and clipping
    count as the device's. All samples are one batch, whose membranes are kept in memory. Nothing is dropped
    out, `.grad` is left alone, and afterwards the network runs where it did before.

    Args:
        net: the network.
        first, second: open devices; None for the twin.
        spikes: input of `B` samples.
        loss: how readouts become answers, and whose gradient is compared.
        labels: true classes `[B]`; None: the gradient is that of the first target's answers.
        tolerance: from which difference on a layer disagrees; None for the defaults.

    Raises:
        ValueError: there are no samples, or not one label for each.
        PlacementError: the network does not fit one of the devices.
        DeviceError: a run failed.
    """
    if not spikes.samples:
        raise ValueError("there are no samples to compare; give at least one")
    if labels is not None and len(labels) != spikes.samples:
        raise ValueError(f"{len(labels)} labels for {spikes.samples} samples; give one for each")
    tolerance = tolerance or Tolerance()
    with _put_back(net):
        net.attach(first)
        one = run_pass(net, spikes, loss, labels)
        wanted = one.answers if labels is None else labels
        again = None if first is None else run_pass(net, spikes, loss, wanted)
        net.attach(second)
        two = run_pass(net, spikes, loss, wanted)
        repeated = (two, run_pass(net, spikes, loss, wanted)) if again is None else (one, again)
    pairs = ((one, two), repeated)
    return Comparison(
        layers=tuple(_compare_layer(net, place, pairs, tolerance) for place in range(len(net.layers))),
        gradients={
            name: Similarity(*(cosine(a.gradients[name], b.gradients[name]) for a, b in pairs))
            for name in one.gradients
        },
        same_answers=Similarity(*(_share(a.answers, b.answers) for a, b in pairs)),
        accuracies=None if labels is None else (_share(one.answers, labels), _share(two.answers, labels)),
        samples=spikes.samples,
        repeated="second" if again is None else "first",
        dt=net.dt,
        tolerance=tolerance,
        health=one.health + two.health + repeated[1].health,
    )


@contextmanager
def _put_back(net: Network) -> Iterator[None]:
    """Attach the network afterwards to what it ran on before."""
    before = net.device
    try:
        yield
    finally:
        net.attach(before)


def _compare_layer(
    net: Network, place: int, pairs: tuple[tuple[Pass, Pass], tuple[Pass, Pass]], tolerance: Tolerance
) -> LayerComparison:
    """Compare the layer at a place of the network: between the targets, and in the repetition."""
    (one, two), (_, again) = pairs
    grid = net.dt if one.in_software != two.in_software else None
    between, repeat = (difference(a.layers[place], b.layers[place], grid) for a, b in pairs)
    a, b = one.layers[place], two.layers[place]
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
        example=_example(a, b, again.layers[place]),
    )


def _example(one: LayerPass, two: LayerPass, again: LayerPass) -> Example:
    """Return the neuron and sample that differ as much as the median does."""
    apart = (two.trace - one.trace).square().sum(0)
    if one.spikes is not None and two.spikes is not None:
        active = first_spikes(one.spikes).isfinite() | first_spikes(two.spikes).isfinite()
        apart = apart.where(active, -1.0)  # sorted before all others
    order = apart.flatten().argsort(stable=True)
    counted = max(int((apart >= 0).sum()), 1)
    sample, neuron = divmod(int(order[len(order) - (counted + 1) // 2]), apart.shape[1])
    return Example(sample, neuron, *(found.trace[:, sample, neuron].cpu() for found in (one, two, again)))


def _share(answers: Tensor, others: Tensor) -> float:
    return float((answers.cpu() == others.cpu()).double().mean())


def _reasons(layer: LayerComparison, names: tuple[str, ...]) -> str:
    """Return the differences that are beyond the tolerance, each against that of the repetition."""
    texts = []
    for name in names:
        if name in layer.exceeded:
            values = (getattr(layer.between, name), getattr(layer.repeat, name) or 0.0)
            a, b = (f"{1e6 * v:.2g} us" if name == "first_spike" else f"{v:.2g}" for v in values)
            texts.append(f"{name} {a} against {b}")
    return "; ".join(texts)


def _scalars(found: Difference) -> dict[str, float | None]:
    return {f.name: getattr(found, f.name) for f in fields(found) if f.name != "first_spikes"}
