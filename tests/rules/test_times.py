"""Exact gradients of spike times: against finite differences in continuous time, closed forms, and in the loop."""

import math
from dataclasses import replace

import continuous
import numpy as np
import pytest
import torch

import hxtrain as hx
from hxtrain.backends import Spikes
from hxtrain.gradients.spike_times import (
    Guard,
    LayerTimes,
    Population,
    constants,
    first_times,
    in_order,
    spike_time_layers,
)
from hxtrain.network import DelayedNetwork, DelayedNetworkConfig
from hxtrain.objectives import SpikeTimeMSE, SpikeTimeTargets, TimeToFirstSpike
from hxtrain.rules import Batch, Objective, RuleError, learn, require_fit
from hxtrain.rules.eventprop import EventProp
from hxtrain.rules.spikeprop import SpikeProp

TAU = 6e-6
DT = 1.7e-6
END = 40e-6
STEPS = 24
RATIOS = (1.0, 2.0, 1.37)
SIZES = (5, 4, 3)


class Case:
    """A random network of two spiking layers and a readout, solved in continuous time.

    Args:
        seed: Seed of weights, events and of the loss.
        ratio: tau_mem / tau_syn.
        refractory: Refractory period (s).
        reset: Membrane after a spike.
    """

    def __init__(self, seed: int, ratio: float, refractory: float = 0.0, reset: float = 0.0) -> None:
        self.random = np.random.default_rng(seed)
        self.constants = constants(ratio * TAU, TAU, DT, refractory, reset)
        inputs, first, second = SIZES
        shapes = ((first, inputs), (second, first), (2, second))
        self.weights = [self.random.normal(0.13 if refractory else 0.09, 0.15, shape) / ratio**0.5 for shape in shapes]
        times = np.sort(self.random.uniform(0, 25e-6, 14))
        self.events = [(float(t), int(u)) for t, u in zip(times, self.random.integers(0, inputs, 14), strict=True)]
        self.seed_trace = self.random.normal(size=(STEPS, 2))
        self.layers = continuous.network(self.weights[:2], self.events, self.constants, END)

    def loss(self, weights: list[np.ndarray], events: continuous.Events) -> float | None:
        """Return a random linear function of the readout; None if numbers of spikes differ from those of the case."""
        layers = continuous.network(weights[:2], events, self.constants, END)
        if [unit for layer in layers for _, unit in layer] != [unit for layer in self.layers for _, unit in layer]:
            return None
        times = np.arange(STEPS) * DT
        return float((continuous.readout(weights[2], layers[-1], self.constants, times) * self.seed_trace).sum())

    def graph(self) -> tuple[list[torch.Tensor], Spikes, list[LayerTimes]]:
        """Return weights, input events and layers in one graph."""
        weights = [torch.tensor(weight, requires_grad=True) for weight in self.weights]
        inputs = continuous.as_spikes([self.events], SIZES[0])
        inputs.time.requires_grad_()
        populations = [
            Population(self.constants, continuous.as_spikes([events], size), (STEPS, 1, size))
            for events, size in zip(self.layers, SIZES[1:], strict=True)
        ]
        trace = torch.zeros(STEPS, 1, 2, dtype=torch.float64)
        populations.append(Population(self.constants, None, (STEPS, 1, 2), trace))
        return weights, inputs, spike_time_layers([(w, None) for w in weights], inputs, populations, DT, Guard(1e-9))

    def counts(self) -> list[int]:
        """Return the number of spikes of each neuron."""
        return [
            sum(unit == n for _, unit in layer)
            for layer, size in zip(self.layers, SIZES[1:], strict=True)
            for n in range(size)
        ]


