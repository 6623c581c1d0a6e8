"""Training without membranes of hidden layers: membranes modelled from the measured spikes replace them."""

import pytest
import torch
from test_recurrence import stepwise_layer
from test_training import digits, quiet

import hxtrain as hx
from hxtrain.backends import Spikes, create_backend
from hxtrain.commands.train import run
from hxtrain.network.twin import simulate
from hxtrain.neurons import GridEvents, Model, SpikeGrid, conversion, decay, get_surrogate
from hxtrain.neurons.engines import ModelLayer, cpu, engine_for
from hxtrain.neurons.engines.readable import READABLE

DT = 1.7e-6
STEPS = 17
SAMPLES = 9
INPUTS = 11
NEURONS = 70
DTYPES = [(torch.float64, 1e-12), (torch.float32, 2e-5)]


def stepwise(weight, recurrent_weight, inputs, spikes, alpha, beta):
    """Compute `U[t+1] = beta U[t] + I[t+1] - S[t]` with given spikes step by step; return membranes `[T, B, N]`."""
    membrane = torch.zeros_like(spikes[0])
    current = torch.zeros_like(membrane)
    membranes = []
    for x, s in zip(inputs, spikes, strict=True):
        membranes.append(membrane)
        current = alpha * current + x @ weight.t()
        if recurrent_weight is not None:
            current = current + s @ recurrent_weight.t()
        membrane = beta * membrane + current - s
    return torch.stack(membranes)


def random_events(units, seed, count=400):
    g = torch.Generator().manual_seed(seed)
    return Spikes.from_events(
        torch.randint(SAMPLES, (count,), generator=g),
        torch.randint(units, (count,), generator=g),
        torch.rand(count, generator=g) * STEPS * DT * 1.2,  # some after the window, some twice in a step
        SAMPLES,
        units,
    )


def normal(*shape, seed, dtype):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def close(actual, expected, bound):
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= bound * float(expected.abs().max())


@pytest.mark.parametrize(("dtype", "bound"), DTYPES)
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("source", ["events", "layer"])
def test_membranes_of_given_spikes(dtype, bound, recurrent, source):
    """Both engines equal the equation, step by step, downstream of input events and of another layer."""
    model = Model(0.75, 0.8)
    weight = 0.6 * normal(NEURONS, INPUTS, seed=3, dtype=dtype)
    recurrent_weight = 0.15 * normal(NEURONS, NEURONS, seed=4, dtype=dtype) if recurrent else None
    shape = (STEPS, SAMPLES, NEURONS)
    fired = SpikeGrid(None, conversion.bin_spikes(random_events(NEURONS, seed=5, count=3000), DT, STEPS), shape, dtype)
    if source == "events":
        inputs = GridEvents(random_events(INPUTS, seed=1), DT, STEPS)
        dense = random_events(INPUTS, seed=1).to_grid(DT, STEPS).to(dtype)
        sources = [inputs, inputs]
    else:
        events = conversion.bin_spikes(random_events(INPUTS, seed=1), DT, STEPS)
        upstream = SpikeGrid(None, events, (STEPS, SAMPLES, INPUTS), dtype)
        dense = upstream.grid
        sources = [upstream, SpikeGrid(dense)]
    expected = stepwise(weight, recurrent_weight, dense, fired.grid, model.alpha, model.beta)
    fast = engine_for(weight, model).follow(ModelLayer(model, weight, recurrent_weight, sources[0]), fired)
    layer = ModelLayer(model, weight, recurrent_weight, sources[1])
    readable = READABLE.follow(layer, SpikeGrid(fired.grid))
    drive = cpu.follow(weight, dense, fired.grouped, shape, model, recurrent_weight)
    for membranes in (fast, readable, drive):
        close(membranes, expected, 10 * bound)
        assert membranes.dtype == dtype


def test_wrong_sizes_are_refused():
    weight = normal(NEURONS, INPUTS, seed=3, dtype=torch.float32)
    inputs = GridEvents(random_events(INPUTS, seed=1), DT, STEPS).grouped
    oversized = GridEvents(random_events(NEURONS + 1, seed=1), DT, STEPS).grouped
    shape = (STEPS, SAMPLES, NEURONS)
    with pytest.raises(ValueError, match=f"spikes are of {NEURONS + 1} neurons, the weights of {NEURONS}"):
        cpu.follow(weight, inputs, oversized, shape, Model(0.7, 0.8), None)
    matching = GridEvents(random_events(NEURONS, seed=1), DT, STEPS).grouped
    with pytest.raises(ValueError, match=f"events have {NEURONS + 1} sources, the weights {INPUTS}"):
        cpu.follow(weight, oversized, matching, shape, Model(0.7, 0.8), None)


