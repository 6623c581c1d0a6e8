"""Graphs of other programs: the equations of NIR, dialects, and refusals that name the node."""

from itertools import pairwise

import numpy as np
import pytest
import torch

import hxtrain as hx
from hxtrain.exchange import ExchangeError
from hxtrain.exchange.agreement import random_spikes

nir = pytest.importorskip("nir")
DT = 1e-4
STEPS = 60
RNG = np.random.default_rng(0)
WEIGHT = (RNG.normal(size=(3, 4)) * 0.4 + 0.3).astype(np.float32)
ONES = np.ones(3)


def graph(*nodes: object, weight: object = None, edges: object = None) -> "nir.NIRGraph":
    """Return a graph of an input, weights, nodes, and an output."""
    linear = nir.Linear(WEIGHT) if weight is None else weight
    parts = [nir.Input({"input": np.array([4])}), linear, *nodes, nir.Output({"output": np.array([3])})]
    names = ["input", "fc", *(f"node{place}" for place in range(len(nodes))), "output"]
    chain = list(pairwise(names)) if edges is None else edges
    return nir.NIRGraph(nodes=dict(zip(names, parts, strict=True)), edges=chain, type_check=False)


def cuba(**fields: float | np.ndarray) -> "nir.CubaLIF":
    """Return current-based neurons."""
    values = {"tau_syn": 4e-4, "tau_mem": 6e-4, "r": 3.0, "v_leak": 0.0, "v_threshold": 1.5, "w_in": 2.0, **fields}
    return nir.CubaLIF(**{name: value * ONES for name, value in values.items()})


def euler(node: object, spikes: np.ndarray) -> np.ndarray:
    """Return the spikes of a population in forward Euler, from the equations of NIR."""
    leak = node.v_leak if hasattr(node, "v_leak") else 0.0
    current = np.zeros(3)
    voltage = np.zeros(3) + leak
    fired = []
    for values in spikes @ WEIGHT.T.astype(np.float64):
        if isinstance(node, nir.CubaLIF):
            current = current + DT / node.tau_syn * (node.w_in * values - current)
            voltage = voltage + DT / node.tau_mem * (leak - voltage + node.r * current)
        elif isinstance(node, nir.LIF):
            voltage = voltage + DT / node.tau * (leak - voltage + node.r * values)
        else:
            voltage = voltage + DT * node.r * values
        spiking = voltage > node.v_threshold
        voltage = np.where(spiking, leak, voltage)
        fired.append(spiking)
    return np.array(fired)


@pytest.mark.parametrize(
    ("node", "options"),
    [
        (cuba(), {}),
        (cuba(v_leak=0.5, v_reset=0.5, v_threshold=2.0), {}),
        (
            nir.CubaLIF(
                4e-4 * ONES, 6e-4 * ONES, np.array([1.0, 2.0, 4.0]), 0 * ONES, np.array([1.0, 0.5, 2.0]), w_in=4.0
            ),
            {},
        ),
        (nir.LIF(5e-4 * ONES, 5 * ONES, 0 * ONES, ONES), {}),
        (nir.IF(1e4 * ONES, 3 * ONES), {"approximate": True}),
    ],
)
def test_neurons_fire_as_in_forward_euler(node: object, options: dict[str, bool]) -> None:
    net = hx.from_nir(graph(node), dt=DT, steps=STEPS, **options)
    spikes = random_spikes(4, STEPS, 1)
    with torch.no_grad():
        fired = net(hx.Spikes.from_grid(spikes, DT)).layers[0].spikes[:, 0].numpy() > 0
    expected = euler(node, spikes[:, 0].numpy().astype(np.float64))
    assert expected.sum() > 10
    np.testing.assert_array_equal(fired[1:], expected[:-1])


def test_a_faster_network_has_the_same_spikes() -> None:
    spikes = random_spikes(4, STEPS, 1)
    slow = hx.from_nir(graph(cuba()), dt=DT, steps=STEPS)
    fast = hx.from_nir(graph(cuba()), dt=DT, steps=STEPS, speedup=100.0)
    assert fast.dt == pytest.approx(1e-6)
    with torch.no_grad():
        pair = [net(hx.Spikes.from_grid(spikes, net.dt)).layers[0].spikes for net in (slow, fast)]
    assert torch.equal(*pair)


def test_recurrent_populations_are_read_flat_and_nested() -> None:
    recurrent = nir.Linear(RNG.normal(size=(3, 3)).astype(np.float32))
    flat = graph(cuba())
    flat.nodes["rec"] = recurrent
    flat.edges += [("node0", "rec"), ("rec", "node0")]
    inner = {
        "in": nir.Input({"input": np.array([3])}),
        "lif": cuba(),
        "w": recurrent,
        "out": nir.Output({"output": np.array([3])}),
    }
    nested = nir.NIRGraph(inner, [("in", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "out")], type_check=False)
    nets = [hx.from_nir(source, dt=DT, steps=STEPS) for source in (flat, graph(nested))]
    weights = [net.effective_weights() for net in nets]
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))
    gain = 2.0 * DT / 4e-4 * 3.0 * DT / 6e-4 / 1.5
    torch.testing.assert_close(weights[0][1], gain * torch.tensor(recurrent.weight))


def test_weights_in_a_row_are_multiplied() -> None:
    scale = nir.Scale(np.array([1.0, 2.0, 3.0], dtype=np.float32))
    second = nir.Affine(np.eye(3, dtype=np.float32) * 2, np.zeros(3, dtype=np.float32))
    net = hx.from_nir(graph(scale, second, nir.LIF(5e-4 * ONES, 5 * ONES, 0 * ONES, ONES)), dt=DT, steps=STEPS)
    expected = WEIGHT * np.array([2.0, 4.0, 6.0], dtype=np.float32)[:, None]
    torch.testing.assert_close(net.effective_weights()[0], torch.tensor(expected))


