"""Networks to NIR graphs and back: equal bits, equal recordings, and refusals of what NIR cannot say."""

from pathlib import Path

import numpy as np
import pytest
import torch

import hxtrain as hx
from hxtrain.exchange import ExchangeError, Times, read_nir
from hxtrain.exchange.agreement import random_spikes
from hxtrain.exchange.to_nir import deviations
from hxtrain.network import NETWORKS, DelayedNetwork, DelayedNetworkConfig, NetworkConfig
from hxtrain.network.winner_take_all import WinnerTakeAll
from hxtrain.runs.checkpoint import CheckpointError

pytest.importorskip("nir")


def network(refractory: float | None = 0.0, **settings: object) -> hx.Network:
    """Return a recurrent network with a mask, dropout and a readout."""
    generator = torch.Generator().manual_seed(0)
    net = hx.Network(
        hx.Linear(6, 9, 0.1),
        hx.LIF(9, 7e-6, 5e-6, slope=5.0, refractory=refractory),
        hx.Recurrent(9),
        hx.Dropout(0.2),
        hx.Linear(9, 4, mask=torch.rand(4, 9, generator=generator) < 0.5),
        hx.LI(4),
        steps=30,
        seed=1,
        **settings,
    )
    return net.double() if settings.pop("double", False) else net


class Subclass(hx.Network):
    """A network of a user's own class."""


def same_weights(net: hx.Network, restored: hx.Network) -> bool:
    """Return whether all effective weights have equal bits."""
    pairs = zip(net.effective_weights(), restored.effective_weights(), strict=True)
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)


@pytest.mark.parametrize("readout", ["CubaLI", "omit"])
@pytest.mark.parametrize(
    ("discretisation", "dialect"),
    [("euler", "none"), ("continuous", "none"), ("euler", "snntorch"), ("continuous", "hxtorch")],
)
def test_a_network_comes_back_with_equal_bits(tmp_path: Path, discretisation: str, dialect: str, readout: str) -> None:
    net = network(0.5e-6)
    options = {"discretisation": discretisation, "dialect": dialect, "readout": readout, "approximate": True}
    parameters = {"layer0": {"tau_mem": np.linspace(5e-6, 6e-6, 9)}}
    loss = hx.MeanOverTime()
    encoder = hx.LinearLatencyEncoder()
    hx.save(net, tmp_path / "net.nir", encoder, loss, parameters=parameters, **options)
    content = read_nir(tmp_path / "net.nir")
    assert same_weights(net, content.net)
    assert repr(content.net) == repr(net)
    assert content.net.program.description == net.program.description
    assert (content.encoder, type(content.loss)) == (encoder, type(loss))
    np.testing.assert_array_equal(content.parameters["layer0"]["tau_mem"], parameters["layer0"]["tau_mem"])
    assert torch.equal(content.net.layers[1].linear.mask, net.layers[1].linear.mask)
    assert hx.load(tmp_path / "net.nir").encoder == encoder


def test_weights_in_double_precision_and_inhibition_come_back() -> None:
    net = hx.Network(hx.Linear(5, 3), hx.LIF(3, refractory=0.0), hx.LateralInhibition(3, 0.3), seed=2).double()
    restored = hx.from_nir(hx.to_nir(net))
    assert same_weights(net, restored)
    assert isinstance(restored.layers[0].recurrent, hx.LateralInhibition)


def test_integers_identity_and_recording_are_those_of_the_chip(tmp_path: Path) -> None:
    net = hx.Network(hx.Linear(6, 9, 0.1), hx.LIF(9, refractory=0.0), hx.Linear(9, 4), hx.LI(4), steps=20, seed=3)
    spikes = hx.Spikes.from_grid(random_spikes(6, 20, 0, samples=3), net.dt)
    with hx.open_device("emulator", chip="W66F3") as device, torch.no_grad():
        net.attach(device)
        hx.save(net, tmp_path / "net.nir")
        recorded = net(spikes)
        integers, scales = device.plan.quantise(net.effective_weights())
        identity = dict(device.backend.identity)
    content = read_nir(tmp_path / "net.nir")
    assert content.device == identity
    assert "calibration" in content.device
    assert list(content.scales.values()) == scales
    for name, weight in integers.items():
        np.testing.assert_array_equal(content.integers[name], weight.numpy())
        assert content.integers[name].dtype == np.int8
    with hx.open_device("emulator", chip="W66F3") as device, torch.no_grad():
        content.net.attach(device)
        repeated_integers, _ = device.plan.quantise(content.net.effective_weights())
        repeated = content.net(spikes)
    assert all(torch.equal(integers[name], repeated_integers[name]) for name in integers)
    assert torch.equal(recorded.layers[0].spikes, repeated.layers[0].spikes)
    assert torch.equal(recorded.output, repeated.output)


