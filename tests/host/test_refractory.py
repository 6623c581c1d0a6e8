"""The twin with a refractory period: the same in all engines, and near to an ideal chip, where a soft reset is not."""

import contextlib
import copy
import math

import pytest
import torch
from test_gpu import kernels, to_device  # noqa: F401 - a fixture

import hxtrain as hx
from hxtrain.backends import Spikes
from hxtrain.gradients import measured_layers
from hxtrain.network import NetworkConfig
from hxtrain.neurons import (
    Grads,
    GridEvents,
    MeasuredLayer,
    Model,
    Saturation,
    SpikeGrid,
    hold_of_measured,
    hold_of_model,
    psp,
    threads,
)
from hxtrain.neurons.engines import Demand, ModelLayer, choice, engine_for, readable, saturation
from hxtrain.neurons.engines.readable import READABLE

DT = 1.7e-6
STEPS = 30
SAMPLES = 7
INPUTS = 11
NEURONS = 70
HOLDS = [0.0, 0.4, 0.68, 1.0, 2.3]


def normal(*shape, seed, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def poisson(units=INPUTS, samples=SAMPLES, steps=STEPS, rate=0.3, seed=0):
    g = torch.Generator().manual_seed(seed)
    counts = torch.poisson(torch.full((steps, samples, units), rate), generator=g)
    return Spikes.from_grid(counts, DT)


def by_hand(drive, recurrent, hold, prescribed=None, alpha=0.75, beta=0.8):
    """Return spikes and membranes `[T, B, N]`, neuron by neuron, from the definition of the hold."""
    steps, samples, neurons = drive.shape
    membranes = torch.zeros_like(drive)
    spikes = torch.zeros_like(drive)
    current = torch.zeros_like(drive[0])
    release = torch.full_like(drive[0], -math.inf)  # time at which each membrane is free again, in steps
    for t in range(steps):
        spikes[t] = membranes[t] > 1 if prescribed is None else prescribed[t]
        release = torch.where(spikes[t] > 0, t + hold, release)
        current = alpha * current + drive[t] + spikes[t] @ recurrent.t()
        if t + 1 == steps:
            break
        for b in range(samples):
            for n in range(neurons):
                start = max(t, min(t + 1, float(release[b, n])))  # the membrane is at the leak until then
                is_reset = start > t or bool(spikes[t, b, n])
                free = t + 1 - start
                carried = 0.0 if is_reset else beta * float(membranes[t, b, n])
                membranes[t + 1, b, n] = carried + free * float(current[b, n])
    return spikes, membranes


@pytest.mark.parametrize("hold", HOLDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_engines_hold_the_membrane_as_defined(hold, dtype):
    model = Model(0.75, 0.8, hold=hold)
    weight = 0.6 * normal(NEURONS, INPUTS, seed=3, dtype=dtype)
    recurrent = 0.15 * normal(NEURONS, NEURONS, seed=4, dtype=dtype)
    inputs = GridEvents(poisson(), DT, STEPS)
    layer = ModelLayer(model, weight, recurrent, inputs)
    expected, membranes = by_hand(inputs.drive(weight).double(), recurrent.double(), hold)
    free, _ = by_hand(inputs.drive(weight).double(), recurrent.double(), 0.0)
    assert 0.03 < float(expected.mean()) < 0.6
    assert hold == 0 or float(expected.sum()) < 0.97 * float(free.sum())
    for engine in (engine_for(weight, model, recurrent), READABLE):
        spikes, trace = engine.respond(layer, spiking=True, recorded=True)
        assert torch.equal(spikes.grid.double(), expected)
        torch.testing.assert_close(trace.double(), membranes, atol=2e-4, rtol=0)
        membrane = engine.follow(layer, spikes)
        torch.testing.assert_close(membrane, trace, atol=1e-4, rtol=0)


@pytest.mark.parametrize("hold", [0.4, 1.7])
def test_membranes_of_measured_spikes_are_held(hold):
    """Measured spikes come where they will: below the threshold, and within the hold of an earlier one."""
    model = Model(0.75, 0.8, hold=hold)
    weight = 0.6 * normal(NEURONS, INPUTS, seed=3)
    recurrent = 0.15 * normal(NEURONS, NEURONS, seed=4)
    inputs = GridEvents(poisson(), DT, STEPS)
    fired = (torch.rand(STEPS, SAMPLES, NEURONS, generator=torch.Generator().manual_seed(1)) < 0.2).float()
    _, expected = by_hand(inputs.drive(weight), recurrent, hold, fired)
    layer = ModelLayer(model, weight, recurrent, inputs)
    for engine in (engine_for(weight, model, recurrent), READABLE):
        torch.testing.assert_close(engine.follow(layer, SpikeGrid(fired)), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("hold", HOLDS)
def test_the_kernel_of_the_gpu_holds_too(kernels, hold):  # noqa: F811 - the fixture
    model = Model(0.7, 0.8, hold=hold)
    drive = normal(STEPS, 5, NEURONS, seed=2).abs()
    expected, membranes = readable.response(drive, model, spiking=True)
    spikes, trace = kernels.respond(to_device(drive), model, True)
    assert torch.equal(spikes.cpu(), expected)
    assert torch.allclose(trace.cpu(), membranes, atol=1e-5)


def test_a_readout_is_never_held():
    model = Model(0.7, 0.8, hold=2.0)
    weight = normal(5, INPUTS, seed=1)
    inputs = GridEvents(poisson(rate=1.0), DT, STEPS)
    for engine in (engine_for(weight, model), READABLE):
        none, trace = engine.respond(ModelLayer(model, weight, None, inputs), spiking=False, recorded=True)
        _, free = engine.respond(ModelLayer(Model(0.7, 0.8), weight, None, inputs), spiking=False, recorded=True)
        assert none is None
        assert torch.equal(trace, free)


@pytest.mark.parametrize("spiking", [True, False])
def test_long_trials_are_the_same_in_blocks_of_steps(monkeypatch, spiking):
    """Beyond some number of steps, no engine uses a matrix [T, T]."""
    model = Model(0.75, 0.8)
    weight = 0.6 * normal(NEURONS, INPUTS, seed=3, dtype=torch.float64)
    recurrent = 0.15 * normal(NEURONS, NEURONS, seed=4, dtype=torch.float64)
    layer = ModelLayer(model, weight, recurrent if spiking else None, GridEvents(poisson(), DT, STEPS))
    slopes = normal(STEPS, SAMPLES, NEURONS, seed=5, dtype=torch.float64)

    def results():
        spikes, trace = READABLE.respond(layer, spiking, recorded=True)
        charge = readable.charges(model, None, trace, slopes, None)
        return [trace, charge] + ([READABLE.follow(layer, spikes), spikes.grid] if spiking else [])

    expected = results()
    monkeypatch.setattr(psp, "LONG", STEPS - 1)
    monkeypatch.setattr(psp, "BLOCK", 8)
    monkeypatch.setattr(psp, "psp_matrix", None)
    for actual, value in zip(results(), expected, strict=True):
        torch.testing.assert_close(actual, value, atol=1e-10, rtol=0)


def test_the_gradient_does_not_know_the_hold():
    """That of a pass is the same with and without, for equal measured values: resets are in the measurement."""
    weight = normal(NEURONS, INPUTS, seed=3).requires_grad_()
    inputs = GridEvents(poisson(), DT, STEPS)
    trace = 1 + normal(STEPS, SAMPLES, NEURONS, seed=6)
    gradients = []
    for hold in (None, 1.2):
        layer = MeasuredLayer(SpikeGrid((trace > 1).float()), trace)
        (attached,) = measured_layers([(weight, None)], inputs, [layer], [Model(0.75, 0.8, hold=hold)])
        gradients.append(torch.autograd.grad(attached.counts.square().sum(), weight)[0])
    assert gradients[0].any()
    assert torch.equal(*gradients)


def network(refractory, gain=2.0, **options):
    return hx.Network(
        *(hx.Linear(30, 60, mean=0.03, gain=gain), hx.LIF(60, refractory=refractory), hx.Recurrent(60, gain=gain)),
        *(hx.Linear(60, 4), hx.LI(4)),
        steps=60,
        **options,
    )


@torch.no_grad()
def test_the_twin_fires_as_an_ideal_chip():
    """With the chip's refractory period, numbers of spikes agree by neuron; with a soft reset there are far more."""
    spikes = poisson(30, 20, 60, rate=0.12)
    with hx.open_device("emulator", preset="ideal") as device:
        chip = network(None)
        chip.attach(device)
        measured = chip(spikes).hidden[0].counts
    soft, refractory = (network(period)(spikes).hidden[0].counts for period in (None, 2e-6))
    assert float(measured.mean()) > 2
    assert float(soft.mean()) > 1.3 * float(measured.mean())
    assert float(refractory.mean()) == pytest.approx(float(measured.mean()), rel=0.06)
    assert float((refractory - measured).abs().mean()) < 0.2 * float((soft - measured).abs().mean())


@torch.no_grad()
def test_modelled_membranes_follow_those_of_an_ideal_chip():
    spikes = poisson(30, 20, 60, rate=0.12)
    errors = {}
    with hx.open_device("emulator", preset="ideal") as device:
        for period in (None, 2e-6):
            recorded = network(period, gain=1.0)
            modelled = network(period, gain=1.0, traces="spikes_only")
            modelled.load_state_dict(recorded.state_dict())
            recorded.attach(device)
            trace = recorded(spikes).hidden[0].trace
            modelled.attach(device)
            errors[period] = float((modelled(spikes).hidden[0].trace - trace).square().mean().sqrt())
    assert errors[2e-6] < 0.4 * errors[None]


def test_the_setting_reaches_the_device():
    with hx.open_device("emulator", preset="ideal") as device:
        net = network(4e-6)
        net.attach(device)
        assert [p.refractory for p in device.plan.circuit.populations] == [4e-6, 2e-6]
        net.layers[0].neurons.refractory = None
        with pytest.raises(hx.PlacementError, match=r"layer0.refractory 4e-06 -> None"):
            net(poisson(30, 2, 60))
        net.attach(device)
        assert [p.refractory for p in device.plan.circuit.populations] == [2e-6, 2e-6]


def test_the_setting_is_checked_and_built():
    with pytest.raises(ValueError, match=r"LIF: refractory=-1e-06 must not be negative"):
        hx.LIF(3, refractory=-1e-6)
    with pytest.raises(ValueError, match=r"network.refractory=-1.0 must not be negative"):
        NetworkConfig(refractory=-1.0)
    net = NetworkConfig(hidden=[5], output="spikes", refractory=2e-6).build(3, 2, seed=0)
    assert [layer.neurons.refractory for layer in net.layers] == [2e-6, 2e-6]
    assert [model.hold for model in copy.deepcopy(net).models()] == [pytest.approx(2 / 1.7 - 0.5)] * 2
    assert hold_of_model(0.5e-6, DT) == 0
    assert hold_of_measured(2e-6, DT) == pytest.approx(2 / 1.7 + 0.5)
    assert hold_of_model(None, DT) is hold_of_measured(None, DT) is None
    assert "refractory=2e-06 s" in repr(net.layers[0].neurons)


class _Spike(torch.autograd.Function):
    """A spike with the surrogate `superspike` of slope 10; the membrane counts as at its threshold where it fires."""

    @staticmethod
    def forward(ctx, membrane):
        ctx.save_for_backward(membrane)
        return (membrane > 1).to(membrane)

    @staticmethod
    def backward(ctx, grad):
        (membrane,) = ctx.saved_tensors
        distance = torch.where(membrane > 1, 0.0, 1 - membrane)
        return grad / (1 + 10 * distance) ** 2


class _Saturate(torch.autograd.Function):
    """Currents that saturate, with the slope of the engines."""

    @staticmethod
    def forward(ctx, current, limit):
        ctx.save_for_backward(current / limit)
        return limit * (current / limit).tanh()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * saturation.slope(x.abs()), None


def held_by_autograd(drive, recurrent, hold, alpha, beta, limit):
    """Return spikes and membranes of a layer in the graph; the hold itself is a constant, as resets are.

    `drive` is `[T, B, G, N]` and `recurrent` `[G N, N]` for G synaptic inputs.
    """
    current = torch.zeros_like(drive[0])
    membrane = rest = torch.zeros_like(drive[0, :, 0])
    spikes, membranes = [], []
    for arriving in drive:
        membranes.append(membrane)
        spikes.append(_Spike.apply(membrane))
        current = alpha * current + arriving
        if recurrent is not None:
            current = current + (spikes[-1] @ recurrent.t()).view_as(current)
        spike = spikes[-1].detach()
        rest = torch.where(spike > 0, hold, rest)
        is_reset = (rest > 0) | (spike > 0)
        potential = (current if limit is None else _Saturate.apply(current, limit)).sum(1)
        membrane = (1 - rest.clamp(max=1)) * potential + torch.where(is_reset, 0.0, beta * membrane)
        rest = (rest - 1).clamp(min=0)
    return torch.stack(spikes), torch.stack(membranes)


def rows_of(weight, limits, circuits):
    """Return weights of each synaptic input `[G N, J]`."""
    return weight if limits is None else saturation.by_input(weight, limits, circuits)


@pytest.mark.parametrize("limit", [None, 1.5])
@pytest.mark.parametrize("is_recurrent", [True, False])
@pytest.mark.parametrize("hold", HOLDS)
def test_a_gradient_that_knows_the_hold_is_that_of_autograd(hold, is_recurrent, limit, mocker):
    alpha, beta = 0.75, 0.8
    neurons = 40
    weight = (0.6 * normal(neurons, INPUTS, seed=3, dtype=torch.float64)).requires_grad_()
    feedback = (0.2 * normal(neurons, neurons, seed=4, dtype=torch.float64)).requires_grad_() if is_recurrent else None
    inputs = GridEvents(poisson(), DT, STEPS)
    limits = limit and Saturation(limit, 24, 7, Saturation(limit, 24, 7 + INPUTS) if is_recurrent else None)
    circuits = limits and limits.circuits(INPUTS, neurons)
    rows = None if feedback is None else rows_of(feedback, limits and limits.recurrent, circuits)
    drive = inputs.counts(0, STEPS).double() @ rows_of(weight, limits, circuits).t()
    spikes, trace = held_by_autograd(drive.view(STEPS, SAMPLES, -1, neurons), rows, hold, alpha, beta, limit)
    assert 0.03 < float(spikes.detach().mean()) < 0.6
    factors = normal(STEPS, SAMPLES, neurons, seed=8, dtype=torch.float64)
    parameters = [weight] if feedback is None else [weight, feedback]

    def gradients(spikes, trace):
        return torch.autograd.grad((spikes * factors).sum() + (trace * factors.flip(0)).sum(), parameters)

    expected = gradients(spikes, trace)
    measured = MeasuredLayer(SpikeGrid(spikes.detach()), trace.detach())

    def by_engine(holds_gradient):
        model = Model(alpha, beta, saturation=limits, hold=hold, holds_gradient=holds_gradient)
        (layer,) = measured_layers([(weight, feedback)], inputs, [measured], [model])
        return gradients(layer.spikes, layer.trace)

    assert not torch.allclose(by_engine(False)[0], expected[0], rtol=0.01)
    compiled = by_engine(True)
    mocker.patch.object(choice, "_compiled", return_value=None)
    for actual in (compiled, by_engine(True)):
        for gradient, value in zip(actual, expected, strict=True):
            torch.testing.assert_close(gradient, value, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("is_recurrent", [True, False])
@pytest.mark.parametrize("limits", [None, Saturation(1.5, 24, 7, Saturation(1.2, 24, 30))])
def test_loops_hold_single_precision_gradients_in_any_share(limits, is_recurrent, mocker):
    """Measured spikes may come within a hold, and a core takes some of the neurons or samples."""
    model = Model(0.75, 0.8, saturation=limits, hold=1.68, holds_gradient=True, at_threshold=False)
    weight = 0.6 * normal(NEURONS, INPUTS, seed=3)
    feedback = 0.2 * normal(NEURONS, NEURONS, seed=4) if is_recurrent else None
    layer = ModelLayer(model, weight, feedback, GridEvents(poisson(), DT, STEPS))
    fired = SpikeGrid((normal(STEPS, SAMPLES, NEURONS, seed=1) > 0.8).float())
    trace = normal(STEPS, SAMPLES, NEURONS, seed=2)
    grads = Grads(normal(STEPS, SAMPLES, NEURONS, seed=5))
    downstream = normal(STEPS, SAMPLES, 5, seed=6), normal(5, NEURONS, seed=7)
    engine = engine_for(weight, model, feedback, backward=True)
    assert engine is not READABLE
    results = []
    for minimum in (10**9, 1):
        mocker.patch.object(threads, "MIN_SHARE", minimum)
        mocker.patch.object(threads, "_cores", return_value=3)
        results.append(engine.gradient(layer, fired, trace, grads, downstream, Demand(True, True, is_recurrent)))
    expected = READABLE.gradient(layer, fired, trace, grads, downstream, Demand(True, True, is_recurrent))
    for whole, shared, value in zip(*results, expected, strict=True):
        assert (whole is None) == (value is None)
        if value is not None:
            assert torch.equal(whole, shared)
            torch.testing.assert_close(whole, value, atol=1e-5 * float(value.abs().max()), rtol=0)


def test_kernels_of_the_gpu_leave_such_gradients_to_the_readable_engine(mocker):
    mocker.patch.object(choice, "GPU", "meta")
    mocker.patch.object(choice, "_has_triton", return_value=True)
    gpu = mocker.patch.object(choice, "_gpu").return_value
    weight = torch.empty(3, 3, device="meta")
    model = Model(0.75, 0.8, hold=1.2, holds_gradient=True)
    for recurrent in (None, weight):
        assert engine_for(weight, model, recurrent) is gpu
        assert engine_for(weight, model._replace(holds_gradient=False), recurrent, backward=True) is gpu
        assert engine_for(weight, model, recurrent, backward=True) is READABLE


@pytest.mark.parametrize(("preset", "limit"), [(None, None), ("ideal", None), ("ideal", 20.0)])
def test_the_setting_of_the_gradient_reaches_it(preset, limit):
    spikes = poisson(30, 10, 60, rate=0.12)
    labels = torch.arange(10) % 4
    gradients = []
    for knows in (False, True):
        net = network(2e-6, gradient=hx.SurrogateGradient(refractory=knows), saturation=limit)
        with contextlib.nullcontext() if preset is None else hx.open_device("emulator", preset=preset) as device:
            net.attach(device)
            hx.MaxOverTime()(net(spikes).readout, labels).backward()
        gradients.append(net.layers[0].recurrent.weight.grad)
    assert gradients[0].any()
    assert not torch.allclose(*gradients, rtol=0.01)


def test_a_gradient_needs_the_period_that_it_is_to_know():
    net = network(None, gradient=hx.SurrogateGradient(refractory=True))
    with pytest.raises(ValueError, match=r"gradient.refractory=true needs the refractory period .* set network.refr"):
        net(poisson(30, 2, 60))
