"""Graphs of the Neuromorphic Intermediate Representation (NIR): read, checked, written; needs the extra `nir`.

Nodes are checked before the package makes them, since it broadcasts some parameters against others.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ExchangeError
from .files import output
from .hdf5 import MOST_BYTES, read_tree

INSTALL = 'install it with `pip install "hxtrain[nir]"`'
ROOT = "node"
"""Group of a NIR file that holds the graph."""
KINDS: Mapping[str, tuple[str, ...]] = {
    "Affine": ("weight", "bias"),
    "AvgPool2d": ("kernel_size", "stride", "padding"),
    "Conv1d": ("input_shape", "weight", "stride", "padding", "dilation", "groups", "bias"),
    "Conv2d": ("input_shape", "weight", "stride", "padding", "dilation", "groups", "bias"),
    "CubaLI": ("tau_syn", "tau_mem", "r", "v_leak", "w_in"),
    "CubaLIF": ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"),
    "Delay": ("delay",),
    "Flatten": ("start_dim", "end_dim", "input_type"),
    "I": ("r",),
    "IF": ("r", "v_threshold", "v_reset"),
    "Input": ("shape",),
    "LI": ("tau", "r", "v_leak"),
    "LIF": ("tau", "r", "v_leak", "v_threshold", "v_reset"),
    "Linear": ("weight",),
    "NIRGraph": ("nodes", "edges"),
    "Output": ("shape",),
    "Scale": ("scale",),
    "SumPool2d": ("kernel_size", "stride", "padding"),
    "Threshold": ("threshold",),
}
"""Fields of each kind of node, but `type` and `metadata`."""
NEURONS = ("CubaLI", "CubaLIF", "I", "IF", "LI", "LIF")
"""Kinds of nodes with a state, whose fields have the shape of the population."""
OPTIONAL = ("v_reset", "w_in", "input_type", "input_shape")
"""Fields that a node may lack."""
SHAPES = ("shape", "input_shape", "input_type")
"""Fields that hold a shape."""


def nir_package() -> Any:
    """Return the package `nir`.

    Raises:
        ExchangeError: It is not installed.
    """
    try:
        import nir
    except ImportError as error:
        raise ExchangeError(f"a NIR graph needs the package nir; {INSTALL}") from error
    return nir


def read_graph(source: Any) -> Any:
    """Return a graph: the same, or that of a file, which is checked before memory is allocated for it.

    Args:
        source: `nir.NIRGraph`, or the path of its file.

    Raises:
        ExchangeError: The package is missing, the file is damaged or hostile, or it holds no graph.
    """
    nir = nir_package()
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        return _node(path, "the graph", read_tree(path, ROOT), 0)
    if not isinstance(source, nir.NIRGraph):
        raise ExchangeError(f"expected a nir.NIRGraph or the path of its file, not {type(source).__name__}")
    return source


def write_graph(graph: Any, path: str | Path) -> None:
    """Write a graph into a file; an existing one is kept as `NAME.previous.nir`.

    Raises:
        CheckpointError: The file cannot be written.
    """
    content = io.BytesIO()
    nir_package().write(content, graph)
    with output(path) as file:
        file.write(content.getvalue())


def node_at(graph: Any, name: str) -> Any:
    """Return a node by its name; that of a node of a subgraph is `subgraph.node`."""
    if name in graph.nodes:
        return graph.nodes[name]
    start, _, rest = name.partition(".")
    return node_at(graph.nodes[start], rest)


def _node(path: Path, name: str, values: Mapping[str, Any], depth: int) -> Any:
    """Return a node of plain values after a check of its fields.

    Raises:
        ExchangeError: A field is missing, unknown, or of another type or shape.
    """
    kind = values.get("type")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ExchangeError(
            f"{path}: {name} is of the unknown kind {str(kind)[:40]!r}; NIR has {', '.join(sorted(KINDS))}"
        )
    fields = {key: value for key, value in values.items() if key not in ("type", "metadata")}
    metadata = values.get("metadata", {})
    if kind == "NIRGraph" and depth == 0:
        fields.pop("version", None)
    unknown = sorted(set(fields) - set(KINDS[kind]))
    missing = [field for field in KINDS[kind] if field not in fields and field not in OPTIONAL]
    if unknown or missing or not isinstance(metadata, dict):
        raise ExchangeError(
            f"{path}: {name} ({kind}) lacks {', '.join(missing) or 'nothing'} and has "
            f"{', '.join(unknown)[:80] or 'no'} "
            f"unknown fields; its fields are {', '.join(KINDS[kind])}"
        )
    nir = nir_package()
    try:
        if kind == "NIRGraph":
            return _graph(path, name, fields, metadata, depth)
        _check_fields(path, name, kind, fields)
        return nir.dict2NIRNode({**fields, "type": kind, "metadata": metadata})
    except ExchangeError:
        raise
    except (AssertionError, ValueError, TypeError, KeyError, IndexError, AttributeError, ZeroDivisionError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ExchangeError(f"{path}: {name} ({kind}) makes no node ({reason}); write the graph anew") from error


def _graph(path: Path, name: str, fields: Mapping[str, Any], metadata: dict[str, Any], depth: int) -> Any:
    """Return a graph of plain values; types of edges are left to those who use it."""
    nodes = fields["nodes"]
    edges = fields["edges"]
    if not isinstance(nodes, dict) or not all(isinstance(node, dict) for node in nodes.values()):
        raise ExchangeError(f"{path}: {name} has nodes that are no groups; write the graph anew with `nir.write`")
    if not isinstance(edges, np.ndarray) or edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype != object:
        raise ExchangeError(f"{path}: {name} has edges that are no pairs of names; write the graph anew")
    pairs = [(str(start), str(end)) for start, end in edges]
    strange = sorted({node for pair in pairs for node in pair} - set(nodes))
    if strange:
        raise ExchangeError(f"{path}: {name} has edges of {strange[0][:60]!r}, which is no node of it; write it anew")
    children = {key: _node(path, f"node {key!r}", node, depth + 1) for key, node in nodes.items()}
    return nir_package().NIRGraph(nodes=children, edges=pairs, metadata=metadata, type_check=False)


def _check_fields(path: Path, name: str, kind: str, fields: dict[str, Any]) -> None:
    """Check that fields are numbers, that a population's fields have one shape, and that shapes are small.

    Raises:
        ExchangeError: They are not.
    """
    for key, value in fields.items():
        if key in SHAPES and value is not None:
            sides = [int(side) for side in np.atleast_1d(np.asarray(value)).ravel()]
            if any(side < 1 for side in sides) or len(sides) > 6 or math.prod(sides) * 8 > MOST_BYTES:
                raise ExchangeError(f"{path}: {name} ({kind}) has the shape {str(sides)[:60]}, which is no layer's")
        elif not isinstance(value, np.ndarray | int | float | bool) and not (
            kind.startswith("Conv") and key == "padding"
        ):
            raise ExchangeError(f"{path}: {name} ({kind}): {key} is a {type(value).__name__}, expected numbers")
    if kind in NEURONS:
        shapes = {key: np.shape(value) for key, value in fields.items()}
        largest = max(shapes.values(), key=len)
        for key, shape in shapes.items():
            if shape not in ((), (1,), largest):
                raise ExchangeError(f"{path}: {name} ({kind}): {key} has the shape {shape}, other fields {largest}")
        for key, value in fields.items():
            fields[key] = np.array(np.broadcast_to(value, largest))
