"""Other simulators that run a NIR graph, if they are installed; each is imported only when it is used.

Each runs the graph with its reader of NIR, step by step. None of them is a dependency.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .errors import ExchangeError

Run = Callable[[Any, Tensor, float], Tensor]
"""Function of a graph, input spikes `[T, 1, J]` and the time step (s); returns the output `[T, 1, N]`."""


class Simulator(NamedTuple):
    """A simulator that reads NIR.

    Attributes:
        packages: Its package, and those that its reader and writer of NIR import besides.
        run: Function that runs a graph.
        dialect: Dialect of the graphs that it takes.
        lag: Steps by which its populations fire earlier than those of the twin, each.
    """

    packages: tuple[str, ...]
    run: Run
    dialect: str = "none"
    lag: int = 1

    @property
    def missing(self) -> list[str]:
        """Packages that are not installed; empty if it can read and write NIR."""
        return [name for name in self.packages if find_spec(name) is None]

    @property
    def is_installed(self) -> bool:
        """Whether it can read and write NIR."""
        return not self.missing

    @property
    def absence(self) -> str:
        """Text on what is not installed; empty if all is."""
        missing = self.missing
        return f"not installed: {', '.join(missing)}" if missing else ""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Discard what a simulator prints, logs and warns of while it reads a graph."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def output_of(name: str, graph: Any, spikes: Tensor, dt: float) -> Tensor:
    """Return what a simulator makes of a graph.

    Args:
        name: Name in `SIMULATORS`.
        graph: `nir.NIRGraph`; it stays as it is.
        spikes: Zeros and ones `[T, 1, J]`.
        dt: Time step of the graph (s).

    Returns:
        Output `[T, 1, N]`.

    Raises:
        ExchangeError: It is not installed, or refuses the graph.
    """
    simulator = SIMULATORS[name]
    if simulator.missing:
        missing = " ".join(simulator.missing)
        raise ExchangeError(f"{name} needs packages that are not installed; pip install {missing}")
    try:
        with quiet(), torch.no_grad():
            return simulator.run(copy.deepcopy(graph), spikes, dt)
    except Exception as error:  # foreign code raises anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ExchangeError(f"{name} refuses the graph: {type(error).__name__}: {reason[:160]}") from error


def stepped(module: Any, spikes: Tensor) -> Tensor:
    """Return the outputs `[T, ...]` of a module that takes and returns its state, for inputs `[T, ...]`."""
    state = None
    outputs = []
    for values in spikes:
        output, state = module(values, state)
        outputs.append(output)
    return torch.stack(outputs)


def _norse(graph: Any, spikes: Tensor, dt: float) -> Tensor:
    norse = importlib.import_module("norse.torch")
    return stepped(norse.from_nir(graph, dt=dt), spikes)


def _snntorch(graph: Any, spikes: Tensor, dt: float) -> Tensor:
    reader = importlib.import_module("snntorch.import_nir")
    return stepped(reader.import_from_nir(graph), spikes)


def _spikingjelly(graph: Any, spikes: Tensor, dt: float) -> Tensor:
    reader = importlib.import_module("spikingjelly.activation_based.nir_exchange.from_nir")
    return stepped(reader.import_from_nir(graph, dt=dt), spikes)


def _rockpool(graph: Any, spikes: Tensor, dt: float) -> Tensor:
    reader = importlib.import_module("rockpool.nn.modules.torch.nir")
    module = reader.from_nir(graph)
    output = module(spikes.transpose(0, 1))
    values: Tensor = output[0] if isinstance(output, tuple) else output
    return values.transpose(0, 1)


def _spyx(graph: Any, spikes: Tensor, dt: float) -> Tensor:
    numpy = importlib.import_module("jax.numpy")
    reader = importlib.import_module("spyx.nir")
    _, outputs = reader.from_nir(graph, numpy.asarray(spikes.numpy()), dt=dt)
    return torch.tensor(np.array(outputs))


def _sinabs(graph: Any, spikes: Tensor, dt: float) -> Tensor:
    reader = importlib.import_module("sinabs.nir")
    module = reader.from_nir(graph, batch_size=1)
    output = module(spikes[:, 0])
    values: Tensor = output[0] if isinstance(output, tuple) else output
    return values[:, None]


SIMULATORS: Mapping[str, Simulator] = {
    "norse": Simulator(("norse", "nirtorch"), _norse),
    "snnTorch": Simulator(("snntorch", "nirtorch"), _snntorch, "snntorch"),
    "SpikingJelly": Simulator(("spikingjelly", "nirtorch"), _spikingjelly),
    "rockpool": Simulator(("rockpool", "nirtorch"), _rockpool),
    "spyx": Simulator(("spyx",), _spyx, lag=0),
    "sinabs": Simulator(("sinabs", "nirtorch"), _sinabs),
}
"""Simulators by name."""
EXACT = ("norse", "snnTorch", "SpikingJelly")
"""Simulators that have equal spikes for every network of spiking populations that reset to 0."""
