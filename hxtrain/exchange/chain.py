"""From a NIR graph to a chain of populations with the weights onto each, or a refusal that names the node.

Subgraphs are read as if their nodes were part of the graph. Shape letters: `N` targets, `J` sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import ExchangeError
from .graphs import NEURONS

Array = npt.NDArray[Any]
DEEPEST = 4
"""Greatest depth of nested graphs."""
MOST_EDGES = 20_000
"""Greatest number of edges, once nodes that change nothing are left out."""
MOST_SYNAPSES = 2**26
"""Greatest size of a product of weights."""
REMEDIES: Mapping[str, str] = {
    "Conv1d": "write its layers as dense weights (Linear), or convert an artificial network (docs/conversion.md)",
    "Conv2d": "write its layers as dense weights (Linear), or convert an artificial network (docs/conversion.md)",
    "AvgPool2d": "multiply it into the next weights",
    "SumPool2d": "multiply it into the next weights",
    "Delay": "remove it: inputs may have delays here (Input, Delay, Linear), synapses between populations have none",
    "Threshold": "use neurons with a reset, such as LIF: a membrane that is not reset by its spike is none of a chip",
    "I": "use LI, whose leak may be slow",
}
"""Remedy for each kind of node that no network has."""


class Stage(NamedTuple):
    """A population of a graph, and the weights onto it.

    Attributes:
        name: Name of the node of the neurons.
        kind: Kind of this node.
        fields: Fields of this node, float64 `[N]`.
        weight: Weights from the previous population `[N, J]`.
        recurrent: Weights from the population itself `[N, N]`; None without any.
        weight_nodes: Names of the nodes of the weights: feed-forward, and recurrent if there are.
    """

    name: str
    kind: str
    fields: Mapping[str, Array]
    weight: Array
    recurrent: Array | None
    weight_nodes: tuple[str, ...]


class Terminals(NamedTuple):
    """Delays of the inputs of a graph.

    Attributes:
        name: Name of the node of the delays.
        copies: Number of terminals of each input `K`.
        delays: Delay of each terminal, float64 `[K J]`; terminal `k` of input n of J is number `k J + n`.
    """

    name: str
    copies: int
    delays: Array


class Chain(NamedTuple):
    """What a graph computes.

    Attributes:
        stages: Populations, from the first to the output.
        readout: Weights after the last population `[N, J]`, in a graph that ends in weights; None otherwise.
        readout_node: Name of the node of these weights.
        terminals: Delays of the inputs; None without any.
    """

    stages: list[Stage]
    readout: Array | None = None
    readout_node: str = ""
    terminals: Terminals | None = None


def read_chain(graph: Any, recurrent_input: bool = False) -> Chain:
    """Return the chain of a graph.

    Args:
        graph: `nir.NIRGraph`.
        recurrent_input: Whether an edge from the input of a subgraph to its recurrent weights stands for one to the
            neurons, as spyx writes it.

    Raises:
        ExchangeError: The graph is no chain from an input to an output, or has a node that no network has.
    """
    return _Walk(_Inlined(graph, recurrent_input)).chain()


class _Inlined:
    """The nodes of a graph and of its subgraphs, without those that change nothing.

    Attributes:
        nodes: Nodes by name.
        downstream: Names of the nodes after each, without repetition.
        upstream: Names of the nodes before each.
    """

    def __init__(self, graph: Any, recurrent_input: bool) -> None:
        self.nodes: dict[str, Any] = {}
        self._edges: dict[tuple[str, str], None] = {}
        self._recurrent_input = recurrent_input
        self._add(graph, "", 0)
        self._drop_transparent()
        self.downstream: dict[str, list[str]] = {name: [] for name in self.nodes}
        self.upstream: dict[str, list[str]] = {name: [] for name in self.nodes}
        for start, end in self._edges:
            self.downstream[start].append(end)
            self.upstream[end].append(start)

    def _add(self, graph: Any, prefix: str, depth: int) -> None:
        """Add the nodes of a graph, and of its subgraphs; a subgraph's ends are named after it."""
        if depth > DEEPEST:
            raise ExchangeError(f"node {prefix!r}: graphs are nested more than {DEEPEST} deep; write them as one graph")
        entry: dict[str, str] = {}
        exit_: dict[str, str] = {}
        for name, node in graph.nodes.items():
            label = f"{prefix}{name}"
            if type(node).__name__ != "NIRGraph":
                self.nodes[label] = node
                continue
            self._add(node, f"{label}.", depth + 1)
            entry[name] = _only_end(node, f"{label}.", label, "Input")
            exit_[name] = _only_end(node, f"{label}.", label, "Output")
        for start, end in graph.edges:
            if start not in graph.nodes or end not in graph.nodes:
                raise ExchangeError(f"edge {start!r} -> {end!r} has no node; write the graph anew")
            pair = (exit_.get(start, f"{prefix}{start}"), entry.get(end, f"{prefix}{end}"))
            self._edges[self._redirected(graph, start, end, prefix) or pair] = None

    def _redirected(self, graph: Any, start: str, end: str, prefix: str) -> tuple[str, str] | None:
        """Return the edge to the neurons that stands in for one from a subgraph's input to its recurrent weights."""
        if not self._recurrent_input or not prefix or type(graph.nodes[start]).__name__ != "Input":
            return None
        if type(graph.nodes[end]).__name__ not in ("Linear", "Affine"):
            return None
        neurons = [targets for sources, targets in graph.edges if sources == end]
        return (f"{prefix}{start}", f"{prefix}{neurons[0]}") if len(neurons) == 1 else None

    def _drop_transparent(self) -> None:
        """Remove ends of subgraphs and nodes that only change a shape, and join the edges around them."""
        names = [name for name, node in self.nodes.items() if type(node).__name__ in ("Input", "Output", "Flatten")]
        for name in names:
            sources = [start for start, end in self._edges if end == name]
            targets = [end for start, end in self._edges if start == name]
            if not sources or not targets:
                continue
            if name in sources:
                raise ExchangeError(f"node {name!r} feeds itself; remove this edge")
            self._edges = {pair: None for pair in self._edges if name not in pair}
            if len(self._edges) + len(sources) * len(targets) > MOST_EDGES:
                raise ExchangeError(
                    f"node {name!r} joins {len(sources)} x {len(targets)} edges; give a chain of layers"
                )
            self._edges |= {(start, end): None for start in sources for end in targets}
            del self.nodes[name]


