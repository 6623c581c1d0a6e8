"""Packing: sources that share signed inputs where masks allow it, and what runs on a device then."""

from dataclasses import replace

import pytest
import torch

import hxtrain as hx
from hxtrain.backends import Stimulus, check_circuit, create_backend
from hxtrain.backends.checks import check_run
from hxtrain.execution import place
from hxtrain.execution.packing import pack
from hxtrain.masks import Budget, RigL, select

CHIP = create_backend("emulator").capabilities
SMALL = replace(CHIP, inputs_per_circuit=8)


def scores(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def mask(neurons, sources, **budget):
    return select([scores(neurons, sources)], Budget(**budget))[0]


def network(inputs=256, hidden=20, recurrent=False, **settings):
    loop = [hx.Recurrent(hidden, gain=2)] if recurrent else []
    return hx.Network(
        hx.Linear(inputs, hidden, gain=4), hx.LIF(hidden), *loop, hx.Linear(hidden, 3), hx.LI(3), steps=20, **settings
    )


def test_masks_of_128_rows_halve_the_circuits():
    net = network(hidden=492)
    assert place(net, CHIP).circuit.populations[0].merged == 2
    net.set_mask("input->layer0", mask(492, 256, fan_in=128, rows=128))
    net.set_mask("layer0->layer1", mask(3, 492, fan_in=128, rows=128))
    plan = place(net, CHIP, max_runs=1)
    assert [p.merged for p in plan.circuit.populations] == [1, 1]
    assert plan.circuit.projections[0].signed_inputs == tuple(source % 128 for source in range(256))
    assert ("layer0: signed inputs", "256 on 128", "128") in plan.rows()
    check_circuit(plan.circuit, CHIP)


def test_nothing_is_shared_without_a_saving_or_on_a_device_that_cannot():
    net = network(inputs=128)
    net.set_mask("input->layer0", mask(20, 128, fan_in=3))
    assert place(net, CHIP).circuit.projections[0].signed_inputs is None
    net = network()
    net.set_mask("input->layer0", mask(20, 256, fan_in=64, rows=128))
    plan = place(net, replace(CHIP, sources_per_input=1))
    assert (plan.circuit.populations[0].merged, plan.circuit.projections[0].signed_inputs) == (2, None)
    net = network(hidden=400)
    net.set_mask("input->layer0", mask(400, 256, fan_in=64))  # nearly any two sources have a common target
    assert place(net, CHIP).circuit.populations[0].merged == 2


def test_unrolled_convolutions_need_as_many_inputs_as_their_kernel_has_pixels():
    columns = torch.arange(16)
    near = (columns[:, None] - columns).abs() <= 1
    inner = slice(1, 15)
    kernels = (near[inner, None, :, None] & near[None, inner, None, :]).reshape(196, 256)
    net = network(hidden=196)
    net.set_mask("input->layer0", kernels)
    plan = place(net, replace(CHIP, inputs_per_circuit=16))
    projection = plan.circuit.projections[0]
    assert plan.circuit.populations[0].merged == 1
    usage = torch.zeros(196, 16).index_add_(1, torch.tensor(projection.places), kernels.float())
    assert usage.max() == 1
    assert max(torch.bincount(torch.tensor(projection.places))) <= CHIP.sources_per_input


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize(("fan_in", "inputs"), [(4, 30), (10, 30), (8, 33)])
def test_no_neuron_has_two_synapses_at_one_input(fan_in, inputs, recurrent):
    net = network(inputs, recurrent=recurrent)
    net.set_mask("input->layer0", mask(20, inputs, fan_in=fan_in, rows=None if fan_in == 4 else 16))
    if recurrent:
        net.set_mask("layer0->layer0", mask(20, 20, fan_in=3))
    packing = pack(net.layers[0], SMALL)
    assert packing.merged < pack(network(inputs, recurrent=recurrent).layers[0], SMALL).merged or packing.places is None
    if packing.places is None:
        return
    existing = torch.cat([p.synapses.mask for p in net.layers[0].projections], 1)
    places = torch.tensor(packing.places)
    assert torch.zeros(20, packing.merged * 8).index_add_(1, places, existing.float()).max() == 1
    assert torch.equal(places // 8, torch.arange(len(places)) // packing.sources_per_circuit)
    check_circuit(place(net, SMALL).circuit, SMALL)


def activity(net, backend, device=None):
    times = scores(6, net.layers[0].linear.inputs, seed=4) * 25e-6
    with hx.Device(backend) as opened:
        net.attach(device or opened)
        result = net(hx.Spikes.from_times(times))
        gradient = torch.autograd.grad(result.output.square().sum(), net.layers[0].linear.weight)[0]
    return result, gradient


@pytest.mark.parametrize("name", ["reference", "emulator"])
def test_shared_inputs_compute_what_separate_ones_do(name):
    settings = {} if name == "reference" else {"preset": "ideal"}

    class Separate(hx.BackendWrapper):
        @property
        def capabilities(self):
            return replace(super().capabilities, sources_per_input=1)

    results = []
    for kind in (hx.BackendWrapper, Separate):
        net = network(hidden=40, seed=1)
        net.set_mask("input->layer0", mask(40, 256, fan_in=100, rows=128))
        results.append((activity(net, kind(create_backend(name, **settings))), net.device.plan))
    (shared, plan), (separate, other_plan) = results
    assert (plan.circuit.populations[0].merged, other_plan.circuit.populations[0].merged) == (1, 2)
    assert torch.equal(shared[0].layers[0].counts, separate[0].layers[0].counts)
    assert shared[0].layers[0].counts.sum() > 20
    assert torch.allclose(shared[0].output, separate[0].output, atol=0.03)
    cosine = torch.nn.functional.cosine_similarity(shared[1].flatten(), separate[1].flatten(), dim=0)
    assert float(cosine) > 0.999


def test_a_shared_input_has_the_mismatch_of_one_circuit():
    backend = create_backend("emulator", chip="W66F3", preset="uncalibrated", only=["synapse"])
    net = network(hidden=6, seed=1)
    existing = torch.zeros(6, 256, dtype=torch.bool)
    existing[0::2, :128] = True
    existing[1::2, 128:] = True
    net.set_mask("input->layer0", existing)
    with hx.Device(backend) as device:
        net.attach(device)
        integers = torch.zeros(6, 256, dtype=torch.int8)
        integers[0::2, 5] = 40
        weights = {"input->layer0": integers, "layer0->layer1": torch.zeros(3, 6, dtype=torch.int8)}
        event = hx.Spikes.from_events([0, 1], [5, 133], [5e-6, 5e-6], 2, 256)
        first = device.record(weights, event).traces["layer0"].int()
        integers = torch.zeros(6, 256, dtype=torch.int8)
        integers[0::2, 133] = 40
        net.set_mask("input->layer0", existing.roll(128, 1))
        net.attach(device)
        second = device.record({**weights, "input->layer0": integers}, event).traces["layer0"].int()
    swing = (first - first[:, :1])[0, :, 0::2].amax(0)
    assert swing.min() > 10
    assert torch.equal(swing, (second - second[:, :1])[1, :, 0::2].amax(0))  # the same synapses, by another label
    assert (first - first[:, :1])[1].abs().max() <= 2


def test_weights_beyond_the_mask_that_was_placed_are_refused():
    net = network(hidden=10, seed=1)
    net.set_mask("input->layer0", mask(10, 256, fan_in=100, rows=128))
    spikes = hx.Spikes.from_times(scores(2, 256) * 25e-6)
    with hx.Device(create_backend("emulator", preset="ideal")) as device:
        net.attach(device)
        net(spikes)
        net.set_mask("input->layer0", None)
        with pytest.raises(ValueError, match=r"sources at signed input .* place the network again"):
            net(spikes)
        net.attach(device)
        net(spikes)
        assert device.plan.circuit.populations[0].merged == 2


def test_a_run_waits_once_for_the_values_of_its_weights(monkeypatch):
    net = network(hidden=10, seed=1)
    net.set_mask("input->layer0", mask(10, 256, fan_in=100, rows=128))
    circuit = place(net, CHIP).circuit
    weights = {
        p.name: torch.zeros(size, p.pre_size).to(torch.int8)
        for p, size in zip(circuit.projections, (10, 3), strict=True)
    }
    stimulus = Stimulus(hx.Spikes.from_times(scores(2, 256) * 25e-6), 0)
    check_run(circuit, weights, stimulus, 63)
    waits = []
    to_host = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda values: waits.append(values) or to_host(values))
    monkeypatch.setattr(torch, "tensor", lambda *arguments, **settings: pytest.fail("signed inputs are built again"))
    check_run(circuit, weights, stimulus, 63)
    assert len(waits) == 1


def test_circuits_with_impossible_inputs_are_refused():
    net = network(hidden=10)
    net.set_mask("input->layer0", mask(10, 256, fan_in=100, rows=128))
    circuit = place(net, CHIP).circuit
    for signed_inputs, text in (
        ((0,) * 256, "256 sources use signed input 0 of layer0, the device takes 64"),
        ((0, 1), "must be a tuple of 256 whole numbers"),
        ((128,) * 256, r"uses signed inputs 128\.\.128 of layer0, whose neurons have 128"),
    ):
        changed = replace(circuit.projections[0], signed_inputs=signed_inputs)
        with pytest.raises(ValueError, match=text):
            check_circuit(replace(circuit, projections=(changed, *circuit.projections[1:])), CHIP)
    with pytest.raises(ValueError, match="the device takes 1"):
        check_circuit(circuit, replace(CHIP, sources_per_input=1))


def test_rewiring_keeps_to_the_inputs_that_were_placed():
    net = network(hidden=10)
    net.set_mask("input->layer0", mask(10, 256, fan_in=100, rows=128))
    with hx.Device(create_backend("emulator", preset="ideal")) as device:
        net.attach(device)
        RigL(rows=128).prepare(net)
        RigL(rows=64).prepare(net)
        for rows in (None, 100):
            with pytest.raises(ValueError, match=r"give mask\.rows=128"):
                RigL(rows=rows).prepare(net)


def test_saturation_knows_the_circuit_of_a_shared_input():
    net = network(inputs=30, recurrent=True)
    net.set_mask("input->layer0", mask(20, 30, fan_in=10, rows=16))
    net.set_mask("layer0->layer0", mask(20, 20, fan_in=3, rows=8))

    class Narrow(hx.BackendWrapper):
        @property
        def capabilities(self):
            return replace(super().capabilities, inputs_per_circuit=8)

    with hx.Device(Narrow(create_backend("reference"))) as device:
        net.attach(device)
        device.scales = [100.0, 100.0, 100.0]
        layer = device.saturations(50.0)[0]
    places = device.plan.circuit.projections
    count = layer.per_circuit
    for saturation, projection in ((layer, places[0]), (layer.recurrent, places[1])):
        virtual = (torch.arange(projection.pre_size) + saturation.first_input) // count
        assert torch.equal(virtual, torch.tensor(projection.places) // 8)
