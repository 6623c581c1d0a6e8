"""Networks that other installed libraries trained and exported, against the same networks read here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, List, NamedTuple  # noqa: UP035 - OmegaConf resolves these on every Python

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hxtrain.backends import Spikes
from hxtrain.checks import count, seed
from hxtrain.datasets import load_dataset
from hxtrain.exchange import ExchangeError, read_nir
from hxtrain.exchange.simulators import SIMULATORS, quiet
from hxtrain.runs.randomness import epoch_order, generator, seeded

from .peers.exported import EXPORTS, Export, PeerNetwork

COLUMNS = ("trained in", "neurons", "accuracy there", "here", "spikes", "equal counts", "reading")
STEPS = 25
"""Time steps of a sample."""
BATCH = 64
RATE = 2e-3
"""Learning rate of Adam at a gain of 1."""
SHARPNESS = 0.1
"""Factor of counts of output spikes in the softmax, so that busy networks learn, too."""


@dataclass
class PeersConfig:
    """Settings of a comparison of networks that other libraries train and export.

    Attributes:
        epochs: Number of epochs of each training, on 1297 digits of 8 x 8 pixels.
        seed: Seed of spikes, weights and order.
        simulators: Libraries; all without any.
    """

    epochs: int = 5
    seed: int = 0
    simulators: List[str] = field(default_factory=list)  # noqa: UP006

    def __post_init__(self) -> None:
        count("epochs", self.epochs)
        seed("seed", self.seed)


class Samples(NamedTuple):
    """Digits as spikes.

    Attributes:
        spikes: Zeros and ones `[T, B, J]`; a pixel is the probability of a spike in a step.
        labels: True classes `[B]`.
    """

    spikes: Tensor
    labels: Tensor


class Imported(NamedTuple):
    """A network of another library, read here.

    Attributes:
        export: Network.
        accuracy: Accuracy in its library on the test samples.
        accuracy_here: Accuracy here.
        spikes: Output spikes per sample in its library.
        equal: Share of samples and classes with equal counts of output spikes.
        refusal: Why it is refused without `approximate`; empty if it is taken.
    """

    export: Export
    accuracy: float
    accuracy_here: float
    spikes: float
    equal: float
    refusal: str

    @property
    def is_expected(self) -> bool:
        """Whether it fires, and all counts are equal, or it is refused because no layer here does the same."""
        if not self.spikes:
            return False
        return not self.refusal and self.equal == 1 if self.export.is_exact else bool(self.refusal)


def digits(seed: int) -> tuple[Samples, Samples]:
    """Return training and test samples."""
    data = load_dataset("digits")
    return _encoded(data.train, seed, "train"), _encoded(data.test, seed, "test")


def _encoded(split: Any, seed: int, part: str) -> Samples:
    rates = split.images.flatten(1).float().clamp(0, 1)
    drawn = torch.rand((STEPS, *rates.shape), generator=generator(seed, part))
    return Samples((drawn < rates).float(), split.labels)


def selected(simulators: Sequence[str]) -> list[Export]:
    """Return the networks of libraries by name; of all without any name.

    Raises:
        ValueError: A library is unknown.
    """
    names = list(dict.fromkeys(export.simulator for export in EXPORTS))
    unknown = sorted(set(simulators) - set(names))
    if unknown:
        raise ValueError(f"simulators: {', '.join(unknown)} is not known; choose of {', '.join(names)}")
    return [export for export in EXPORTS if not simulators or export.simulator in simulators]


@contextmanager
def _single_thread() -> Iterator[None]:
    """Let torch compute in one thread: these networks are small, and threads of a busy machine wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def imported(export: Export, train: Samples, test: Samples, epochs: int, seed: int) -> Imported:
    """Train a network in its library, export it there, read it here, and compare both on the test samples."""
    with quiet(), _single_thread(), seeded(seed, export.simulator, export.neurons):
        network = export.build()
        _train(network, train, epochs, seed)
        with torch.no_grad():
            counts = (network.run or network.train)(test.spikes).sum(0)
        graph = network.graph()
        refusal = ""
        try:
            counts_here = _counts_here(export, graph, test.spikes, approximate=False)
        except ExchangeError as error:
            refusal = str(error)
            counts_here = _counts_here(export, graph, test.spikes, approximate=True)
    accuracies = [float((values.argmax(1) == test.labels).double().mean()) for values in (counts, counts_here)]
    equal = float((counts == counts_here).double().mean())
    spikes = float(counts.sum()) / len(counts)
    return Imported(export, accuracies[0], accuracies[1], spikes, equal, refusal)


def _train(network: PeerNetwork, samples: Samples, epochs: int, seed: int) -> None:
    """Train with cross entropy of the counts of output spikes."""
    with torch.no_grad():
        for weight in network.weights:
            weight.mul_(network.gain)
    optimizer = torch.optim.Adam(network.weights, lr=RATE * network.gain)
    for epoch in range(epochs):
        for batch in torch.split(epoch_order(seed, epoch, len(samples.labels)), BATCH):
            optimizer.zero_grad()
            counts = network.train(samples.spikes[:, batch]).sum(0)
            loss: Any = cross_entropy(SHARPNESS * counts, samples.labels[batch])
            loss.backward()
            optimizer.step()


def _counts_here(export: Export, graph: Any, spikes: Tensor, approximate: bool) -> Tensor:
    """Return counts of output spikes here `[B, C]`, in a window that holds the steps by which each population is late.

    Raises:
        ExchangeError: No network does what the graph does.
    """
    late = 2 * SIMULATORS[export.simulator].lag
    times = export.times._replace(steps=len(spikes) + late, approximate=approximate)
    net = read_nir(graph, times).net
    padding = torch.zeros(late, *spikes.shape[1:])
    with torch.no_grad():
        fired = net(Spikes.from_grid(torch.cat([spikes, padding]), net.dt)).layers[-1].spikes
    assert fired is not None
    counts: Tensor = fired.sum(0)
    return counts


def cells(result: Imported) -> tuple[str, ...]:
    """Return the row of a network in a table of `COLUMNS`."""
    package = SIMULATORS[result.export.simulator].packages[0]
    library = f"{result.export.simulator} {version(package)}"
    figures = (f"{result.accuracy:.1%}", f"{result.accuracy_here:.1%}")
    counts = (f"{result.spikes:.1f}", f"{result.equal:.1%}")
    reading = f"refused; figures with approximate=true. {result.refusal}" if result.refusal else "taken"
    return (library, result.export.neurons, *figures, *counts, reading)


def table(
    exports: Sequence[Export], epochs: int, seed: int, report: Callable[[str], None]
) -> tuple[list[tuple[str, ...]], bool]:
    """Return a row for each network, or for each library that is not installed, and whether all are as expected.

    Args:
        exports: Networks.
        epochs: Number of epochs of the training.
        seed: Seed of samples, weights and order.
        report: Function that is called with the name of each network at its start.
    """
    train, test = digits(seed)
    rows: dict[str, tuple[str, ...]] = {}
    is_expected = True
    for export in exports:
        absence = SIMULATORS[export.simulator].absence
        if absence:
            rows[export.simulator] = (export.simulator, *[""] * (len(COLUMNS) - 2), absence)
            continue
        name = f"{export.simulator} {export.neurons}"
        report(name)
        result = imported(export, train, test, epochs, seed)
        is_expected = is_expected and result.is_expected
        rows[name] = cells(result)
    return list(rows.values()), is_expected
