"""The host computes the same on a GPU as on the CPU; without a GPU, Triton's interpreter runs the kernels."""

import os
from contextlib import ExitStack

import pytest
import torch
from test_gradient import as_measured, loss_of, random_pass, stepwise_layer, worst_relative

import hxtrain as hx
from hxtrain.backends import Spikes, create_backend
from hxtrain.experiments.benchmark.workload import Workload
from hxtrain.gradients import measured_layers
from hxtrain.neurons import SURROGATES, GridEvents, Model, get_surrogate
from hxtrain.neurons.engines import choice, engine_for, readable
from hxtrain.neurons.engines.surrogates import NUMBERS

GPU = torch.cuda.is_available()
if not GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
needs_gpu = pytest.mark.skipif(not GPU, reason="there is no GPU")


@pytest.fixture
def kernels():
    pytest.importorskip("triton", reason="comes with torch for CUDA; the extra `test` has it for Linux")
    from hxtrain.neurons.engines import gpu_kernel

    return gpu_kernel


SHAPE = 9, 5, 70  # two blocks of neurons, the second not full


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def to_device(x):
    return None if x is None else x.to("cuda" if GPU else "cpu")


@pytest.mark.parametrize("hold", [None, 1.7])
@pytest.mark.parametrize("samples", [5, 19])
def test_recurrent_layers_respond_as_in_torch(kernels, samples, hold):
    """One block of samples, or two of which the second is not full."""
    model = Model(0.7, 0.8, hold=hold)
    drive = (draw(9, samples, 40) > 1.5).float() @ draw(40, 30)
    recurrent = 0.2 * draw(30, 30)
    expected_spikes, expected = readable.response(drive, model, True, recurrent)
    spikes, trace = kernels.respond(to_device(drive), model, True, to_device(recurrent))
    assert 0.02 < float(expected_spikes.mean()) < 0.9
    assert torch.equal(spikes.cpu(), expected_spikes)
    assert torch.allclose(trace.cpu(), expected, atol=1e-4)
    unconnected, _ = readable.response(drive, model, True)
    assert not torch.equal(unconnected, expected_spikes)


@pytest.mark.parametrize("surrogate", SURROGATES.values(), ids=SURROGATES)
@pytest.mark.parametrize("at_threshold", [True, False])
@pytest.mark.parametrize("parts", ["spikes", "trace", "both"])
def test_gradients_of_recurrent_charges_are_those_of_torch(kernels, surrogate, at_threshold, parts):
    model = Model(0.7, 0.8, surrogate, 2.0, at_threshold)
    shape = (7, 18, 30)
    trace = 1 + draw(*shape)
    by_spikes = draw(*shape).flip(0) if parts != "trace" else None
    by_trace = draw(*shape).flip(1) if parts != "spikes" else None
    arguments = ((trace > 1.8).float(), trace, by_spikes, by_trace, 0.2 * draw(30, 30))
    expected = readable.charges(model, *arguments)
    charges = kernels.charges(model, *map(to_device, arguments))
    assert float(expected.std()) > 0.1
    assert torch.allclose(charges.cpu(), expected, atol=1e-4 * float(expected.abs().max()))


def test_recurrent_layers_larger_than_a_program_take_the_readable_engine(kernels, mocker):
    if not GPU:
        mocker.patch.object(choice, "GPU", "cpu")
    model = Model(0.7, 0.8)
    like = to_device(torch.zeros(1))
    for neurons, is_small in ((choice.LARGEST_ON_GPU, True), (choice.LARGEST_ON_GPU + 1, False)):
        engine = engine_for(like, model, to_device(torch.zeros(neurons, neurons)), backward=True)
        assert (type(engine).__name__ == "GpuEngine") is is_small
    drive = to_device(torch.zeros(1, 1, 513))
    with pytest.raises(ValueError, match=r"recurrent layer of 513 neurons is larger than 512.*the readable engine"):
        kernels.respond(drive, model, True, to_device(torch.zeros(513, 513)))
    with pytest.raises(ValueError, match=r"recurrent weights: expected .*\(3, 3\), got .*\(4, 4\)"):
        kernels.respond(to_device(torch.zeros(1, 1, 3)), model, True, to_device(torch.zeros(4, 4)))


