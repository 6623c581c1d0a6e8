"""The gradient with saturating synaptic inputs: equal to backpropagation in both engines, and true to a chip."""

from itertools import pairwise

import pytest
import torch
from test_gradient import as_measured

import hxtrain as hx
from hxtrain.backends import Spikes, create_backend
from hxtrain.gradients import measured_layers
from hxtrain.network import NetworkConfig
from hxtrain.neurons import Codes, Grads, GridEvents, Model, Saturation, conversion, get_surrogate, threads
from hxtrain.neurons.engines import choice, cpu, saturation

DT = 1.7e-6
STEPS = 11
SAMPLES = 6
ALPHA = 0.75
BETA = 0.7
DTYPES = [(torch.float64, 1e-11), (torch.float32, 3e-5)]


class Saturate(torch.autograd.Function):
    """Identity in the forward pass (a measured value replaces it); slope of the saturation in the backward pass."""

    @staticmethod
    def forward(ctx, current, limit):
        ctx.save_for_backward(current / limit)
        return current.clone()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        tanh = x * (945 + 105 * x**2 + x**4) / (945 + 420 * x**2 + 15 * x**4)
        return grad * (1 - tanh.clamp(max=1) ** 2), None


class RescaledDrive(torch.autograd.Function):
    """Drive in another unit; its effect on membranes is in the unit of its own weights, as without saturation."""

    @staticmethod
    def forward(ctx, drive, scale):
        return drive * scale

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class Fire(torch.autograd.Function):
    """Measured spikes with a surrogate derivative at the measured membrane."""

    @staticmethod
    def forward(ctx, membrane, measured):
        ctx.save_for_backward(membrane, measured)
        return measured.clone()

    @staticmethod
    def backward(ctx, grad):
        membrane, measured = ctx.saved_tensors
        distance = torch.where(measured > 0, 0.0, membrane - 1)
        return grad * get_surrogate("superspike")(distance, 3.0), None


