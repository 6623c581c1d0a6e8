"""Small networks of other installed libraries, each written as a NIR graph by the exporter of its library.

All have the sizes 64-64-10 and no biases, and take spikes `[T, B, 64]`. Libraries are imported where they are used.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hxtrain.exchange import Times
from hxtrain.exchange.simulators import stepped

SIZES = (64, 64, 10)
DECAY = 0.9
"""Decay of membranes in a step, where the library lets it be chosen."""
CURRENT_DECAY = 0.8
"""Decay of synaptic currents in a step."""
NORSE_STEP = 1e-3
"""Time step of norse (s)."""
SPYX_STEP = 1.0
"""Time step of spyx, whose time constants are in steps."""


class PeerNetwork(NamedTuple):
    """A network of another library.

    Attributes:
        weights: Weights that are trained, in place.
        train: Function of input spikes `[T, B, J]` that returns output spikes `[T, B, C]`, with a gradient.
        run: The same in the library itself, where another module stands in for the training; None: as `train`.
        graph: Function that returns the graph that the library's exporter writes.
        gain: Factor of the weights, of their initial size and of the learning rate.
    """

    weights: list[Tensor]
    train: Callable[[Tensor], Tensor]
    graph: Callable[[], Any]
    run: Callable[[Tensor], Tensor] | None = None
    gain: float = 1.0


class Export(NamedTuple):
    """A network of another library, and how its graph is read.

    Attributes:
        simulator: Library, a name in `hxtrain.exchange.simulators.SIMULATORS`.
        neurons: Neurons of the network.
        build: Function that returns the network with drawn weights.
        times: How the graph is read.
        is_exact: Whether a network here does the same; if not, it must be refused without `approximate`.
    """

    simulator: str
    neurons: str
    build: Callable[[], PeerNetwork]
    times: Times
    is_exact: bool = True


def _weights(module: nn.Module) -> list[Tensor]:
    """Return the matrices of a module, without constants of neurons."""
    return [values for values in module.parameters() if values.ndim == 2]


def _linears() -> tuple[nn.Linear, nn.Linear]:
    inputs, hidden, outputs = SIZES
    return nn.Linear(inputs, hidden, bias=False), nn.Linear(hidden, outputs, bias=False)


def _stepped(module: Callable[[Tensor], Tensor], spikes: Tensor) -> Tensor:
    return torch.stack([module(values) for values in spikes])


def _snntorch(kinds: tuple[str, str], **settings: Any) -> PeerNetwork:
    """Return a network of snnTorch, whose exporter needs constants of each neuron."""
    package = import_module("snntorch")
    exporter = import_module("snntorch.export_nir")
    upper, lower = _linears()
    populations = []
    for kind, size in zip(kinds, SIZES[1:], strict=True):
        vectors = {"beta": torch.full((size,), DECAY), "threshold": torch.ones(size)}
        if kind == "Synaptic":
            vectors["alpha"] = torch.full((size,), CURRENT_DECAY)
        loop = {"linear_features": size} if kind == "RLeaky" else {}
        neurons = getattr(package, kind)(**vectors, **loop, **settings, init_hidden=True)
        if loop:
            neurons.recurrent = nn.Linear(size, size, bias=False)
        populations.append(neurons)
    module = nn.Sequential(upper, populations[0], lower, populations[1])

    def forward(spikes: Tensor) -> Tensor:
        for neurons in populations:
            neurons.reset_mem()
        return _stepped(module, spikes)

    def graph() -> Any:
        forward(torch.zeros(1, 1, SIZES[0]))
        return exporter.export_to_nir(module, torch.zeros(1, SIZES[0]), ignore_dims=[0])

    return PeerNetwork(_weights(module), forward, graph, gain=0.5 if "Synaptic" in kinds else 1.0)


def _spikingjelly(kind: str, gain: float = 1.0) -> PeerNetwork:
    package = import_module("spikingjelly.activation_based")
    neuron = import_module("spikingjelly.activation_based.neuron")
    functional = import_module("spikingjelly.activation_based.functional")
    exporter = import_module("spikingjelly.activation_based.nir_exchange.to_nir")
    surrogate = import_module(f"{package.__name__}.surrogate")
    upper, lower = _linears()
    populations = [getattr(neuron, kind)(surrogate_function=surrogate.ATan()) for _ in range(2)]
    module = nn.Sequential(upper, populations[0], lower, populations[1])

    def forward(spikes: Tensor) -> Tensor:
        functional.reset_net(module)
        return _stepped(module, spikes)

    def graph() -> Any:
        functional.reset_net(module)
        return exporter.export_to_nir(module, torch.zeros(1, SIZES[0]))

    return PeerNetwork(_weights(module), forward, graph, gain=gain)


def _norse(kind: str, parameters: str, gain: float) -> PeerNetwork:
    package = import_module("norse.torch")
    settings = getattr(package, parameters)(alpha=torch.tensor(10.0))
    upper, lower = _linears()
    cells = [getattr(package, kind)(settings, dt=NORSE_STEP) for _ in range(2)]
    module = package.SequentialState(upper, cells[0], lower, cells[1])

    return PeerNetwork(
        _weights(module), partial(stepped, module), lambda: package.to_nir(module, torch.zeros(1, SIZES[0])), gain=gain
    )


class _SpyxStandIn(nn.Module):
    """The equations of spyx in torch, for their gradient: a spike of the previous membrane subtracts the threshold."""

    def __init__(self, current_decay: float) -> None:
        super().__init__()
        self.linears: Any = nn.ModuleList(_linears())
        self._current_decay = current_decay

    def forward(self, spikes: Tensor) -> Tensor:
        values = spikes
        for linear in self.linears:
            values = self._population(linear(values))
        return values

    def _population(self, drives: Tensor) -> Tensor:
        current = torch.zeros_like(drives[0])
        membrane = torch.zeros_like(drives[0])
        outputs = []
        for drive in drives:
            distance = membrane - 1
            smooth = distance / (1 + 10 * distance.abs())
            spike = (distance > 0).float() + smooth - smooth.detach()
            current = self._current_decay * current + drive
            if self._current_decay:
                membrane = DECAY * (membrane - spike) + current
            else:
                membrane = DECAY * membrane + current - spike
            outputs.append(spike)
        return torch.stack(outputs)


def _spyx(kind: str, current_decay: float) -> PeerNetwork:
    spyx = import_module("spyx.nn")
    exporter = import_module("spyx.nir")
    nnx = import_module("flax.nnx")
    numpy = import_module("jax.numpy")
    stand_in = _SpyxStandIn(current_decay)
    decays = {"beta": DECAY, **({"alpha": current_decay} if current_decay else {})}

    def model() -> Any:
        keys = nnx.Rngs(0)
        layers = []
        for linear in stand_in.linears:
            outputs, inputs = linear.weight.shape
            layer = nnx.Linear(inputs, outputs, use_bias=False, rngs=keys)
            layer.kernel[...] = numpy.asarray(linear.weight.detach().numpy().T)
            layers += [layer, getattr(spyx, kind)((outputs,), **decays, rngs=keys)]
        return spyx.Sequential(*layers)

    def run(spikes: Tensor) -> Tensor:
        outputs, _ = spyx.run(model(), numpy.asarray(spikes.numpy()))
        return torch.tensor(outputs.tolist())

    def graph() -> Any:
        inputs, _, outputs = SIZES
        ends = [{"input": torch.tensor([inputs]).numpy()}, {"output": torch.tensor([outputs]).numpy()}]
        return exporter.to_nir(model(), *ends, dt=SPYX_STEP)

    return PeerNetwork(_weights(stand_in), stand_in, graph, run, gain=0.5 if current_decay else 1.0)


def _rockpool(**settings: Any) -> PeerNetwork:
    modules = import_module("rockpool.nn.modules")
    combinators = import_module("rockpool.nn.combinators")
    constant = import_module("rockpool.parameters").Constant
    exporter = import_module("rockpool.nn.modules.torch.nir")
    times = {"tau_mem": constant(10e-3), "tau_syn": constant(5e-3), "bias": constant(0.0), "threshold": constant(1.0)}
    parts = []
    for inputs, outputs in pairwise(SIZES):
        parts.append(modules.LinearTorch((inputs, outputs), has_bias=False))
        parts.append(modules.LIFTorch(outputs, **times, dt=NORSE_STEP, **settings))
    network = combinators.Sequential(*parts)

    def forward(spikes: Tensor) -> Tensor:
        network.reset_state()
        outputs: Tensor = network(spikes.transpose(0, 1))[0]
        return outputs.transpose(0, 1)

    weights = [parts[0].weight, parts[2].weight]
    return PeerNetwork(weights, forward, lambda: exporter.to_nir(network), gain=0.25)


def _sinabs(kind: str, gain: float = 1.0, **settings: Any) -> PeerNetwork:
    layers = import_module("sinabs.layers")
    exporter = import_module("sinabs.nir")
    activation = import_module("sinabs.activation")
    upper, lower = _linears()
    populations = [getattr(layers, kind)(spike_fn=activation.SingleSpike, **settings) for _ in range(2)]
    module = nn.Sequential(upper, populations[0], lower, populations[1])

    def forward(spikes: Tensor) -> Tensor:
        for population in populations:
            if population.is_state_initialised():
                population.reset_states()
        outputs: Tensor = module(spikes.transpose(0, 1))
        return outputs.transpose(0, 1)

    def graph() -> Any:
        for population in populations:
            population.reset_states()
        return exporter.to_nir(module, torch.zeros(1, 1, SIZES[0]))

    return PeerNetwork(_weights(module), forward, graph, gain=gain)


_AT_ONCE = {"reset_mechanism": "zero", "reset_delay": False}
"""Settings of snnTorch whose neurons reset as its graphs say; with a delay, some lose the input of the next step."""
_SNNTORCH = Times(dialect="snntorch")
_SPIKINGJELLY = Times(dialect="spikingjelly")
_SPYX = Times(dialect="spyx", dt=SPYX_STEP)
_ROCKPOOL = Times(dialect="rockpool", dt=NORSE_STEP)
_SINABS = Times(dialect="sinabs", dt=1e-3)
EXPORTS = (
    *(
        Export("snnTorch", f"{hidden}{title}", partial(_snntorch, (hidden, output), **settings), times)
        for hidden, output in (("Leaky", "Leaky"), ("Synaptic", "Synaptic"), ("RLeaky", "Leaky"))
        for title, settings, times in (
            (", reset to 0", _AT_ONCE, _SNNTORCH),
            (", default reset", {}, _SNNTORCH._replace(reset="subtract")),
        )
    ),
    Export("SpikingJelly", "LIF", partial(_spikingjelly, "LIFNode", gain=4.0), _SPIKINGJELLY),
    Export("SpikingJelly", "CUBALIF", partial(_spikingjelly, "CUBALIFNode"), _SPIKINGJELLY),
    Export("SpikingJelly", "IF", partial(_spikingjelly, "IFNode"), _SPIKINGJELLY, is_exact=False),
    Export("norse", "LIFCell", partial(_norse, "LIFCell", "LIFParameters", gain=5.0), Times(dialect="norse")),
    Export("norse", "LIFBoxCell", partial(_norse, "LIFBoxCell", "LIFBoxParameters", gain=15.0), Times(dialect="norse")),
    Export("spyx", "LIF", partial(_spyx, "LIF", 0.0), _SPYX),
    Export("spyx", "CuBaLIF", partial(_spyx, "CuBaLIF", CURRENT_DECAY), _SPYX, is_exact=False),
    Export("rockpool", "LIFTorch", _rockpool, _ROCKPOOL, is_exact=False),
    Export(
        "rockpool", "LIFTorch, one spike a step", partial(_rockpool, max_spikes_per_dt=1), _ROCKPOOL, is_exact=False
    ),
    Export("sinabs", "LIF", partial(_sinabs, "LIF", gain=10.0, tau_mem=10.0), _SINABS, is_exact=False),
    Export("sinabs", "IAF", partial(_sinabs, "IAF"), _SINABS, is_exact=False),
)
"""Networks of other libraries."""
