"""NIR graphs as layers of rates: equal outputs, refusals with the name of the node."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import samples
from torch import nn

from hxtrain.conversion import ConversionError, fold_batch_norm, from_nir

nir = pytest.importorskip("nir")
RNG = np.random.default_rng(0)


def chain(**nodes: object) -> "nir.NIRGraph":
    """Return a graph of nodes in a row."""
    names = list(nodes)
    return nir.NIRGraph(nodes=nodes, edges=list(pairwise(names)), type_check=False)


def convolutional() -> "nir.NIRGraph":
    """Return a graph with convolution, neurons of several thresholds, pooling by sums, and a linear output."""
    return chain(
        input=nir.Input({"input": np.array([1, 6, 6])}),
        conv=nir.Conv2d((6, 6), RNG.normal(size=(2, 1, 3, 3)), 1, "same", 1, 1, RNG.normal(size=2)),
        neurons=nir.IF(np.full((2, 6, 6), 2.0), np.stack([np.full((6, 6), 1.0), np.full((6, 6), 4.0)])),
        pool=nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        flatten=nir.Flatten({"input": np.array([2, 3, 3])}, 0),
        affine=nir.Affine(RNG.normal(size=(4, 18)), RNG.normal(size=4)),
        scale=nir.Scale(np.array([1.0, 2.0, 3.0, 4.0])),
        output=nir.Output({"output": np.array([4])}),
    )


def test_a_graph_has_the_outputs_of_its_equations(tmp_path: Path) -> None:
    graph = convolutional()
    nir.write(tmp_path / "graph.nir", graph)
    x = samples(7, 1, 6, 6) - 0.3
    weights = {name: torch.tensor(node.weight) for name, node in graph.nodes.items() if hasattr(node, "weight")}
    bias = {name: torch.tensor(graph.nodes[name].bias) for name in weights}
    rates = nn.functional.conv2d(x, weights["conv"], bias["conv"], padding="same").relu()
    rates = rates * torch.tensor([2.0, 0.5])[:, None, None]
    pooled = 4 * nn.functional.avg_pool2d(rates, 2)
    expected = nn.functional.linear(pooled.flatten(1), weights["affine"], bias["affine"]) * torch.arange(1, 5)
    for source in (graph, tmp_path / "graph.nir"):
        network = from_nir(source)
        torch.testing.assert_close(network.output(x), expected, atol=1e-9, rtol=0)
        folded = fold_batch_norm(network)
        assert [layer.name for layer in folded.layers] == ["conv2d_conv", "avgpool2d_pool", "linear_affine"]
        torch.testing.assert_close(folded.output(x), expected, atol=1e-9, rtol=0)


INPUT = nir.Input({"input": np.array([3])})
OUTPUT = nir.Output({"output": np.array([3])})
ONES = np.ones(3)


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (nir.LIF(ONES, ONES, 0 * ONES, ONES), r"node 'node' \(LIF\) cannot be converted: it leaks, .* IF neurons"),
        (nir.Delay(ONES), r"node 'node' \(Delay\) cannot be converted: build the graph of"),
        (nir.IF(ONES, ONES, ONES), r"node 'node' \(IF\) resets to v_reset=\[1\.0\]; only 0"),
        (nir.IF(-ONES, ONES), r"node 'node' \(IF\) has r / v_threshold = \[-1\.0\]; both must be positive"),
        (nir.Linear(np.ones((3, 4))), r"linear_node takes 4 features, the samples there have shape \[3\]"),
    ],
)
def test_nodes_that_cannot_be_converted_are_refused(node: object, text: str) -> None:
    with pytest.raises(ConversionError, match=text):
        from_nir(chain(input=INPUT, node=node, output=OUTPUT))


@pytest.mark.parametrize(
    ("edges", "text"),
    [
        ([("input", "a"), ("input", "b"), ("a", "output")], "node 'input' feeds 'a' and 'b'; give a graph without"),
        ([("input", "a"), ("a", "b"), ("b", "a")], "node 'a' is part of a loop"),
        ([("input", "a"), ("a", "output")], r"no chain from Input to Output; besides it has \['b'\]"),
    ],
)
def test_graphs_that_are_no_chain_are_refused(edges: list[tuple[str, str]], text: str) -> None:
    nodes = {"input": INPUT, "a": nir.Linear(np.eye(3)), "b": nir.Linear(np.eye(3)), "output": OUTPUT}
    with pytest.raises(ConversionError, match=text):
        from_nir(nir.NIRGraph(nodes=nodes, edges=edges, type_check=False))


def test_other_objects_are_refused() -> None:
    with pytest.raises(ConversionError, match=r"expected a nir\.NIRGraph or the path of its file, not Linear"):
        from_nir(nn.Linear(2, 2))