def _only_end(graph: Any, prefix: str, label: str, kind: str) -> str:
    names = [name for name, node in graph.nodes.items() if type(node).__name__ == kind]
    if len(names) != 1:
        raise ExchangeError(f"node {label!r}, a subgraph, has {len(names)} nodes {kind}; give it one")
    return f"{prefix}{names[0]}"


class _Walk:
    """The walk from the input to the output."""

    def __init__(self, inlined: _Inlined) -> None:
        self._nodes = inlined.nodes
        self._downstream = inlined.downstream
        self._upstream = inlined.upstream
        self._visited: set[str] = set()

    def chain(self) -> Chain:
        """Return the populations on the way."""
        start = self._only("Input")
        end = self._only("Output")
        sides = np.atleast_1d(self._nodes[start].input_type["input"]).tolist()
        size = int(np.prod(sides))
        self._visited.add(start)
        stages: list[Stage] = []
        current = self._next(start, [])
        terminals = self._terminals(current, size)
        if terminals is not None:
            size = terminals.delays.size
            current = self._next(terminals.name, [])
        while True:
            current, weight, name = self._weights(current, size)
            if current == end:
                break
            stage = self._stage(current, weight, name)
            stages.append(stage)
            size = len(stage.weight)
            current = self._next(current, list(stage.weight_nodes[1:]))
            if current == end:
                weight = None
                break
        self._visited.add(end)
        rest = sorted(set(self._nodes) - self._visited)
        if rest:
            raise ExchangeError(
                f"nodes {', '.join(map(repr, rest[:3]))} are not on the way from input to output; remove them"
            )
        if not stages:
            raise ExchangeError("the graph has no neurons; it needs LIF, CubaLIF or others after its weights")
        return Chain(stages, weight, "" if weight is None else name, terminals)

    def _terminals(self, name: str, inputs: int) -> Terminals | None:
        """Return the delays of the inputs if a graph begins with them: Delay, or Linear that copies inputs, and Delay.

        Raises:
            ExchangeError: The weights before the delays are no copies, or a delay is negative or infinite.
        """
        copying = name if type(self._nodes[name]).__name__ in ("Linear", "Affine") else ""
        delaying = self._downstream[name][0] if copying and len(self._downstream[name]) == 1 else name
        if type(self._nodes[delaying]).__name__ != "Delay":
            return None
        copies = 1
        if copying:
            self._visited.add(copying)
            self._require_single_source(copying)
            matrix = self._matrix_for(copying, type(self._nodes[copying]).__name__, inputs)
            copies, rest = divmod(len(matrix), inputs)
            if rest or not np.array_equal(matrix, np.tile(np.eye(inputs, dtype=matrix.dtype), (copies, 1))):
                raise ExchangeError(
                    f"node {delaying!r} (Delay) delays sums of inputs, those of node {copying!r}; only inputs have "
                    "delays here: put the Delay before the weights, or weights of ones between input and Delay that "
                    "repeat all inputs K times, in their order"
                )
        self._visited.add(delaying)
        self._require_single_source(delaying)
        values = np.ravel(np.asarray(self._nodes[delaying].delay, dtype=np.float64))
        size = copies * inputs
        if values.size not in (1, size) or not np.all(np.isfinite(values) & (values >= 0)):
            raise ExchangeError(
                f"node {delaying!r} (Delay) has {values.size} delays {_range(values)} for {size} inputs of it; give "
                "one finite delay >= 0 for each"
            )
        return Terminals(delaying, copies, np.broadcast_to(values, size))

    def _only(self, kind: str) -> str:
        names = [name for name, node in self._nodes.items() if type(node).__name__ == kind]
        if len(names) != 1:
            raise ExchangeError(f"the graph has {len(names)} nodes {kind}; give it a single one")
        return names[0]

    def _next(self, name: str, recurrent: list[str]) -> str:
        """Return the node after a node, apart from its recurrent weights."""
        targets = [node for node in self._downstream[name] if node not in recurrent]
        if len(targets) != 1:
            raise ExchangeError(
                f"node {name!r} feeds {', '.join(map(repr, targets[:4])) or 'nothing'}; a network here is a chain, in "
                "which "
                "each population feeds the next one and, at most, itself: give a graph without branches"
            )
        if targets[0] in self._visited:
            raise ExchangeError(
                f"node {name!r} feeds {targets[0]!r} again, which is a loop; a population may feed itself through one "
                "Linear, with a delay of a step: no other loop is computed here"
            )
        return targets[0]

    def _weights(self, name: str, size: int) -> tuple[str, Array | None, str]:
        """Return the first node after the weights that start at a node, their product, and the name of the last."""
        weight: Array | None = None
        factor: Array | None = None
        last = ""
        while (kind := type(self._nodes[name]).__name__) in ("Linear", "Affine", "Scale"):
            self._visited.add(name)
            self._require_single_source(name)
            units = size if weight is None else len(weight)
            if kind == "Scale":
                scale = _scale(name, self._nodes[name], units)
                factor = scale if factor is None else factor * scale
            else:
                matrix = self._matrix_for(name, kind, units)
                matrix = matrix if factor is None else matrix * factor
                weight = matrix if weight is None else self._product(name, matrix, weight)
                factor = None
                last = name
            name = self._next(name, [])
        if factor is not None and weight is not None:
            weight = factor[:, None] * weight if factor.size > 1 else factor * weight
        return name, weight, last

    def _matrix_for(self, name: str, kind: str, sources: int) -> Array:
        matrix = _matrix(name, kind, self._nodes[name])
        if matrix.shape[1] != sources:
            raise ExchangeError(
                f"node {name!r} ({kind}) has weights of shape {list(matrix.shape)}, [targets, sources], for {sources} "
                f"sources{'; transpose them' if matrix.shape[0] == sources else ''}"
            )
        return matrix

    def _product(self, name: str, matrix: Array, weight: Array) -> Array:
        """Return the product of weights that follow one another, without neurons between them."""
        if len(matrix) * weight.shape[1] > MOST_SYNAPSES:
            raise ExchangeError(
                f"node {name!r}: its product with the weights before it has {len(matrix)} x {weight.shape[1]} "
                "synapses; "
                "put neurons between them"
            )
        return matrix @ weight

    def _stage(self, name: str, weight: Array | None, weight_node: str) -> Stage:
        node = self._nodes[name]
        kind = type(node).__name__
        self._visited.add(name)
        if kind not in NEURONS or kind in REMEDIES:
            remedy = REMEDIES.get(kind, f"build the graph of Linear, Affine, Scale, Flatten and {', '.join(NEURONS)}")
            raise ExchangeError(f"node {name!r} ({kind}) has no place in a network here: {remedy}")
        if weight is None:
            raise ExchangeError(f"node {name!r} ({kind}) has no weights before it; put a Linear in front of it")
        size = len(weight)
        recurrent_node = self._recurrent(name)
        recurrent = None
        if recurrent_node:
            self._visited.add(recurrent_node)
            recurrent = _matrix(recurrent_node, "Linear", self._nodes[recurrent_node])
            if recurrent.shape != (size, size):
                raise ExchangeError(
                    f"node {recurrent_node!r} has recurrent weights of shape {list(recurrent.shape)} for the {size} "
                    f"neurons of {name!r}"
                )
        self._require_single_source(name, recurrent_node)
        nodes = (weight_node, recurrent_node) if recurrent_node else (weight_node,)
        return Stage(name, kind, _fields(name, kind, node, size), weight, recurrent, nodes)

    def _recurrent(self, name: str) -> str:
        """Return the name of the node of the recurrent weights of neurons; an empty one without any."""
        if name in self._downstream[name]:
            raise ExchangeError(f"node {name!r} feeds itself without weights; put a Linear into this loop")
        back = [
            targets
            for targets in self._downstream[name]
            if self._downstream[targets] == [name] and type(self._nodes[targets]).__name__ in ("Linear", "Affine")
        ]
        if len(back) > 1:
            raise ExchangeError(f"node {name!r} has {len(back)} recurrent weights {', '.join(back)}; add them up")
        return back[0] if back else ""

    def _require_single_source(self, name: str, recurrent: str = "") -> None:
        sources = [source for source in self._upstream[name] if source != recurrent]
        if len(sources) != 1:
            raise ExchangeError(
                f"node {name!r} gets the sum of {', '.join(map(repr, sources[:4]))}; a population here has one source "
                "besides itself (recurrent graphs of spyx are read with dialect='spyx')"
            )