@pytest.mark.parametrize("discretisation", ["euler", "continuous"])
def test_the_graph_alone_says_the_same(discretisation: str) -> None:
    net = network()
    graph = hx.to_nir(net, discretisation=discretisation)
    restored = hx.from_nir(graph, dt=net.dt, steps=net.steps, discretisation=discretisation, metadata=False)
    assert same_weights(net, restored)
    spikes = hx.Spikes.from_grid(random_spikes(6, 30, 0), net.dt)
    with torch.no_grad():
        expected = net(spikes)
        activity = restored(spikes)
    assert expected.layers[0].spikes.sum() > 10
    assert torch.equal(activity.layers[0].spikes, expected.layers[0].spikes)
    torch.testing.assert_close(activity.output, expected.output, atol=1e-5, rtol=0)


def test_continuous_parameters_solve_the_equations_of_nir() -> None:
    net = hx.Network(hx.Linear(1, 1), hx.LI(1, 7e-6, 4e-6), steps=12).double()
    with torch.no_grad():
        net.layers[0].linear.weight.fill_(0.8)
        trace = net(hx.Spikes.from_grid(torch.eye(12)[:, :1].unsqueeze(1), net.dt)).output[:, 0, 0]
    node = hx.to_nir(net, discretisation="continuous").nodes["layer0"]
    fine = 40
    mem, syn, r = (float(getattr(node, name)[0]) for name in ("tau_mem", "tau_syn", "r"))
    h = net.dt / fine
    current = 0.8 * float(node.w_in[0]) * net.dt / syn  # a spike is a pulse of area dt
    voltage = 0.0
    samples = []
    for step in range(11 * fine + 1):
        if step % fine == 0:
            samples.append(voltage)
        drive = r * current * (1 + np.exp(-h / syn)) / 2
        voltage = (voltage * (1 - h / (2 * mem)) + h / mem * drive) / (1 + h / (2 * mem))
        current *= np.exp(-h / syn)
    np.testing.assert_allclose(trace.numpy(), samples, atol=1e-3)


@pytest.mark.parametrize(
    ("net", "text"),
    [
        (network(None), r"layer0 subtracts the threshold in software .* network\.refractory=0, .* approximate=True"),
        (network(2e-6), r"layer0 has a refractory period of 2e-06 s"),
        (Subclass(hx.Linear(2, 2), hx.LI(2)), "Subclass cannot be written: .* write a Network of the same modules"),
    ],
)
def test_what_nir_cannot_say_is_refused(net: hx.Network, text: str) -> None:
    with pytest.raises(ExchangeError, match=text):
        hx.to_nir(net)


KINDS = {
    "lif": NetworkConfig(hidden=[5], refractory=2e-6, recurrent=True),
    "winner_take_all": WinnerTakeAll(),
    "delayed": DelayedNetworkConfig(hidden=[5], refractory=0.0, delays=[0.0, 1e-6, 5e-6]),
}


def test_every_kind_of_network_has_a_round_trip() -> None:
    assert sorted(KINDS) == sorted(point for point, kind in NETWORKS.points().items() if "hxtrain." in kind.value)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("name", ["net.nir", "net.pt"])