def difference(case: Case, part: int, direction: np.ndarray) -> float | None:
    """Return the derivative of the loss along a direction of the weights of a layer, or of the input times (part 3)."""
    values = []
    for sign in (1, -1):
        weights = [w + sign * 1e-6 * direction if i == part else w for i, w in enumerate(case.weights)]
        shifts = sign * 1e-12 * direction if part == 3 else np.zeros(len(case.events))
        values.append(case.loss(weights, [(t + d, u) for (t, u), d in zip(case.events, shifts, strict=True)]))
    if values[0] is None or values[1] is None:
        return None
    return (values[0] - values[1]) / (2e-12 if part == 3 else 2e-6)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize(("refractory", "reset"), [(0.0, 0.0), (2e-6, -0.2)])
def test_the_adjoint_equals_finite_differences(ratio: float, refractory: float, reset: float) -> None:
    compared = spikes = 0
    for seed in range(14):
        case = Case(seed, ratio, refractory, reset)
        if max(case.counts()) > 8:
            continue
        weights, inputs, layers = case.graph()
        (layers[-1].trace * torch.tensor(case.seed_trace)[:, None]).sum().backward()  # type: ignore[operator]
        for part in range(4):
            gradient = (inputs.time if part == 3 else weights[part]).grad
            direction = case.random.normal(size=gradient.shape)  # type: ignore[union-attr]
            numeric = difference(case, part, direction)
            if numeric is None:
                continue
            analytic = float((gradient.numpy() * direction).sum())  # type: ignore[union-attr]
            assert analytic == pytest.approx(numeric, rel=1e-3, abs=1e-6 if part < 3 else 1.0)
            compared += 1
        spikes = max(spikes, *case.counts())
    assert compared >= 24
    assert spikes >= 6


@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_the_adjoint_equals_the_derivative_of_the_closed_form(ratio: float) -> None:
    """First spike: Lambert W for equal time constants, a quadratic equation for the ratio 2 (Göltz 2021)."""
    fixed = constants(ratio * TAU, TAU, DT)
    weight = torch.tensor([[0.3, 0.25, 0.35]], dtype=torch.float64, requires_grad=True)
    times = torch.tensor([0.0, 2e-6, 3e-6], dtype=torch.float64, requires_grad=True)
    drive = fixed.drive * TAU
    factors = weight[0] * torch.exp(times / TAU)
    if ratio == 1:  # drive (a x - b) e^-x = 1 with x = t / tau, solved by Newton's method in the graph
        a = factors.sum()
        b = (factors * times / TAU).sum()
        x = torch.tensor(0.6, dtype=torch.float64)
        for _ in range(60):
            value = drive * (a * x - b) * torch.exp(-x) - 1
            x = x - value / (drive * torch.exp(-x) * (a - a * x + b))
    else:  # 2 drive (b y - a y^2) = 1 with y = e^(-x / 2)
        a = factors.sum()
        b = (weight[0] * torch.exp(times / (2 * TAU))).sum()
        y = (b + torch.sqrt(b * b - 2 * a / drive)) / (2 * a)
        x = -2 * torch.log(y)
    expected = torch.autograd.grad(x * TAU, [weight, times])
    spike = continuous.layer(weight.detach().numpy(), [(t, k) for k, t in enumerate(times.tolist())], fixed, END)[:1]
    assert spike[0][0] == pytest.approx(float(x.detach()) * TAU, rel=1e-9)
    inputs = Spikes.trusted(torch.zeros(3, dtype=torch.long), torch.arange(3), times, 1, 3)
    population = Population(fixed, continuous.as_spikes([spike], 1), (STEPS, 1, 1))
    (layer,) = spike_time_layers([(weight, None)], inputs, [population], DT, Guard(1e-9))
    measured = torch.autograd.grad(layer.spikes.time.sum(), [weight, times])  # type: ignore[union-attr]
    for ours, theirs in zip(measured, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9)
    assert bool((measured[0] < 0).all())  # a larger weight makes the spike earlier