@pytest.mark.parametrize("spiking", [True, False])
def test_layers_respond_as_in_torch(kernels, spiking):
    model = Model(0.7, 0.8)
    weight = draw(70, 40)
    inputs = (draw(9, 5, 40) > 1.5).float()
    expected = readable.response(inputs @ weight.t(), model, spiking)
    spikes, trace = kernels.respond(to_device(inputs @ weight.t()), model, spiking)
    assert torch.allclose(trace.cpu(), expected[1], atol=1e-5)
    assert (spikes is None) is not spiking
    if spiking:
        assert 0.02 < float(expected[0].mean()) < 0.9
        assert torch.equal(spikes.cpu(), expected[0])


@pytest.mark.parametrize("surrogate", SURROGATES.values(), ids=SURROGATES)
@pytest.mark.parametrize("at_threshold", [True, False])
@pytest.mark.parametrize("parts", ["spikes", "trace", "both"])
def test_gradients_of_charges_are_those_of_torch(kernels, surrogate, at_threshold, parts):
    model = Model(0.7, 0.8, surrogate, 2.0, at_threshold)
    trace = 1 + draw(*SHAPE)
    grad_spikes = draw(*SHAPE).flip(0)
    grad_trace = draw(*SHAPE).flip(1)
    arguments = (
        (trace > 1).float(),
        trace,
        grad_spikes if parts != "trace" else None,
        grad_trace if parts != "spikes" else None,
    )
    expected = readable.charges(model, *arguments)
    charges = kernels.charges(model, *map(to_device, arguments))
    assert float(expected.std()) > 0.1
    assert torch.allclose(charges.cpu(), expected, atol=1e-4)


def exponential(x, slope):
    """Return `exp(-slope |x|)`, for which no engine has a loop."""
    return x.abs_().mul_(-slope).exp_()


@pytest.mark.parametrize("place", ["cpu", "gpu"])
@pytest.mark.parametrize("surrogate", [get_surrogate("superspike"), get_surrogate("boxcar"), exponential])
@pytest.mark.parametrize("at_threshold", [True, False])
def test_a_surrogate_without_a_loop_takes_the_readable_engine(kernels, place, surrogate, at_threshold, mocker):
    """It has its own gradient, equal to step-by-step backpropagation, wherever the layer runs."""
    if place == "gpu" and not GPU:
        mocker.patch.object(choice, "GPU", "cpu")  # the interpreter takes tensors of the CPU
    device = "cuda" if place == "gpu" and GPU else "cpu"
    weights, spikes, measured = random_pass((7, 6, 3), 12, 4, torch.float32, seed=1)
    model = Model(0.7, 0.8, surrogate, 3.0, at_threshold)
    name = "ReadableEngine" if surrogate is exponential else {"cpu": "CpuEngine", "gpu": "GpuEngine"}[place]
    assert type(engine_for(weights[0].to(device), model, backward=True)).__name__ == name

    inputs = GridEvents(spikes.to(torch.device(device)), 1.7e-6, 12)
    recordings = [as_measured(*(None if part is None else part.to(device) for part in layer)) for layer in measured]
    pairs = [(weight.to(device), None) for weight in weights]
    injected = measured_layers(pairs, inputs, recordings, [model] * 2)
    layers = [(None if layer.spikes is None else layer.spikes.cpu(), layer.trace.cpu()) for layer in injected]
    loss = loss_of(layers)
    gradients = torch.autograd.grad(loss, weights)
    signal = spikes.to_grid(1.7e-6, 12)
    slow = []
    for weight, (fired, trace) in zip(weights, measured, strict=True):
        slow.append(stepwise_layer(weight, signal, fired, trace, 0.7, 0.8, (surrogate, 3.0, at_threshold)))
        signal = slow[-1][0]
    expected = torch.autograd.grad(loss_of(slow), weights)
    assert all(float(g.abs().max()) > 0 for g in expected)
    assert worst_relative(gradients, expected) < (1e-4 if GPU else 1e-5)


