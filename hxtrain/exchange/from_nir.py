"""From a NIR graph of any program to a network, or a refusal that names the node."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from hxtrain.checks import count, one_of, optional, positive
from hxtrain.datasets.encoders import ENCODERS, Encoder
from hxtrain.network import LI, LIF, DelayedNetwork, LateralInhibition, Layer, Linear, Network, Recurrent
from hxtrain.network.refusals import MAX_WINDOWS
from hxtrain.objectives import Loss
from hxtrain.runs.checkpoint import CheckpointError

from .chain import Array, Chain, Stage, Terminals, read_chain
from .errors import ExchangeError
from .graphs import node_at, read_graph
from .metadata import DELAYS, INTEGERS, MASK, PARAMETER, loss_state, origin_of, read_metadata
from .plain import network_of, read_component, read_loss
from .reading import DIALECTS, DISCRETISATIONS, RESETS, SAME, Dialect, Dynamics, dynamics, refuse_unmarked

log = logging.getLogger(__name__)
WRITTEN = 1e-5
"""Relative difference of time constants below which metadata and graph agree."""


class NirNetwork(NamedTuple):
    """Content of a NIR graph.

    Attributes:
        net: Network with its weights, in software.
        encoder: Code of the samples; None if the graph does not say.
        loss: Loss that turns outputs into answers; None if the graph does not say.
        device: Identity of the device that the graph has integer weights of; empty without.
        integers: Integer weights of that device by projection, `[N, J]`.
        scales: Integer weight per unit of float weight, by projection.
        parameters: Measured parameters of neurons by layer and name, float64 `[N]`.
        remarks: What was approximated.
    """

    net: Network
    encoder: Encoder | None = None
    loss: Loss | None = None
    device: Mapping[str, str] = {}
    integers: Mapping[str, Array] = {}
    scales: Mapping[str, float] = {}
    parameters: Mapping[str, Mapping[str, Array]] = {}
    remarks: tuple[str, ...] = ()


class Times(NamedTuple):
    """How the times of a graph are read.

    Attributes:
        dt: Time step (s); None: that of the metadata or of the dialect.
        steps: Number of time steps; None: that of the metadata.
        discretisation: `euler` or `continuous`; None: that of the metadata or of the dialect.
        dialect: Name of the simulator that wrote the graph, or `none`.
        unit: Unit of the graph's times (s).
        speedup: Factor by which the network here is faster than the graph.
        reset: What a spike does to the membrane, `zero` or `subtract` for the threshold; None: as the dialect says.
        approximate: Whether parameters that no layer has are replaced by close ones.
    """

    dt: float | None = None
    steps: int | None = None
    discretisation: str | None = None
    dialect: str = "none"
    unit: float = 1.0
    speedup: float = 1.0
    reset: str | None = None
    approximate: bool = False


def from_nir(
    graph: Any,
    *,
    dt: float | None = None,
    steps: int | None = None,
    discretisation: str | None = None,
    dialect: str = "none",
    time_unit: float = 1.0,
    speedup: float = 1.0,
    reset: str | None = None,
    approximate: bool = False,
    metadata: bool = True,
) -> Network:
    """Return the network of a NIR graph; `read_nir` returns code, loss and device as well.

    Graphs of `to_nir` need no arguments: their metadata restore the network. `hxtrain.conversion.from_nir` reads a
    graph as an artificial network instead.

    Args:
        graph: `nir.NIRGraph`, or the path of its file.
        dt: Time step of the graph (s), which NIR does not say; snnTorch and SpikingJelly write graphs for 1e-4.
        steps: Number of time steps of a trial.
        discretisation: How time constants become decays: `euler`, as simulators read them, or `continuous`, the exact
            solution.
        dialect: Simulator that wrote the graph, if it does not follow NIR's text: norse, spyx, rockpool, sinabs.
        time_unit: Unit of the graph's times (s), such as 1e-3 for milliseconds.
        speedup: Factor by which the network is faster than the graph: 1000 turns 6 ms into 6 us.
        reset: What a spike does to the membrane: `zero`, as NIR says, or `subtract` for the threshold, which is the
            default of snnTorch's neurons, though its graphs do not say so; None: as the dialect says.
        approximate: Whether parameters that no layer has are replaced by close ones; a warning says which.
        metadata: Whether to restore a network of `to_nir` from its metadata; if not, only the graph counts.

    Raises:
        ExchangeError: The file is damaged, or no network here does what the graph does; the text names node, reason
            and remedy.
    """
    times = Times(dt, steps, discretisation, dialect, time_unit, speedup, reset, approximate)
    return read_nir(graph, times, metadata).net


def read_nir(source: Any, times: Times | None = None, metadata: bool = True) -> NirNetwork:
    """Return the content of a NIR graph.

    Args:
        source: `nir.NIRGraph`, or the path of its file.
        times: How times are read.
        metadata: Whether to restore a network of `to_nir` from its metadata.

    Raises:
        ExchangeError: As for `from_nir`.
    """
    times = _checked(times or Times())
    graph = read_graph(source)
    values = read_metadata(graph.metadata, str(origin_of(source))) if metadata else None
    content = _foreign(graph, times) if values is None else _restored(graph, values, times, source)
    for remark in content.remarks:
        log.warning("%s; spikes differ from those of the graph: compare accuracies", remark)
    return content


def _checked(times: Times) -> Times:
    optional(positive)("dt", times.dt)
    optional(count)("steps", times.steps)
    optional(one_of(DISCRETISATIONS))("discretisation", times.discretisation)
    one_of(tuple(DIALECTS))("dialect", times.dialect)
    optional(one_of(RESETS))("reset", times.reset)
    positive("time_unit", times.unit)
    positive("speedup", times.speedup)
    return times


def _foreign(graph: Any, times: Times) -> NirNetwork:
    """Return the network of a graph of another program."""
    dialect = DIALECTS[times.dialect]
    if times.discretisation is not None:
        dialect = dialect._replace(rule=times.discretisation)
    if times.reset is not None:
        dialect = dialect._replace(resets=times.reset)
    dt = times.dt or dialect.dt
    if dt is None or times.steps is None:
        missing = "dt, its time step (s)," if dt is None else "steps, the number of time steps,"
        raise ExchangeError(
            f"the graph does not say {missing} which NIR leaves to the simulator; give it to hx.from_nir or to "
            "`hxtrain nir import` (snnTorch and SpikingJelly write graphs for dt=1e-4, norse for 1e-3)"
        )
    chain = read_chain(graph, recurrent_input=times.dialect == "spyx")
    if chain.readout is not None:
        raise ExchangeError(
            f"the graph ends in the weights of node {chain.readout_node!r}; a network here ends in neurons: put LI, "
            "CubaLI "
            "or LIF after them"
        )
    if times.dialect == "none":
        refuse_unmarked(chain.stages, dt, times.unit)
    populations = [dynamics(stage, dt, dialect, times.unit, times.approximate) for stage in chain.stages]
    return _network(chain, populations, dt, times, dialect)


def _network(chain: Chain, populations: list[Dynamics], dt: float, times: Times, dialect: Dialect) -> NirNetwork:
    """Return the network of a chain with the dynamics of each population."""
    assert times.steps is not None
    remarks: list[str] = []
    modules: list[torch.nn.Module] = []
    is_double = any(stage.weight.dtype == np.float64 for stage in chain.stages)
    for stage, population in zip(chain.stages, populations, strict=True):
        remarks += population.remarks
        tau_mem, remark = _bounded(stage, population.tau_mem, dt * times.steps, times.approximate)
        remarks += [remark] if remark else []
        taus = (tau_mem / times.speedup, population.tau_syn / times.speedup)
        size = len(stage.weight)
        modules.append(_synapses(Linear(stage.weight.shape[1], size), stage.weight, population.gain))
        if population.spiking:
            modules.append(LIF(size, *taus, refractory=0.0 if dialect.resets == "zero" else None))
        else:
            modules.append(LI(size, *taus))
        if stage.recurrent is not None:
            modules.append(_synapses(Recurrent(size), stage.recurrent, population.gain))
    settings: dict[str, Any] = {"dt": dt / times.speedup, "steps": times.steps}
    try:
        net = (
            Network(*modules, **settings)
            if chain.terminals is None
            else _delayed(chain.terminals, modules, times, settings)
        )
    except ValueError as error:
        raise ExchangeError(f"the graph makes no network here: {error}") from error
    return NirNetwork(net.double() if is_double else net, remarks=tuple(remarks))


def _delayed(terminals: Terminals, modules: list[torch.nn.Module], times: Times, settings: dict[str, Any]) -> Network:
    """Return a network whose inputs have the delays of a graph."""
    net = DelayedNetwork(*modules, delays=[0.0] * terminals.copies, **settings)
    net.delays.data = torch.tensor(terminals.delays * (times.unit / times.speedup / net.unit)).to(net.delays)
    return net


def _bounded(stage: Stage, tau: float, window: float, approximate: bool) -> tuple[float, str]:
    """Return a time constant of membranes that a layer can have, and what was approximated."""
    longest = MAX_WINDOWS * window
    if tau <= longest:
        return tau, ""
    label = f"node {stage.name!r} ({stage.kind})"
    if not approximate:
        raise ExchangeError(
            f"{label} has neurons that leak with {tau:.3g} s, layers here with at most {longest:.3g} s, "
            f"{MAX_WINDOWS:g} "
            "times the window: train it with a leak, or take this one with approximate=True"
        )
    return longest * (1 - SAME), f"{label}: the time constant {tau:.3g} s is replaced by {longest:.3g} s"


@torch.no_grad()
def _synapses(module: Any, weight: Array, gain: Array) -> Any:
    """Return a module with the weights of a graph, times the gain of each target."""
    is_unit = bool(np.all(np.abs(gain - 1) < SAME))
    values = weight if is_unit else (weight * gain[:, None]).astype(weight.dtype)
    module.weight = torch.nn.Parameter(torch.tensor(np.ascontiguousarray(values)))
    return module


def _restored(graph: Any, values: Mapping[str, Any], times: Times, source: Any) -> NirNetwork:
    """Return the network that metadata describe, with the weights of the graph.

    Raises:
        ExchangeError: Metadata and graph contradict each other.
    """
    path = origin_of(source)
    if times != Times(approximate=times.approximate):
        raise ExchangeError(
            f"{path}: its metadata say dt, steps and discretisation; leave them out, or read only the graph with "
            "metadata=False"
        )
    chain = read_chain(graph)
    try:
        with torch.device("meta"):
            skeleton = network_of(path, values["network"])
        _require_same(skeleton, chain, values)
        net = network_of(path, values["network"])
        encoder = read_component(path, ENCODERS, values["encoder"]) if "encoder" in values else None
        loss = read_loss(path, {**values, "loss_state": loss_state(values)}) if "loss" in values else None
    except ExchangeError:
        raise
    except (CheckpointError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ExchangeError(
            f"{path}: its metadata make no network ({reason}); read only the graph with metadata=False"
        ) from error
    weights = _weights(chain)
    net = net.double() if any(weight.dtype == np.float64 for weight in weights) else net
    integers: dict[str, Array] = {}
    with torch.no_grad():
        for projection, weight, name in zip(net.projections, weights, _weight_nodes(values), strict=True):
            metadata = node_at(graph, name).metadata
            if MASK in metadata:
                projection.synapses.mask = torch.tensor(np.asarray(metadata[MASK]))
            if not isinstance(projection.synapses, LateralInhibition):
                projection.synapses.weight.copy_(torch.tensor(np.ascontiguousarray(weight)))
            if INTEGERS in metadata:
                integers[projection.name] = np.asarray(metadata[INTEGERS])
        if isinstance(net, DelayedNetwork):
            net.delays.copy_(_delays(net, graph, chain, values["time_scale"]))
    device = values.get("device") or {}
    return NirNetwork(
        net, encoder, loss, device, integers, values.get("scales") or {}, _parameters(net.layers, graph, chain)
    )


def _require_same(net: Network, chain: Chain, values: Mapping[str, Any]) -> None:
    """Check that metadata and graph say the same: sizes, time constants, gains.

    Raises:
        ExchangeError: They do not.
    """
    layers = net.layers
    weights = _weights(chain)
    shapes = [weight.shape for weight in weights]
    expected = [(p.synapses.outputs, p.synapses.inputs) for p in net.projections]
    if shapes != expected or len(layers) - len(chain.stages) != (chain.readout is not None):
        raise _contradiction(f"weights of shapes {shapes}", f"{expected}")
    copies = chain.terminals.copies if chain.terminals else 0
    if copies != (net.copies if isinstance(net, DelayedNetwork) else 0):
        raise _contradiction(f"{copies} delayed terminals of each input", f"the network {type(net).__name__}")
    if len(_weight_nodes(values)) != len(weights):
        raise _contradiction(f"{len(weights)} projections", f"{len(_weight_nodes(values))} nodes of weights")
    dialect = Dialect(values["discretisation"])
    one_of(DISCRETISATIONS)("discretisation", dialect.rule)
    for layer, stage in zip(layers, chain.stages, strict=False):
        neurons = layer.neurons
        graph = dynamics(stage, net.dt * values["time_scale"], dialect, 1.0, approximate=False)
        taus = (graph.tau_mem / values["time_scale"], graph.tau_syn / values["time_scale"])
        pairs = zip(taus, (neurons.tau_mem, neurons.tau_syn), strict=True)
        is_equal = all(math.isclose(a, b, rel_tol=WRITTEN) for a, b in pairs) and graph.spiking == neurons.spiking
        if not is_equal or not np.allclose(graph.gain, 1, rtol=0, atol=WRITTEN):
            raise _contradiction(f"node {stage.name!r} with the time constants {taus} s", f"{neurons}")
    for projection, weight in zip(net.projections, weights, strict=True):
        synapses = projection.synapses
        if isinstance(synapses, LateralInhibition) and not np.isclose(weight.min(), -synapses.strength, rtol=WRITTEN):
            raise _contradiction(f"inhibition of {weight.min():.4g}", f"a strength of {synapses.strength:.4g}")


def _delays(net: DelayedNetwork, graph: Any, chain: Chain, scale: float) -> torch.Tensor:
    """Return the delays of metadata, in the unit of the network.

    Raises:
        ExchangeError: The graph has different ones.
    """
    assert chain.terminals is not None
    seconds = chain.terminals.delays / scale
    values = np.asarray(node_at(graph, chain.terminals.name).metadata.get(DELAYS, seconds / net.unit))
    if values.shape != seconds.shape or not np.allclose(
        np.maximum(values, 0) * net.unit, seconds, rtol=WRITTEN, atol=WRITTEN * net.unit
    ):
        raise _contradiction(f"node {chain.terminals.name!r} with other delays", "those of the network")
    return torch.tensor(np.ascontiguousarray(values))


def _contradiction(graph: str, metadata: str) -> ExchangeError:
    return ExchangeError(
        f"the graph has {graph}, its metadata have {metadata}: it was changed after it was written; read only the "
        "graph "
        "with metadata=False"
    )


def _weights(chain: Chain) -> list[Array]:
    """Return the weights of all projections, in the order of a network."""
    weights = [w for stage in chain.stages for w in (stage.weight, stage.recurrent) if w is not None]
    return weights if chain.readout is None else [*weights, chain.readout]


def _weight_nodes(values: Mapping[str, Any]) -> list[str]:
    """Return the names of the nodes of all projections, in the order of a network."""
    return [name for names in values["nodes"] for name in (*names[:1], *names[2:])]


def _parameters(layers: list[Layer], graph: Any, chain: Chain) -> dict[str, dict[str, Array]]:
    """Return the measured parameters of neurons in a graph, by layer."""
    parameters = {}
    for layer, stage in zip(layers, chain.stages, strict=False):
        metadata = node_at(graph, stage.name).metadata
        entries = {
            key.removeprefix(PARAMETER): np.asarray(value)
            for key, value in metadata.items()
            if key.startswith(PARAMETER)
        }
        if entries:
            parameters[layer.name] = entries
    return parameters
