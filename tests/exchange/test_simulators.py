"""Other simulators, where they are installed: equal spikes of random networks, and the verdicts of `readers`."""

import numpy as np
import pytest

import hxtrain as hx
from hxtrain.exchange.agreement import agreement, differing_bins, random_network, random_spikes
from hxtrain.exchange.errors import ExchangeError
from hxtrain.exchange.readers import DIFFERS, EQUAL, REFUSES, verdicts
from hxtrain.exchange.simulators import EXACT, SIMULATORS, Simulator
from hxtrain.exchange.to_nir import DIALECTS

pytest.importorskip("nir")
INSTALLED = [name for name in EXACT if SIMULATORS[name].is_installed]


@pytest.mark.skipif(not INSTALLED, reason="no simulator is installed")
def test_random_networks_have_equal_spikes() -> None:
    for result in agreement(INSTALLED, 4):
        assert (result.networks, result.differing, result.refusals) == (4, 0, ())
        assert 0.05 * result.bins < result.spikes < 0.8 * result.bins


@pytest.mark.parametrize("name", [name for name in INSTALLED if name != "SpikingJelly"])
@pytest.mark.parametrize("dialect", ["none", "snntorch"])
@pytest.mark.parametrize("discretisation", ["euler", "continuous"])
def test_verdicts_are_what_the_simulators_do(name: str, dialect: str, discretisation: str) -> None:
    net = random_network(3)
    graph = hx.to_nir(net, dialect=dialect, discretisation=discretisation)
    dt = DIALECTS[dialect].step or net.dt
    verdict = next(verdict for verdict in verdicts(graph, dt) if verdict.simulator == name)
    try:
        differing, _ = differing_bins(name, graph, net, random_spikes(net.layers[0].linear.inputs, net.steps, 0), dt)
        measured = EQUAL if differing == 0 else DIFFERS
    except ExchangeError:
        measured = REFUSES
    assert verdict.verdict == measured
    assert bool(verdict.reasons) == (measured != EQUAL)


def test_a_simulator_whose_reader_lacks_a_package_counts_as_absent() -> None:
    simulator = Simulator(("torch", "package_that_is_nowhere"), SIMULATORS["snnTorch"].run)
    assert not simulator.is_installed
    assert simulator.absence == "not installed: package_that_is_nowhere"


def test_reasons_name_the_node() -> None:
    net = hx.Network(hx.Linear(4, 3), hx.LIF(3, refractory=0.0), hx.Linear(3, 2), hx.LI(2), steps=20)
    reasons = {verdict.simulator: verdict for verdict in verdicts(hx.to_nir(net), net.dt)}
    assert reasons["norse"].reasons == ("layer1 (CubaLI): left out, without an error",)
    assert reasons["snnTorch"].verdict == REFUSES
    nodes = "synapses0 (Linear), layer0 (CubaLIF), synapses1 (Linear) and 1 more"
    assert reasons["sinabs"].reasons == (f"{nodes}: no layer there",)
    assert reasons["hxtorch"].verdict == DIFFERS
    milliseconds = verdicts(hx.to_nir(net, dialect="hxtorch"), net.dt * 1e3, in_milliseconds=True)
    assert next(verdict for verdict in milliseconds if verdict.simulator == "hxtorch").verdict == EQUAL


def test_a_population_of_different_neurons_is_refused_where_layers_share_constants() -> None:
    net = random_network(2)
    graph = hx.to_nir(net)
    node = graph.nodes["layer0"]
    node.v_threshold = np.linspace(1, 2, node.v_threshold.size)
    verdict = {verdict.simulator: verdict.verdict for verdict in verdicts(graph, net.dt)}
    assert (verdict["norse"], verdict["SpikingJelly"], verdict["hxtorch"]) == (EQUAL, REFUSES, REFUSES)