def network(**options):
    """Two hidden layers with different time constants, the first one recurrent."""
    return hx.Network(
        hx.Linear(40, 30, gain=3),
        hx.LIF(30, 8e-6, 5e-6),
        hx.Recurrent(30, gain=2),
        hx.Dropout(0.2),
        hx.Linear(30, 20, gain=4),
        hx.LIF(20),
        hx.Linear(20, 5, gain=2, autoscale=True),
        hx.LI(5),
        **options,
    )


def images(batch=6):
    return hx.LatencyEncoder()(torch.rand(batch, 40, generator=torch.Generator().manual_seed(3)))


def attached(backend="emulator", settings=(), **options):
    net = network(**options)
    device = hx.Device(create_backend(backend, **dict(settings)))
    net.attach(device)
    return net


def test_the_twin_s_spikes_give_the_twin_s_membranes():
    """In software, `spikes_only` therefore changes nothing."""
    net = network(traces="spikes_only")
    spikes = images()
    events = GridEvents(spikes, net.dt, net.steps)
    weights = net.effective_weights()
    upstream = events
    models = [net.model(layer) for layer in net.layers]
    layers = simulate(net.layers, models, net.by_layer(weights), events)
    for layer, (weight, *recurrent_weights), simulated in zip(
        net.layers[:-1], net.by_layer(weights), layers, strict=False
    ):
        assert simulated.spikes.sum() > 10
        recurrent = recurrent_weights[0] if recurrent_weights else None
        population = ModelLayer(net.model(layer), weight, recurrent, upstream)
        membranes = engine_for(weight, population.model, recurrent).follow(population, simulated.fired)
        torch.testing.assert_close(membranes, simulated.trace, rtol=1e-5, atol=1e-6)
        upstream = simulated.fired
    with torch.no_grad():
        for a, b in zip(net(spikes).layers, network()(spikes).layers, strict=True):
            assert torch.equal(a.trace, b.trace)


SETTINGS = [("reference", {}), ("emulator", {"preset": "ideal"}), ("emulator", {"preset": "uncalibrated"})]


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize(("backend", "settings"), SETTINGS)
def test_in_the_loop(backend, settings, dropout):
    """Hidden membranes follow from the weights as sent and the spikes as measured; everything else is measured."""
    net = attached(backend, settings, traces="spikes_only")
    spikes = images()
    masks = net.dropout_masks(torch.Generator().manual_seed(1)) if dropout else None
    with torch.no_grad():
        activity = net(spikes, masks)
        plan = attached(backend, settings)
        whole = plan(spikes, masks)
    integers = net.device.plan.quantise(net.effective_weights(masks))[0]
    upstream = spikes.to_grid(net.dt, net.steps)
    for layer, planned, modelled, measured in zip(
        net.layers[:-1], net.device.plan.layers, activity.layers, whole.layers, strict=False
    ):
        assert torch.equal(modelled.spikes, measured.spikes)
        assert not torch.equal(modelled.trace, measured.trace)
        weights = [integers[p.name] / planned.nominal_scale for p in layer.projections]
        taus = layer.neurons.tau_syn, layer.neurons.tau_mem
        recurrent_weight = weights[1] if layer.recurrent else None
        expected = stepwise(
            weights[0], recurrent_weight, upstream, modelled.spikes, *(decay(net.dt, tau) for tau in taus)
        )
        torch.testing.assert_close(modelled.trace, expected, rtol=1e-4, atol=1e-5)
        assert modelled.trace.abs().max() > 1
        upstream = modelled.spikes
    assert torch.equal(activity.readout, whole.readout)
    assert activity.layers[-1].spikes is None


