"""The loop-free gradient of a measured pass equals step-by-step backpropagation with injection.

`stepwise_*` below is the readable reference: the model advances one step at a time from the measured
membrane, and the measured value takes the model's place in the graph at every step.
"""

from itertools import pairwise

import pytest
import torch

import hxtrain as hx
from hxtrain.backends import Spikes, create_backend
from hxtrain.gradients import measured_layers
from hxtrain.neurons import SURROGATES, GridEvents, MeasuredLayer, Model, SpikeGrid, decay, get_surrogate


def inject(model, measured):
    """Return the value of the measurement with the gradient of the model."""
    return model + (measured - model).detach()


class InjectedSpike(torch.autograd.Function):
    """Measured spikes with the surrogate derivative at the measured membrane."""

    @staticmethod
    def forward(ctx, membrane, measured, surrogate, slope, at_threshold):
        ctx.slope = slope
        ctx.surrogate = surrogate
        ctx.at_threshold = at_threshold
        ctx.save_for_backward(membrane, measured)
        return measured.clone()

    @staticmethod
    def backward(ctx, grad):
        membrane, measured = ctx.saved_tensors
        distance = membrane - 1
        if ctx.at_threshold:
            distance = torch.where(measured > 0, 0.0, distance)
        return grad * ctx.surrogate(distance, ctx.slope), None, None, None, None


def as_measured(spikes, trace):
    """Return a measured layer from a grid of spikes (None for a readout) and membranes `[T, B, N]`."""
    return MeasuredLayer(None if spikes is None else SpikeGrid(spikes), trace)


def stepwise_layer(weight, inputs, spikes, trace, alpha, beta, rule):
    """Compute one layer step by step; return spikes and membranes `[T, B, N]` in the graph."""
    membrane = trace[0]
    current = torch.zeros_like(trace[0])
    membranes = [membrane]
    fired = []
    for t in range(trace.shape[0]):
        if t > 0:
            current = alpha * current + inputs[t - 1] @ weight.t()
            membrane = inject(beta * membrane + current, trace[t])
            membranes.append(membrane)
        if spikes is not None:
            fired.append(InjectedSpike.apply(membrane, spikes[t], *rule))
    return (torch.stack(fired) if fired else None), torch.stack(membranes)


def loss_of(layers):
    """Return a loss that depends on every output: readout, hidden spikes and hidden membranes."""
    total = (layers[-1][1].amax(0) * torch.linspace(-1, 1, layers[-1][1].shape[2])).sum()
    for spikes, trace in layers[:-1]:
        total = total + 0.1 * spikes.sum(0).square().mean() + 0.03 * trace.sin().sum()
    return total


def worst_relative(actual, expected):
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(actual, expected, strict=True))


def random_pass(sizes, steps, batch, dtype, seed):
    """Return random weights, input events, and "measured" spikes and membranes of layers of these sizes."""
    g = torch.Generator().manual_seed(seed)
    weights = [torch.randn(n, j, generator=g, dtype=dtype).requires_grad_() for j, n in pairwise(sizes)]
    events = 3 * sizes[0] * batch // 2
    spikes = Spikes.from_events(
        torch.randint(batch, (events,), generator=g),
        torch.randint(sizes[0], (events,), generator=g),
        torch.rand(events, generator=g) * steps * 2e-6,  # some after the window
        batch,
        sizes[0],
    )
    measured = []
    for i, n in enumerate(sizes[1:]):
        trace = torch.randn(steps, batch, n, generator=g, dtype=dtype)
        fired = (torch.rand(steps, batch, n, generator=g) < 0.1).to(dtype)
        measured.append((None if i == len(sizes) - 2 else fired, trace))
    return weights, spikes, measured