def stepwise(weight, recurrent, inputs, spikes, trace, limits):
    """Compute one layer step by step and circuit by circuit; return spikes and membranes `[T, B, N]` in the graph."""
    currents = {}
    membrane = trace[0]
    membranes = [trace[0]]
    fired = []
    for t in range(len(trace)):
        if t > 0:
            arriving = [(weight, inputs[t - 1], limits)]
            if recurrent is not None:
                arriving.append((recurrent, fired[t - 1], limits.recurrent))
            total = BETA * membrane
            for circuit in range(4):
                for sign in (1, -1):
                    current = ALPHA * currents.get((circuit, sign), 0.0)
                    for w, x, saturation in arriving:
                        sources = torch.arange(w.shape[1]) + saturation.first_input
                        mask = (sources // saturation.per_circuit == circuit).to(w.dtype)
                        scale = limits.limit / saturation.limit  # one unit for both kinds of weights
                        current = current + RescaledDrive.apply(x @ ((sign * w).clamp(min=0) * mask).t(), scale)
                    currents[circuit, sign] = current
                    total = total + sign * Saturate.apply(current, limits.limit)
            membrane = total + (trace[t] - total).detach()
            membranes.append(membrane)
        if spikes is not None:
            fired.append(Fire.apply(membrane, spikes[t]))
    return (torch.stack(fired) if fired else None), torch.stack(membranes)


def random_pass(sizes, dtype):
    """Return random weights (currents lie below and above the limit), events, and "measured" layers."""
    g = torch.Generator().manual_seed(1)
    weights = [(0.5 * torch.randn(n, j, generator=g, dtype=dtype)).requires_grad_() for j, n in pairwise(sizes)]
    count = 2 * sizes[0] * SAMPLES
    events = torch.randint(SAMPLES, (count,), generator=g), torch.randint(sizes[0], (count,), generator=g)
    spikes = Spikes.from_events(*events, torch.rand(count, generator=g) * STEPS * DT * 1.2, SAMPLES, sizes[0])
    measured = []
    for i, n in enumerate(sizes[1:]):
        trace = torch.randn(STEPS, SAMPLES, n, generator=g, dtype=dtype)
        fired = (torch.rand(STEPS, SAMPLES, n, generator=g) < 0.2).to(dtype)
        measured.append((None if i == len(sizes) - 2 else fired, trace))
    return weights, spikes, measured


def loss_of(layers):
    total = (layers[-1][1].amax(0) * torch.linspace(-1, 1, layers[-1][1].shape[2])).sum()
    for fired, trace in layers[:-1]:
        total = total + 0.1 * fired.sum(0).square().mean() + 0.03 * trace.sin().sum()
    return total


@pytest.mark.parametrize(("dtype", "bound"), DTYPES)
@pytest.mark.parametrize("engine", ["cpu", "readable", "dense"])
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("sizes", [(40, 33, 5), (20, 50, 40, 3)])
def test_equals_stepwise_backpropagation(sizes, recurrent, engine, dtype, bound, mocker):
    """Two to four circuits per neuron, the first source in the middle of one; many and few downstream neurons."""
    weights, spikes, measured = random_pass(sizes, dtype)
    limits = Saturation(1.5, 16, 5)
    feedback: list[torch.Tensor | None] = [None] * len(weights)
    if recurrent:
        g = torch.Generator().manual_seed(5)
        limits = Saturation(1.5, 24, 5, Saturation(1.2, 24, 30))  # a neuron's circuit may have both kinds of sources
        feedback[0] = (0.4 * torch.randn(sizes[1], sizes[1], generator=g, dtype=dtype)).requires_grad_()
    parameters = [*weights, *(v for v in feedback if v is not None)]
    model = Model(ALPHA, BETA, get_surrogate("superspike"), 3.0, True, limits)
    if engine != "cpu":
        mocker.patch.object(choice, "_compiled", return_value=None)
    inputs = GridEvents(spikes, DT, STEPS)
    dense = spikes.to_grid(DT, STEPS).to(dtype)
    recordings = [as_measured(*layer) for layer in measured]
    pairs = [*zip(weights, feedback, strict=True)]
    injected = measured_layers(pairs, dense if engine == "dense" else inputs, recordings, [model] * len(pairs))
    gradients = torch.autograd.grad(loss_of([(layer.spikes, layer.trace) for layer in injected]), parameters)

    layers = []
    signal = dense
    for (weight, feedback_weight), (fired, trace) in zip(pairs, measured, strict=True):
        layers.append(stepwise(weight, feedback_weight, signal, fired, trace, limits))
        signal = layers[-1][0]
    expected = torch.autograd.grad(loss_of(layers), parameters)
    for a, b in zip(gradients, expected, strict=True):
        assert float((a - b).abs().max()) <= bound * float(b.abs().max())
    linear = measured_layers(pairs, inputs, recordings, [model._replace(saturation=None)] * len(pairs))
    linear_gradients = torch.autograd.grad(loss_of([(layer.spikes, layer.trace) for layer in linear]), parameters)
    for a, b in ((gradients[0], linear_gradients[0]), (gradients[-1], linear_gradients[-1])):
        assert float((a - b).abs().max()) > 0.1 * float(b.abs().max()), "saturation matters here"


def test_far_from_saturation_it_is_the_linear_gradient():
    weights, spikes, measured = random_pass((40, 33, 5), torch.float64)
    model = Model(ALPHA, BETA, get_surrogate("superspike"), 3.0)
    grads = []
    for limits in (None, Saturation(1e9, 16)):
        layers = measured_layers(
            [(weight, None) for weight in weights],
            GridEvents(spikes, DT, STEPS),
            [as_measured(*layer) for layer in measured],
            [model._replace(saturation=limits)] * 2,
        )
        grads.append(torch.autograd.grad(loss_of([(layer.spikes, layer.trace) for layer in layers]), weights))
    for linear, saturating in zip(*grads, strict=True):
        torch.testing.assert_close(saturating, linear, rtol=1e-9, atol=1e-12)


def test_the_result_does_not_depend_on_the_number_of_threads(mocker):
    weights, spikes, measured = random_pass((40, 70, 5), torch.float32)
    grouped = conversion.group_events(spikes, DT, STEPS)
    model = Model(ALPHA, BETA, get_surrogate("superspike"), 3.0, True, Saturation(1.5, 16))
    spikes_of_layer, trace = measured[0]
    fired = conversion.group_grid(spikes_of_layer)
    grads = Grads(torch.ones_like(trace))
    gradients = []
    for minimum in (10**9, 1):
        mocker.patch.object(threads, "MIN_SHARE", minimum)
        mocker.patch.object(threads, "_cores", return_value=3)
        gradients.append(cpu.saturating_gradient(model, weights[0], fired, trace, grads, None, grouped, True))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("n_downstream", [0, 9, 40])
def test_codes_are_the_membranes_that_they_stand_for(n_downstream):
    weights, spikes, measured = random_pass((40, 70, 5), torch.float32)
    codes = torch.randint(60, 170, (SAMPLES, STEPS, 70), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    stored = Codes(codes, 70.3)
    fired = conversion.group_grid(measured[0][0])
    model = Model(ALPHA, BETA, get_surrogate("superspike"), 3.0, True, Saturation(1.5, 16))
    grads = Grads(torch.randn(STEPS, SAMPLES, 70))
    downstream = (torch.randn(STEPS, SAMPLES, n_downstream), torch.randn(n_downstream, 70)) if n_downstream else None
    inputs = conversion.group_events(spikes, DT, STEPS)
    actual, expected = (
        cpu.saturating_gradient(model, weights[0], fired, membrane, grads, downstream, inputs, True)
        for membrane in (stored, stored.trace())
    )
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    assert expected[1].abs().max() > 0


def test_the_slope_is_that_of_a_saturation():
    x = torch.linspace(0, 5, 501)
    assert float((saturation.slope(x) - (1 - x.tanh() ** 2)).abs().max()) < 0.005


def network(limit, device, neurons=3):
    net = hx.Network(hx.Linear(100, neurons), hx.LI(neurons), steps=12, saturation=limit)
    net.attach(device)
    return net


def test_it_predicts_what_a_saturating_chip_does():
    """The readout changes as predicted if excitatory weights grow a little among many strong ones of both signs."""
    exc, inh = torch.tensor([9.0, 9.0, 4.0]), torch.tensor([5.0, 9.0, 6.0])
    sample = torch.zeros(100, dtype=torch.long)
    spikes = Spikes.from_events(sample, torch.arange(100), torch.full((100,), 1e-9), 1, 100)
    with hx.Device(create_backend("emulator", chip="W66F3", preset="calibrated", only=["saturation"])) as device:
        net = network(378.0, device)
        weight = net.projections[0].synapses.weight
        scale = device.plan.projections[0].fixed_scale

        def readout(step):
            with torch.no_grad():
                weight[:, :50] = (exc + step)[:, None] / scale
                weight[:, 50:] = -inh[:, None] / scale
            return net(spikes).readout[4, 0]

        change = (readout(1.0) - readout(-1.0)).detach() / 2
        for neuron in range(3):
            predicted = {}
            for limit in (378.0, None):
                net.saturation = limit
                (gradient,) = torch.autograd.grad(readout(0.0)[neuron], weight)
                predicted[limit] = float(gradient[neuron, :50].sum()) / scale
            measured = float(change[neuron])
            assert measured > 0.05
            aware, linear = (abs(predicted[limit] / measured - 1) for limit in (378.0, None))
            assert aware < 0.15, (neuron, measured, predicted)
            assert aware < 0.5 * linear, (neuron, measured, predicted)


def test_it_predicts_what_recurrent_synapses_do_that_saturate():
    """Sources fire at once; three silent neurons of the same population sum their strong synapses of both signs."""
    sources = 60
    exc, inh = torch.tensor([12.0, 15.0, 10.0]), torch.tensor([14.0, 18.0, 14.0])
    zeros = torch.zeros(40, dtype=torch.long)
    spikes = Spikes.from_events(zeros, torch.arange(40), torch.full((40,), 1e-9), 1, 100)
    with hx.Device(create_backend("emulator", chip="W66F3", preset="calibrated", only=["saturation"])) as device:
        net = hx.Network(
            hx.Linear(100, 63), hx.LIF(63), hx.Recurrent(63), hx.Linear(63, 1), hx.LI(1), steps=16, saturation=378.0
        )
        net.attach(device)
        inputs, feedback = (projection.synapses.weight for projection in net.projections[:2])
        scale = device.plan.projections[1].fixed_scale
        with torch.no_grad():
            inputs.zero_()[:sources, :40] = 40 / scale
            feedback.zero_()

        def membranes(step):
            with torch.no_grad():
                feedback[sources:, : sources // 2] = (exc + step)[:, None] / scale
                feedback[sources:, sources // 2 : sources] = -inh[:, None] / scale
            layer = net(spikes).layers[0]
            assert layer.counts[0, :sources].min() >= 1
            assert layer.counts[0, sources:].sum() == 0
            return layer.trace[6, 0, sources:]

        change = (membranes(1.0) - membranes(-1.0)).detach() / 2
        for neuron in range(3):
            predicted = {}
            for limit in (378.0, None):
                net.saturation = limit
                (gradient,) = torch.autograd.grad(membranes(0.0)[neuron], feedback)
                predicted[limit] = float(gradient[sources + neuron, : sources // 2].sum()) / scale
            measured = float(change[neuron])
            aware, linear = (abs(predicted[limit] / measured - 1) for limit in (378.0, None))
            assert measured > 0.02
            assert aware < 0.3, (neuron, measured, predicted)
            assert aware < 0.5 * linear, (neuron, measured, predicted)


def test_limits_are_in_the_units_of_the_weights():
    with hx.Device(create_backend("emulator", preset="ideal")) as device:
        net = network(378.0, device)
        net(Spikes.from_events(*(torch.zeros(1, dtype=torch.long),) * 2, torch.zeros(1), 1, 100))
        (limits,) = device.saturations(378.0)
        assert limits == Saturation(378 / device.scales[0], 128, 0)


def test_a_layer_has_one_limit_with_recurrent_weights_too():
    net = hx.Network(hx.Linear(4, 3), hx.LIF(3), hx.Recurrent(3), hx.Linear(3, 2), hx.LI(2))
    with hx.Device(create_backend("emulator", preset="ideal")) as device:
        net.attach(device)
        net(Spikes.from_events([0], [0], [0.0], 1, 4))
        first, _, last = device.scales
        hidden, readout = device.saturations(378.0)
        assert hidden == Saturation(378 / first, 128, 0, Saturation(378 / first, 128, 4))
        assert readout == Saturation(378 / last, 128, 0)


def test_in_software_synapses_are_linear():
    spikes = hx.LatencyEncoder()(torch.rand(8, 100))
    grads = []
    for limit in (None, 10.0):
        net = network(limit, None)
        net(spikes).readout.amax(0).sum().backward()
        grads.append(net.projections[0].synapses.weight.grad)
    assert torch.equal(*grads)


def test_unsupported_settings_are_refused():
    with pytest.raises(ValueError, match=r"network\.saturation=0\.0 must be positive"):
        NetworkConfig(saturation=0.0)
    with pytest.raises(ValueError, match="saturation=-1 must be positive"):
        hx.Network(hx.Linear(3, 2), hx.LI(2), saturation=-1)