def test_modelled_membranes_equal_those_of_an_ideal_device():
    """They agree at any scale of the weights within the ADC's range, up to the first spike, since resets differ."""
    for scale in (None, 150.0):
        layers = []
        for traces in ("measured", "spikes_only"):
            net = hx.Network(
                hx.Linear(40, 30, gain=3, scale=scale), hx.LIF(30), hx.Linear(30, 5), hx.LI(5), traces=traces
            )
            net.attach(hx.Device(create_backend("reference")))
            grid = hx.LatencyEncoder()(torch.rand(20, 40, generator=torch.Generator().manual_seed(3)))
            grid = Spikes.from_grid(grid.to_grid(net.dt, net.steps), net.dt)  # the model has no other times
            with torch.no_grad():
                layers.append(net(grid).layers[0])
        free = (layers[0].spikes.cumsum(0) == 0) & (layers[1].trace > -1)
        error = (layers[0].trace - layers[1].trace)[free]
        assert layers[0].trace[free].std() > 0.1
        assert float(error.square().mean().sqrt()) < 0.02


@pytest.mark.parametrize("at_spike", ["threshold", "trace"])
def test_the_gradient_sees_the_modelled_membranes(at_spike):
    net = attached("emulator", {"preset": "uncalibrated"}, traces="spikes_only")
    spikes = images()
    for layer in net.layers[:-1]:
        layer.neurons.at_spike = at_spike
    activity = net(spikes)
    labels = torch.arange(6) % 5
    loss = hx.MaxOverTime()
    parameters = list(net.parameters())
    gradients = torch.autograd.grad(loss(activity.readout, labels), parameters)
    inputs = spikes.to_grid(net.dt, net.steps)
    traces = []
    for layer, modelled in zip(net.layers, activity.layers, strict=True):
        alpha, beta = net.decays(layer)
        fired = None if modelled.spikes is None else modelled.spikes.detach()
        weights = [p.synapses.weight for p in layer.projections]
        trace = modelled.trace.detach()
        if fired is not None:
            integers, scales = net.device.plan.quantise(net.effective_weights())
            weights_sent = net.device.plan.as_sent(integers, scales)[layer.name]
            trace = stepwise(
                weights_sent[0], weights_sent[1] if layer.recurrent else None, inputs.detach(), fired, alpha, beta
            )
        recurrent_weight = weights[1] if layer.recurrent else None
        rule = (get_surrogate("superspike"), 10.0, at_spike == "threshold")
        inputs, trace = stepwise_layer(weights[0], recurrent_weight, inputs, fired, trace, alpha, beta, rule)
        traces.append(trace)
    expected = torch.autograd.grad(loss(traces[-1], labels), parameters)
    for a, b in zip(gradients, expected, strict=True):
        assert b.abs().max() > 0
        assert float((a - b).abs().max() / b.abs().max()) < 2e-4


def test_digits_are_learnt(tmp_path):
    config = digits(5, preset="uncalibrated", train_samples=700, test_samples=200)
    config.network.traces = "spikes_only"
    assert run(config, tmp_path, "test", quiet())["test_accuracy"] > 0.8


class Spiky(hx.SurrogateGradient):
    """A gradient that reads no membranes of hidden layers; that of the readout alone."""

    reads_membranes = False

    def attach(self, weights, events, layers, models):
        [readout] = super().attach(weights[-1:], layers[-2].fired.grid, layers[-1:], models[-1:])
        return [*layers[:-1], readout]


@pytest.mark.parametrize("backend", [None, "emulator"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_membranes_that_nobody_reads_are_not_computed(backend, dtype, mocker):
    """They are computed when they are read, and are those that a gradient would have got."""
    net = network(gradient=Spiky()).to(dtype)
    net.attach(None if backend is None else hx.Device(create_backend(backend)))
    follow = mocker.spy(cpu.CpuEngine, "follow")
    stored = mocker.spy(cpu, "respond")
    activity = net(images())
    activity.readout.square().sum().backward()
    assert follow.call_count == 0
    assert [call.args[-1] for call in stored.call_args_list] == ([False, False, True] if backend is None else [])
    reference = network(traces="spikes_only").to(dtype)
    reference.attach(None if backend is None else hx.Device(create_backend(backend)))
    expected = reference(images())
    for layer, twin in zip(activity.hidden, expected.hidden, strict=True):
        assert torch.equal(layer.spikes, twin.spikes)
        close(layer.trace.detach(), twin.trace.detach(), 1e-6)
        assert layer.trace.dtype == dtype
    assert follow.call_count == (2 if backend is None else 4)