def test_recurrent_spikes_pass_on_their_gradient() -> None:
    """Neuron 0 fires and drives neuron 1 over a recurrent weight, as in a chain of two layers."""
    fixed = constants(TAU, TAU, DT)
    inputs = continuous.as_spikes([[(0.0, 0), (1e-6, 0)]], 1)
    weights = [np.array([[1.2]]), np.array([[1.3]])]
    first = continuous.layer(weights[0], [(0.0, 0), (1e-6, 0)], fixed, END)
    first = first[:1]
    second = continuous.layer(weights[1], first, fixed, END)[:1]
    forward = torch.tensor([[1.2], [0.0]], dtype=torch.float64, requires_grad=True)
    recurrent = torch.tensor([[0.0, 0.0], [1.3, 0.0]], dtype=torch.float64, requires_grad=True)
    pair_of_spikes = continuous.as_spikes([[first[0], (second[0][0], 1)]], 2)
    (layer,) = spike_time_layers(
        [(forward, recurrent)], inputs, [Population(fixed, pair_of_spikes, (STEPS, 1, 2))], DT, Guard(1e-9)
    )
    layer.spikes.time[1].backward()  # type: ignore[union-attr]
    chain = [torch.tensor(w, requires_grad=True) for w in weights]
    populations = [Population(fixed, continuous.as_spikes([x], 1), (STEPS, 1, 1)) for x in (first, second)]
    layers = spike_time_layers([(w, None) for w in chain], inputs, populations, DT, Guard(1e-9))
    layers[1].spikes.time.sum().backward()  # type: ignore[union-attr]
    assert float(forward.grad[0, 0]) == pytest.approx(float(chain[0].grad))  # type: ignore[index, arg-type]
    assert float(recurrent.grad[1, 0]) == pytest.approx(float(chain[1].grad))  # type: ignore[index, arg-type]


def chain(output: hx.LIF | hx.LI | None = None, gain: float = 5.0) -> hx.Network:
    end = hx.LIF(3) if output is None else output
    return hx.Network(hx.Linear(6, 8, 0.3, gain), hx.LIF(8), hx.Linear(8, 3, 0.3, gain), end, steps=20, seed=1)


def batch(samples: int = 12) -> Batch:
    generator = torch.Generator().manual_seed(4)
    times = torch.rand(samples, 6, generator=generator) * 2e-5
    return Batch(Spikes.from_times(times), torch.arange(samples) % 3)