def _range(values: Array) -> str:
    """Return the smallest and the largest value as text."""
    return f"from {values.min():.4g} to {values.max():.4g}" if values.size else ""


def _scale(name: str, node: Any, units: int) -> Array:
    """Return the factors of a node of kind Scale, `[J]` or `[1]`."""
    factor = np.ravel(np.asarray(node.scale))
    if factor.size not in (1, units):
        raise ExchangeError(f"node {name!r} (Scale) has {factor.size} factors for {units} units")
    return factor


def _matrix(name: str, kind: str, node: Any) -> Array:
    """Return the weights `[N, J]` of a node.

    Raises:
        ExchangeError: They are no finite matrix, or there is a bias.
    """
    weight = np.asarray(node.weight)
    if weight.ndim != 2 or weight.dtype.kind not in "fiu" or not np.all(np.isfinite(weight)):
        raise ExchangeError(
            f"node {name!r} ({kind}) has weights of shape {list(weight.shape)} and type {weight.dtype}; expected a "
            "matrix [targets, sources] of finite numbers"
        )
    bias = np.asarray(getattr(node, "bias", 0.0))
    if np.any(bias != 0):
        raise ExchangeError(
            f"node {name!r} ({kind}) has biases up to {np.max(np.abs(bias)):.3g}; synapses have none: train it without "
            "(bias=False), or give the population an input that fires in every step"
        )
    return weight if weight.dtype.kind == "f" else weight.astype(np.float32)


def _fields(name: str, kind: str, node: Any, size: int) -> dict[str, Array]:
    """Return the fields of neurons `[N]`.

    Raises:
        ExchangeError: They belong to another number of neurons, or are not finite.
    """
    fields = {}
    for key in ("tau", "tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"):
        value = getattr(node, key, None)
        if value is None:
            continue
        values = np.ravel(np.asarray(value, dtype=np.float64))
        if values.size not in (1, size) or not np.all(np.isfinite(values)):
            raise ExchangeError(
                f"node {name!r} ({kind}): {key} has {values.size} values for {size} neurons, all of which must be "
                "finite"
            )
        fields[key] = np.broadcast_to(values, size)
    return fields