REFUSALS = [
    (graph(cuba(v_reset=-0.5)), r"node 'node0' \(CubaLIF\) resets to v_reset=-0\.5, .* set both to the same value"),
    (graph(cuba(v_threshold=-1.0)), r"node 'node0' \(CubaLIF\) has the threshold -1 .* above the leak"),
    (graph(cuba(tau_mem=6.0)), r"tau_mem=6 s is not within 1e-07 \.\. 1 s; .* time_unit \(1e-3 for ms"),
    (graph(cuba(tau_mem=6e-5)), r"time constant of 6e-05 s, shorter than the step dt=0\.0001 s"),
    (graph(cuba(r=0.0)), r"node 'node0' \(CubaLIF\) has gains 0"),
    (
        graph(nir.LIF(np.array([1e-3, 2e-3, 3e-3]), ONES, 0 * ONES, ONES)),
        "tau differs between neurons, .* approximate=True",
    ),
    (graph(nir.IF(ONES, ONES)), r"neurons that leak with inf s, .* take this one with approximate=True"),
    (
        graph(nir.Delay(ONES)),
        r"node 'node0' \(Delay\) delays sums of inputs, those of node 'fc'; .* before the weights",
    ),
    (
        graph(cuba(), nir.Delay(ONES), nir.Linear(np.eye(3)), cuba()),
        r"node 'node1' \(Delay\) has .* put a Linear|node 'node1' \(Delay\) has no place in a network here: remove it",
    ),
    (
        graph(cuba(), weight=nir.Delay(np.array([0, 1, 2, -1.0]))),
        r"node 'fc' \(Delay\) has 4 delays from -1 to 2 for 4",
    ),
    (graph(nir.Threshold(ONES)), r"node 'node0' \(Threshold\) has no place"),
    (graph(nir.I(ONES)), r"node 'node0' \(I\) has no place in a network here: use LI"),
    (graph(), "ends in the weights of node 'fc'|the graph has no neurons"),
    (graph(cuba(), cuba()), r"node 'node1' \(CubaLIF\) has no weights before it; put a Linear in front"),
    (
        graph(cuba(), weight=nir.Linear(WEIGHT.T)),
        r"node 'fc' \(Linear\) has weights of shape \[4, 3\], .* transpose them",
    ),
    (
        graph(cuba(), weight=nir.Affine(WEIGHT, ONES)),
        r"node 'fc' \(Affine\) has biases up to 1; synapses have none: train",
    ),
    (
        graph(cuba(), edges=[("input", "fc"), ("fc", "node0"), ("node0", "node0"), ("node0", "output")]),
        "feeds itself with",
    ),
    (
        graph(cuba(), edges=[("input", "fc"), ("fc", "node0"), ("node0", "output"), ("fc", "output")]),
        "without branches",
    ),
    (graph(cuba(), edges=[("input", "fc"), ("fc", "node0")]), "node 'node0' feeds nothing"),
    (
        graph(cuba(v_leak=0.0, r=6.0 * np.exp(-1 / 6), w_in=1.0)),
        "which is what rockpool writes for this step",
    ),
]


@pytest.mark.parametrize(("source", "text"), REFUSALS)
def test_what_no_layer_does_is_refused(source: object, text: str) -> None:
    with pytest.raises(ExchangeError, match=text):
        hx.from_nir(source, dt=DT, steps=STEPS)


def test_a_loop_without_a_population_is_refused() -> None:
    source = graph(nir.Linear(np.eye(3)), nir.Linear(np.eye(3)), cuba())
    source.edges.append(("node1", "node0"))
    with pytest.raises(ExchangeError, match="node 'node0' gets the sum of 'fc', 'node1'"):
        hx.from_nir(source, dt=DT, steps=STEPS)


def test_the_step_must_be_given() -> None:
    with pytest.raises(ExchangeError, match="does not say dt, its time step"):
        hx.from_nir(graph(cuba()), steps=STEPS)
    with pytest.raises(ExchangeError, match="does not say steps"):
        hx.from_nir(graph(cuba()), dialect="snntorch")


def test_a_mean_of_time_constants_is_told(caplog) -> None:
    node = cuba(tau_mem=np.array([5e-4, 6e-4, 7e-4]))
    net = hx.from_nir(graph(node), dt=DT, steps=STEPS, approximate=True)
    assert net.layers[0].neurons.tau_mem == pytest.approx(-DT / np.log(1 - DT / 6e-4))
    spread = "node 'node0' (CubaLIF): tau_mem of 3 neurons, 0.0005 .. 0.0007 s, is replaced by its mean, 0.0006 s"
    assert f"{spread}; spikes differ from those of the graph" in caplog.text


def test_what_a_dialect_cannot_represent_needs_consent(caplog) -> None:
    node = nir.CubaLIF(5 * ONES, 8 * ONES, ONES, 0 * ONES, ONES)
    options = {"dt": 1.0, "steps": STEPS, "dialect": "spyx"}
    with pytest.raises(ExchangeError, match="has no equal here: it subtracts the threshold before the membrane decays"):
        hx.from_nir(graph(node), **options)
    net = hx.from_nir(graph(node), approximate=True, **options)
    assert "before the membrane decays" in caplog.text
    assert net.layers[0].neurons.refractory is None
    torch.testing.assert_close(net.effective_weights()[0], torch.tensor(WEIGHT))