def test_loops_refuse_a_surrogate_that_they_do_not_know(kernels):
    model = Model(0.7, 0.8, exponential)
    grid = draw(*SHAPE)
    with pytest.raises(ValueError, match=r"surrogate .*exponential.* has no compiled loop; the readable engine"):
        kernels.charges(model, None, grid, grid, None)


def test_surrogates_have_fixed_numbers():
    """Compiled code may be cached, and Triton's kernels compare with these numbers."""
    numbers = {"superspike": 0, "triangle": 1, "sigmoid": 2, "gaussian": 3, "arctan": 4, "boxcar": 5}
    assert {name: NUMBERS[get_surrogate(name)] for name in numbers} == numbers
    assert len(NUMBERS) == len(numbers)


@needs_gpu
@pytest.mark.parametrize("settings", [{}, {"hidden": [60], "recurrent": True}, {"saturation": 385.0}], ids=str)
@pytest.mark.parametrize("preset", [None, "calibrated"])
def test_activity_and_gradients_are_those_of_the_cpu(preset, settings):
    results = []
    with ExitStack() as stack:
        for device in ("cpu", "cuda"):
            load = Workload(stack, 50, device)
            backend = None if preset is None else create_backend("emulator", preset=preset, device=device)
            net = load.network(backend, **settings)
            activity = net(load.spikes)
            assert activity.readout.device.type == device
            hx.MaxOverTime()(activity.readout, load.labels).backward()
            results.append((activity, [weight.grad.cpu() for weight in net.parameters()]))
    (expected, gradients), (actual, other_gradients) = results
    assert expected.hidden_spikes() > 200
    assert actual.hidden_spikes() == pytest.approx(expected.hidden_spikes(), rel=0.01)
    assert float((expected.readout.detach() - actual.readout.detach().cpu()).abs().median()) < 1e-3
    for a, b in zip(gradients, other_gradients, strict=True):
        assert float((a - b).norm() / a.norm()) < 0.05


KINDS = [{}, {"hidden": [60, 30]}, {"traces": "spikes_only"}, {"saturation": 385.0}, {"output": "spikes"}]


@pytest.mark.parametrize("settings", [*KINDS, {"hidden": [100], "inhibition": 0.05}], ids=str)
@pytest.mark.parametrize("on_chip", [False, True])
def test_spikes_as_grids_give_what_events_give(on_chip, settings, mocker):
    """On a GPU, spikes are grids and membranes are floats from the start; here this path runs on the CPU."""
    results = []
    for dense in (False, True):
        if dense:
            mocker.patch.object(choice, "_compiled", return_value=None)
        with ExitStack() as stack:
            load = Workload(stack, 30)
            net = load.network(create_backend("emulator") if on_chip else None, **settings)
            activity = net(load.spikes)
            hidden = activity.layers[0]
            assert hidden.counts is not None
            objective = hx.SpikeCount() if net.output_kind == "spikes" else hx.MaxOverTime()
            loss = objective(activity.output, load.labels) + 1e-3 * hidden.counts.square().mean()
            gradients = torch.autograd.grad(loss + 1e-3 * (hidden.spikes * hidden.trace).mean(), [*net.parameters()])
            results.append((activity, gradients))
    (expected, gradients), (actual, other_gradients) = results
    assert expected.hidden_spikes() == actual.hidden_spikes() > 50
    assert torch.equal(expected.layers[0].spikes, actual.layers[0].spikes)
    torch.testing.assert_close(actual.layers[0].trace, expected.layers[0].trace, rtol=1e-4, atol=1e-5)
    for a, b in zip(gradients, other_gradients, strict=True):
        assert float(a.abs().max()) > 0
        assert float((a - b).norm() / a.norm()) < 1e-4


def test_events_out_of_range_are_refused_without_a_kernel_of_the_cpu():
    spikes = Spikes.trusted(torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([0.0, 1e-6]), 2, 3)
    with pytest.raises(ValueError, match=r"event 1 of 2 has sample 1, unit 3 and time 1e-06 s, outside 0..1, 0..2"):
        spikes.to_grid(1.7e-6, 20)