def test_each_kind_of_network_comes_back_from_a_file(tmp_path: Path, kind: str, name: str) -> None:
    net = KINDS[kind].build(4, 3, seed=2)
    if isinstance(net, DelayedNetwork):
        with torch.no_grad():
            net.delays[1:3] = torch.tensor([-0.25, 1.2345678])
    options = {"approximate": True} if name.endswith("nir") and deviations(net) else {}
    hx.save(net, tmp_path / name, **options)
    restored = hx.load(tmp_path / name).net
    assert (type(restored), repr(restored)) == (type(net), repr(net))
    assert restored.state_dict().keys() == net.state_dict().keys()
    assert all(torch.equal(restored.state_dict()[key], value) for key, value in net.state_dict().items())
    spikes = hx.Spikes.from_grid(random_spikes(4, net.steps, 0, samples=2), net.dt)
    with torch.no_grad():
        assert torch.equal(restored(spikes).output, net(spikes).output)


def test_delays_of_inputs_are_nodes_of_the_graph() -> None:
    net = DelayedNetworkConfig(hidden=[5], refractory=0.0, delays=[0.0, 2e-6]).build(3, 2, seed=2)
    graph = hx.to_nir(net)
    np.testing.assert_array_equal(graph.nodes["terminals"].weight, np.tile(np.eye(3), (2, 1)))
    np.testing.assert_allclose(graph.nodes["delays"].delay, [0, 0, 0, 2e-6, 2e-6, 2e-6])
    foreign = hx.from_nir(graph, dt=net.dt, steps=net.steps, metadata=False)
    spikes = hx.Spikes.from_grid(random_spikes(3, net.steps, 0), net.dt)
    with torch.no_grad():
        torch.testing.assert_close(foreign(spikes).output, net(spikes).output)
    graph.nodes["delays"].delay[4] = 3e-6
    with pytest.raises(ExchangeError, match=r"node 'delays' with other delays, .* was changed after it was written"):
        hx.from_nir(graph)
    graph.nodes["terminals"].weight[0, 1] = 1.0
    with pytest.raises(
        ExchangeError, match=r"node 'delays' \(Delay\) delays sums of inputs, those of node 'terminals'"
    ):
        hx.from_nir(graph)


def test_an_existing_file_is_kept(tmp_path: Path, mocker) -> None:
    net = network()
    for name in ("net.nir", "net.npz", "net.pt"):
        hx.save(net, tmp_path / name)
        content = (tmp_path / name).read_bytes()
        mocker.patch("os.replace", side_effect=OSError(28, "No space left on device"))
        with pytest.raises(CheckpointError, match=r"could not be written \(No space left on device\)"):
            hx.save(net, tmp_path / name)
        assert (tmp_path / name).read_bytes() == content
        mocker.stopall()
        hx.save(net, tmp_path / name)
        assert (tmp_path / name.replace(".", ".previous.")).read_bytes() == content
    assert sorted(file.name for file in tmp_path.iterdir() if "previous" not in file.name) == [
        "net.nir",
        "net.npz",
        "net.pt",
    ]
    with pytest.raises(ValueError, match="is a folder; give the path of a file in it"):
        hx.save(net, tmp_path)
    with pytest.raises(ValueError, match="path='' is empty"):
        hx.save(net, "")


def test_a_graph_that_was_changed_contradicts_its_metadata() -> None:
    graph = hx.to_nir(network())
    graph.nodes["layer0"].v_threshold = graph.nodes["layer0"].v_threshold * 2
    with pytest.raises(ExchangeError, match=r"node 'layer0' .* was changed after it was written; .* metadata=False"):
        hx.from_nir(graph)
    changed = hx.from_nir(graph, dt=1.7e-6, steps=30, metadata=False)
    torch.testing.assert_close(changed.effective_weights()[0], network().effective_weights()[0] / 2)
    with pytest.raises(ExchangeError, match="its metadata say dt, steps and discretisation"):
        read_nir(graph, Times(dt=1e-3))


def test_sizes_of_metadata_take_no_memory(mocker) -> None:
    graph = hx.to_nir(network())
    graph.metadata["hxtrain"] = graph.metadata["hxtrain"].replace('"inputs": 6', '"inputs": 60000000')
    drawn = mocker.spy(torch, "randn")
    with pytest.raises(ExchangeError, match="was changed after it was written"):
        hx.from_nir(graph)
    assert not drawn.called
    graph.metadata["hxtrain"] = '{"version": 7}'
    with pytest.raises(ExchangeError, match="they have version 7, this version reads 1"):
        hx.from_nir(graph)
