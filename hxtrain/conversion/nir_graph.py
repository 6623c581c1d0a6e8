"""From a graph of the Neuromorphic Intermediate Representation (NIR) to layers of rates; needs the extra `nir`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hxtrain.exchange import ExchangeError, read_graph

from .graph import IDENTITY, RELU, ConversionError, RateNetwork, ScalingLayer
from .sources import Source

LEAKY = "it leaks, so that its rate is no ReLU of its input; export the network with IF neurons"
REMEDIES = {"LIF": LEAKY, "CubaLIF": LEAKY, "LI": LEAKY, "CubaLI": LEAKY, "I": "export a linear output without it"}
CONVERTIBLE = "Input, Output, Linear, Affine, Scale, Conv2d, AvgPool2d, SumPool2d, Flatten, IF"


def from_nir(graph: Any) -> RateNetwork:
    """Return the layers of rates of a NIR graph: integrate-and-fire neurons become ReLU.

    A neuron with a constant input current I fires `r I / v_threshold` times in a unit of time, which is the
    activation of its layer (Pedersen et al. 2024 define the nodes).

    Args:
        graph: `nir.NIRGraph`, a chain from one input to one output, or the path of its file.

    Raises:
        ConversionError: The package `nir` is missing, the file is damaged or hostile, the graph is no chain, or a node
            cannot be converted.
    """
    try:
        graph = read_graph(graph)
    except ExchangeError as error:
        raise ConversionError(str(error)) from error
    nodes = list(_chain(graph))
    first = nodes[0][1]
    shape = tuple(int(side) for side in first.input_type["input"])
    source = Source([], shape, IDENTITY, _dtype(nodes))
    for name, node in nodes[1:-1]:
        _add(source, name, node)
    return RateNetwork(tuple(source.layers), shape)


def _chain(graph: Any) -> Iterator[tuple[str, Any]]:
    """Return the nodes from the input to the output.

    Raises:
        ConversionError: A node has several edges, or there is no path through all.
    """
    inputs = [name for name, node in graph.nodes.items() if type(node).__name__ == "Input"]
    if len(inputs) != 1:
        raise ConversionError(f"the NIR graph has {len(inputs)} inputs; give one with a single Input")
    downstream: dict[str, str] = {}
    for start, end in dict.fromkeys(map(tuple, graph.edges)):
        if start in downstream:
            raise ConversionError(
                f"node {start!r} feeds {downstream[start]!r} and {end!r}; give a graph without branches"
            )
        downstream[start] = end
    name = inputs[0]
    visited = [name]
    while name in downstream:
        name = downstream[name]
        if name in visited:
            raise ConversionError(f"node {name!r} is part of a loop; give a feed-forward graph")
        visited.append(name)
    if len(visited) != len(graph.nodes) or type(graph.nodes[name]).__name__ != "Output":
        rest = sorted(set(graph.nodes) - set(visited))
        raise ConversionError(f"the NIR graph is no chain from Input to Output; besides it has {rest or name}")
    return ((name, graph.nodes[name]) for name in visited)


def _dtype(nodes: list[tuple[str, Any]]) -> torch.dtype:
    weights = [node.weight for _, node in nodes if hasattr(node, "weight")]
    return torch.float64 if any(weight.dtype == np.float64 for weight in weights) else torch.float32


def _add(source: Source, name: str, node: Any) -> None:
    kind = type(node).__name__
    if kind == "IF":
        _add_neurons(source, name, node)
    elif kind == "Scale":
        factor = _tensor(np.broadcast_to(node.scale, source.shape), source).flatten()
        source.layers.append(ScalingLayer(f"scale_{name}", factor, torch.zeros_like(factor), shape=source.shape))
    else:
        source.add(name, _module(name, kind, node, source))


def _add_neurons(source: Source, name: str, node: Any) -> None:
    """Add integrate-and-fire neurons: ReLU of their input, in units of `v_threshold / r`."""
    if np.any(node.v_reset != 0):
        raise ConversionError(f"node {name!r} (IF) resets to v_reset={_short(node.v_reset)}; only 0 is converted")
    rate = np.asarray(node.r, dtype=np.float64) / node.v_threshold
    if not np.all((rate > 0) & np.isfinite(rate)):
        raise ConversionError(f"node {name!r} (IF) has r / v_threshold = {_short(rate)}; both must be positive")
    factor = _tensor(np.broadcast_to(rate, source.shape), source).flatten()
    if bool((factor == 1).all()):
        source.add(name, nn.ReLU())
        return
    shift = torch.zeros_like(factor)
    source.layers.append(ScalingLayer(f"if_{name}", factor, shift, activation=RELU, shape=source.shape))


def _module(name: str, kind: str, node: Any, source: Source) -> nn.Module:
    """Return the module of torch that computes what a node computes."""
    if kind == "Flatten":
        return nn.Flatten()
    if kind in ("Linear", "Affine"):
        return _linear(name, node, source)
    if kind == "Conv2d":
        return _convolution(node, source)
    if kind in ("AvgPool2d", "SumPool2d"):
        sizes = [tuple(int(side) for side in np.broadcast_to(value, 2)) for value in (node.kernel_size, node.stride)]
        padding = tuple(int(side) for side in np.broadcast_to(node.padding, 2))
        divisor = 1 if kind == "SumPool2d" else None
        return nn.AvgPool2d(sizes[0], sizes[1], padding, divisor_override=divisor)  # type: ignore[arg-type]
    remedy = REMEDIES.get(kind, f"build the graph of {CONVERTIBLE}")
    raise ConversionError(f"node {name!r} ({kind}) cannot be converted: {remedy}")


def _linear(name: str, node: Any, source: Source) -> nn.Linear:
    weight = _tensor(node.weight, source)
    if weight.ndim != 2:
        raise ConversionError(f"node {name!r} has weights of shape {list(weight.shape)}, expected [targets, sources]")
    bias = getattr(node, "bias", None)
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=source.dtype)
    module.weight = nn.Parameter(weight)
    if bias is not None:
        module.bias = nn.Parameter(_tensor(bias, source))
    return module


def _convolution(node: Any, source: Source) -> nn.Conv2d:
    weight = _tensor(node.weight, source)
    padding = node.padding if isinstance(node.padding, str) else tuple(int(side) for side in node.padding)
    module = nn.Conv2d(
        weight.shape[1] * node.groups,
        weight.shape[0],
        tuple(weight.shape[2:]),  # type: ignore[arg-type]
        tuple(int(side) for side in node.stride),  # type: ignore[arg-type]
        padding,  # type: ignore[arg-type]
        tuple(int(side) for side in node.dilation),  # type: ignore[arg-type]
        int(node.groups),
        dtype=source.dtype,
    )
    module.weight = nn.Parameter(weight)
    module.bias = nn.Parameter(_tensor(np.broadcast_to(node.bias, weight.shape[0]), source))
    return module


def _tensor(values: Any, source: Source) -> Tensor:
    return torch.tensor(np.ascontiguousarray(values), dtype=source.dtype)


def _short(values: Any) -> str:
    return str(np.unique(values)[:3].tolist())