@pytest.mark.parametrize("at_threshold", [True, False])
@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("sizes", [(7, 6, 3), (5, 8, 4, 3)])
def test_equals_stepwise_backpropagation(sizes, dtype, bound, surrogate, at_threshold):
    steps = 12
    batch = 4
    dt = 1.7e-6
    alpha, beta = decay(dt, 5e-6), decay(dt, 8e-6)
    weights, spikes, measured = random_pass(sizes, steps, batch, dtype, seed=1)
    rule = (get_surrogate(surrogate), 3.0, at_threshold)

    model = Model(alpha, beta, *rule)
    pairs = [(weight, None) for weight in weights]
    recordings = [as_measured(*layer) for layer in measured]
    injected = measured_layers(pairs, GridEvents(spikes, dt, steps), recordings, [model] * len(pairs))
    fast = [(layer.spikes, layer.trace) for layer in injected]

    inputs = spikes.to_grid(dt, steps).to(dtype)
    slow = []
    for weight, (fired, trace) in zip(weights, measured, strict=True):
        slow.append(stepwise_layer(weight, inputs, fired, trace, alpha, beta, rule))
        inputs = slow[-1][0]

    for (fired, trace), (fired2, trace2) in zip(fast, slow, strict=True):
        torch.testing.assert_close(trace, trace2)
        assert fired is None or torch.equal(fired, fired2)
    gradients = torch.autograd.grad(loss_of(fast), weights)
    expected = torch.autograd.grad(loss_of(slow), weights)
    assert all(float(g.abs().max()) > 0 for g in expected)
    assert worst_relative(gradients, expected) < bound


@pytest.mark.parametrize("settings", [None, {"preset": "ideal"}, {"preset": "uncalibrated"}])
def test_network_in_the_loop_equals_stepwise(settings):
    """The same for a complete pass: encoder, network, device (or twin), loss, every parameter."""
    net = hx.Network(hx.Linear(40, 30, gain=3), hx.LIF(30), hx.Linear(30, 5, gain=2, autoscale=True), hx.LI(5))
    if settings is not None:
        device = hx.Device(create_backend("emulator", **settings))
        net.attach(device)
    spikes = hx.LatencyEncoder()(torch.rand(6, 40, generator=torch.Generator().manual_seed(3)))
    activity = net(spikes)
    assert activity.layers[0].spikes.sum() > 20
    labels = torch.arange(6) % 5
    loss = hx.MaxOverTime()
    parameters = list(net.parameters())
    gradients = torch.autograd.grad(loss(activity.readout, labels), parameters)

    inputs = spikes.to_grid(net.dt, net.steps)
    for layer, measured in zip(net.layers, activity.layers, strict=True):
        alpha, beta = decay(net.dt, layer.neurons.tau_syn), decay(net.dt, layer.neurons.tau_mem)
        fired = None if measured.spikes is None else measured.spikes.detach()
        rule = (get_surrogate("superspike"), 10.0, True)
        inputs, trace = stepwise_layer(layer.linear.weight, inputs, fired, measured.trace.detach(), alpha, beta, rule)
    expected = torch.autograd.grad(loss(trace, labels), parameters)
    assert worst_relative(gradients, expected) < 1e-5


def test_measured_equal_to_modelled_is_plain_backpropagation():
    """If the measurement equals the value of the model, injection changes nothing."""
    net = hx.Network(hx.Linear(12, 4), hx.LI(4), steps=10)
    spikes = hx.LatencyEncoder()(torch.rand(3, 12, generator=torch.Generator().manual_seed(0)))
    net(spikes).readout.square().sum().backward()
    injected = net.layers[0].linear.weight.grad.clone()

    weight = net.layers[0].linear.weight.detach().clone().requires_grad_()
    current = membrane = torch.zeros(3, 4)
    beta = decay(net.dt, 6e-6)
    grid = spikes.to_grid(net.dt, net.steps)
    total = 0
    for t in range(net.steps):
        total = total + membrane.square().sum()
        current = beta * current + grid[t] @ weight.t()
        membrane = beta * membrane + current
    total.backward()
    torch.testing.assert_close(injected, weight.grad, rtol=1e-5, atol=1e-7)


def test_surrogates_are_one_at_the_threshold_and_fall():
    x = torch.tensor([0.0, 0.05, -0.05, 2.0])
    for name, surrogate in SURROGATES.items():
        value = surrogate(x.clone(), 10.0)
        assert value[0] == 1, name
        assert torch.isclose(value[1], value[2]), name
        assert value[3] < 0.01, name
    assert torch.isclose(SURROGATES["superspike"](torch.tensor(0.02), 50.0), torch.tensor(0.25))


def test_unknown_surrogate_is_named():
    with pytest.raises(ValueError, match=r"surrogate='relu' is not registered; known: .*superspike"):
        get_surrogate("relu")