def gradients(net: hx.Network, rule: EventProp, samples: Batch, loss: hx.Loss | None = None) -> list[torch.Tensor]:
    """Return the gradients that a rule leaves."""
    rule.prepare(net, Objective(TimeToFirstSpike() if loss is None else loss))
    for parameter in net.parameters():
        parameter.grad = None
    rule.step(net, samples)
    return [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("kind", [EventProp, SpikeProp])
def test_the_gradient_of_a_batch_is_the_mean_of_its_samples(kind: type[EventProp]) -> None:
    net = chain()
    rule = kind(floor_strength=0.0)
    samples = batch()
    whole = gradients(net, rule, samples)
    singles = [
        gradients(net, rule, Batch(samples.spikes[[b]], samples.labels[b : b + 1])) for b in range(len(samples.labels))
    ]
    for total, *parts in zip(whole, *singles, strict=True):
        assert torch.allclose(total, torch.stack(parts).mean(0), rtol=1e-3, atol=1e-4 * float(total.abs().max()))


def test_spikeprop_is_eventprop_where_each_neuron_fires_once_and_differs_where_it_fires_again() -> None:
    net = chain()
    initial = {name: value.clone() for name, value in net.state_dict().items()}
    samples = batch(40)
    is_once = torch.zeros(40, dtype=torch.bool)
    for factor in np.linspace(1.0, 0.2, 30):
        net.load_state_dict({name: value * factor for name, value in initial.items()})
        with torch.no_grad():
            counts = [layer.counts for layer in net(samples.spikes).layers]
        is_once = (counts[0].amax(1) <= 1) & (counts[1].amax(1) == 1)  # type: ignore[union-attr]
        if is_once.any():
            break
    singles = is_once.nonzero().flatten()
    assert len(singles)
    part = Batch(samples.spikes[singles], samples.labels[singles])
    settings = {"floor_strength": 0.0, "slope_floor": 0.3}
    for ours, theirs in zip(
        gradients(net, SpikeProp(**settings), part), gradients(net, EventProp(**settings), part), strict=True
    ):
        assert torch.equal(ours, theirs)
    busy = chain()
    pair = [gradients(busy, kind(**settings), samples) for kind in (SpikeProp, EventProp)]
    assert not torch.allclose(pair[0][1], pair[1][1])


def test_without_spikes_only_the_floor_and_the_pull_change_weights() -> None:
    net = chain()
    net.load_state_dict({name: -value.abs() for name, value in net.state_dict().items()})
    assert all(
        not gradient.any()
        for gradient in gradients(net, EventProp(floor_strength=0.0), batch(), TimeToFirstSpike(pull=0.0))
    )
    pushed = gradients(net, EventProp(), batch(), TimeToFirstSpike(pull=0.0))
    assert bool((pushed[0] < 0).all())  # every neuron is silent, and gets stronger inputs
    no_input = Batch(Spikes.from_times(torch.full((4, 6), torch.inf)), torch.arange(4) % 3)
    assert all(not gradient.any() for gradient in gradients(net, EventProp(), no_input))


def test_the_floor_adds_to_the_gradient_of_silent_neurons_alone() -> None:
    net = chain()
    with torch.no_grad():
        net.stack[0].weight[2] = -1.0  # neuron 2 never fires
        counts = net(batch().spikes).layers[0].counts.mean(0)
    plain = gradients(net, EventProp(floor_strength=0.0), batch())[0]
    floored = gradients(net, EventProp(floor_strength=0.1), batch())[0]
    is_changed = (plain != floored).any(1)
    assert is_changed.tolist() == (counts < 0.5).tolist()
    assert bool(is_changed[2])
    assert not bool(is_changed.all())


def test_a_guard_bounds_the_gradient_and_is_counted() -> None:
    net = chain()
    shares = []
    for floor in (1e-6, 0.3, 1e3):
        rule = EventProp(slope_floor=floor)
        rule.prepare(net, Objective(TimeToFirstSpike()))
        net.zero_grad()
        shares.append(rule.step(net, batch()).metrics["guarded_share"])
    assert shares[0] <= shares[1] < shares[2] == 1.0
    assert "guarded spikes prevail: 100%" in rule.warnings({"guarded_share": 1.0})[0]


def test_measured_slopes_are_those_of_two_trace_samples() -> None:
    fixed = constants(TAU, TAU, DT)
    spikes = in_order(Spikes.from_events([0, 0, 0], [0, 0, 1], [3.5 * DT, 4.2 * DT, 0.5 * DT], 1, 2))
    trace = torch.linspace(0, 1.9, 20)[:, None, None].expand(20, 1, 2).contiguous()
    inputs = Spikes.from_events([0], [0], [0.0], 1, 1)
    slopes = []
    for is_measured in (False, True):
        population = Population(fixed, spikes, (20, 1, 2), trace)
        (layer,) = spike_time_layers(
            [(torch.ones(2, 1, requires_grad=True), None)], inputs, [population], DT, Guard(1e-9, is_measured)
        )
        slopes.append(layer.spikes.time.grad_fn)
    model, measured = (node.layers[0].slopes for node in slopes)
    assert measured[1] == pytest.approx(0.1 / DT, rel=1e-5)  # in order of time: neuron 1, then twice neuron 0
    assert measured[0] == model[0]  # no two samples before the spike
    assert measured[2] == model[2]  # the neuron has been reset since the first of the two samples


@pytest.mark.parametrize("preset", ["calibrated", "uncalibrated"])
@pytest.mark.parametrize("rule", [EventProp(), EventProp(slope="measured"), SpikeProp()])
def test_steps_on_a_chip_are_finite_and_reproducible(preset: str, rule: EventProp) -> None:
    results = []
    for _ in range(2):
        net = chain(hx.LI(3) if rule.slope == "measured" else None)
        with hx.open_device("emulator", preset=preset) as device:
            net.attach(device)
            copied = replace(rule)
            loss = hx.MaxOverTime() if net.output_kind == "membranes" else TimeToFirstSpike()
            copied.prepare(net, Objective(loss, [hx.WeightDecay(), hx.Burst()]))
            optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
            for _ in range(3):
                step = learn(net, copied, optimizer, batch())
            assert math.isfinite(step.loss)
            results.append([parameter.detach().clone() for parameter in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_layer_that_falls_silent_raises_an_alarm_also_after_a_checkpoint() -> None:
    net = chain()
    rule = EventProp()
    rule.prepare(net, Objective(TimeToFirstSpike()))
    rule.step(net, batch(600))
    assert rule.warnings({}) == []
    net.load_state_dict({name: -value.abs() for name, value in net.state_dict().items()})
    restored = EventProp()
    restored.prepare(net, Objective(TimeToFirstSpike()))
    restored.load_state_dict(rule.state_dict())
    restored.step(net, batch(600))
    assert [text.split(":")[0] for text in restored.warnings({})] == ["layer0 falls silent", "layer1 falls silent"]
    with pytest.raises(ValueError, match="state of nothing"):
        restored.load_state_dict({})


def test_what_does_not_fit_is_refused_with_a_remedy() -> None:
    with pytest.raises(RuleError, match="choose loss=ttfs"):
        EventProp().prepare(chain(), Objective(hx.SpikeCount()))
    with pytest.raises(ValueError, match="choose rule=eventprop"):
        hx.Backprop().prepare(chain(), Objective(TimeToFirstSpike()))
    net = chain(hx.LI(3))
    net.traces = "spikes_only"
    with pytest.raises(RuleError, match=r"rule.slope=measured reads hidden membranes"):
        require_fit(EventProp(slope="measured"), net, None)
    net.saturation = 0.4
    with pytest.raises(RuleError, match=r"network.saturation=0.4 .* choose rule=backprop"):
        require_fit(SpikeProp(), net, None)
    for settings, text in (
        ({"slope": "fitted"}, "rule.slope"),
        ({"slope_floor": 0.0}, "rule.slope_floor=0.0"),
        ({"firing_floor": math.inf}, "firing_floor"),
        ({"floor_strength": -1.0}, "floor_strength"),
    ):
        with pytest.raises(ValueError, match=text):
            EventProp(**settings)  # type: ignore[arg-type]


def test_first_times_are_those_of_the_first_spikes_in_any_order() -> None:
    spikes = Spikes.from_events([0, 0, 0, 1], [1, 0, 1, 1], [5.0, 2.0, 3.0, 1.0], 2, 2)
    assert first_times(spikes, 9.0).tolist() == [[2.0, 3.0], [9.0, 1.0]]
    assert in_order(spikes, 4.0).time.tolist() == [2.0, 3.0, 1.0]


TIMES = torch.tensor([[4e-6, 9e-6, 34e-6], [8e-6, 7e-6, 12e-6]], dtype=torch.float64)


@pytest.mark.parametrize(
    "loss",
    [
        TimeToFirstSpike(early_strength=0.1),
        TimeToFirstSpike(label_smoothing=0.1),
        SpikeTimeMSE(margin=2e-6),
        SpikeTimeMSE(margin=20e-6, one_sided=False),
    ],
)
def test_losses_of_times_choose_the_first_spike_and_their_gradient_is_right(
    loss: TimeToFirstSpike | SpikeTimeMSE,
) -> None:
    labels = torch.tensor([0, 1])
    assert loss.scores(TIMES).argmax(1).tolist() == [0, 1]
    assert loss.decision_times(TIMES, DT).tolist() == pytest.approx([4e-6, 7e-6])
    assert float(loss(TIMES, labels)) < float(loss(TIMES, 1 - labels))
    unit = 1e6  # finite differences need numbers near 1
    assert torch.autograd.gradcheck(lambda x: loss(x / unit, labels), (TIMES * unit).requires_grad_())
    if not getattr(loss, "early_strength", 0.0):
        assert float(loss(TIMES + 3e-6, labels)) == pytest.approx(float(loss(TIMES, labels)), rel=1e-9)


def test_targets_of_xor_give_answers_by_distance() -> None:
    data = hx.load_dataset("xor_times", settings={"copies": 2})
    loss = SpikeTimeTargets()
    assert loss.outputs(2, data.targets) == 1
    loss.prepare(2, data.targets)
    times = torch.tensor([[11e-6], [15.5e-6]])
    assert loss.scores(times).argmax(1).tolist() == [1, 0]
    assert float(loss(times, torch.tensor([1, 0]))) == pytest.approx((1 / 2 + 0.25 / 2) / 2, rel=1e-5)
    with pytest.raises(ValueError, match="target spike trains"):
        SpikeTimeTargets().prepare(2, None)
    with pytest.raises(RuleError, match="rule=backprop: SpikeTimeTargets reads spike times"):
        hx.Backprop().prepare(hx.Network(hx.Linear(3, 1), hx.LIF(1)), Objective(loss))
    for settings, text in (
        ({"copies": 0}, "copies=0"),
        ({"late": 0.0}, "early < late"),
        ({"late_target": 1e-6}, "late_target"),
    ):
        with pytest.raises(hx.datasets.DatasetError, match=text):
            hx.load_dataset("xor_times", settings=settings)


def test_terminals_repeat_every_event_later() -> None:
    from hxtrain.datasets.encoders import DelayedEventEncoder

    encoder = DelayedEventEncoder(delays=[0.0, 2e-6])
    events = Spikes.from_events([0, 1], [1, 0], [1e-6, 3e-6], 2, 2)
    spikes = encoder(events)
    assert encoder.units(2) == spikes.units == 4
    assert spikes.unit.tolist() == [1, 3, 0, 2]
    assert spikes.time.tolist() == pytest.approx([1e-6, 3e-6, 3e-6, 5e-6])
    with pytest.raises(ValueError, match="at least one delay"):
        DelayedEventEncoder(delays=[])


def test_delays_of_inputs_shift_spikes_and_learn() -> None:
    config = DelayedNetworkConfig(hidden=[8], output="spikes", delays=[0.0, 2e-6], init_mean=0.3, init_mean_output=0.3)
    net = config.build(6, 3, seed=1)
    assert isinstance(net, DelayedNetwork)
    samples = batch()
    arrivals = net.arrivals(samples.spikes)
    assert arrivals.units == net.layers[0].linear.inputs == 12
    assert torch.allclose(arrivals.time[1::2] - arrivals.time[::2], torch.tensor(2e-6), atol=1e-12)
    plain = hx.Network(*net.stack, dt=net.dt, steps=net.steps)
    with torch.no_grad():
        assert torch.equal(net(samples.spikes).output, plain(arrivals).output)
    rule = SpikeProp()
    rule.prepare(net, Objective(TimeToFirstSpike()))
    initial = net.delays.detach().clone()
    learn(net, rule, torch.optim.SGD(net.parameters(), lr=0.1), samples)
    assert net.delays.grad is not None
    assert bool(net.delays.grad.any())
    assert torch.allclose(net.delays, initial - 0.1 * net.delays.grad)
    with pytest.raises(ValueError, match="no multiple"):
        net.arrivals(Spikes.from_times(torch.zeros(1, 5)))
