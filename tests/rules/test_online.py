"""Rules that learn while a trial runs: their gradients are those of backpropagation, whatever the windows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import hxtrain as hx
from hxtrain.network import Activity
from hxtrain.neurons import GridEvents, SpikeGrid
from hxtrain.objectives import (
    Burst,
    Loss,
    MaxOverTime,
    MeanAfter,
    MeanOverTime,
    ReadoutAmplitude,
    Regularizer,
    SpikeCount,
    SpikeCountMSE,
    UpperActivity,
    WeightDecay,
)
from hxtrain.objectives.losses import read_output
from hxtrain.objectives.online import Grid
from hxtrain.objectives.van_rossum import DifferenceTraces, VanRossum, filtered
from hxtrain.rules import Backprop, Batch, Objective, RuleError, learn
from hxtrain.rules.eligibility import Eligibilities, Filter
from hxtrain.rules.feedback import fixed_feedback
from hxtrain.rules.online import OnlineRule
from hxtrain.rules.rtrl import RTRL, EProp
from hxtrain.rules.streaming import windows
from hxtrain.rules.superspike import SuperSpike

SAMPLES = 6
INPUTS = 14
CLASSES = 3
LOSSES = [MaxOverTime(), MeanOverTime(), MeanAfter(start=12e-6), SpikeCount(), SpikeCountMSE(), VanRossum()]
WINDOWS = [1, 3, 7, 20, 50]


def network(loss: Loss, *hidden: int, steps: int = 20, recurrent: float = 0.0) -> hx.Network:
    """Return a network of double precision that fires."""
    modules: list[torch.nn.Module] = []
    inputs = INPUTS
    for size in hidden:
        modules += [hx.Linear(inputs, size, mean=0.05, gain=5.0), hx.LIF(size, tau_mem=7e-6, tau_syn=5e-6)]
        if recurrent:
            modules.append(hx.Recurrent(size, gain=recurrent))
        inputs = size
    output = hx.LI(CLASSES) if loss.reads == "membranes" else hx.LIF(CLASSES, tau_mem=8e-6)
    modules += [hx.Linear(inputs, CLASSES, mean=0.05, gain=5.0), output]
    return hx.Network(*modules, steps=steps, seed=1).double()


def batch(steps: int = 20) -> Batch:
    generator = torch.Generator().manual_seed(3)
    times = torch.rand(SAMPLES, INPUTS, generator=generator) * steps * 1.7e-6
    return Batch(hx.Spikes.from_times(times), torch.arange(SAMPLES) % CLASSES)


def gradients(net: hx.Network) -> list[Tensor]:
    """Return the gradients of all weights, and clear them."""
    copies = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    for parameter in net.parameters():
        parameter.grad = None
    return copies


def learned(net: hx.Network, rule: OnlineRule, loss: Loss, samples: Batch) -> tuple[list[Tensor], float]:
    """Return the gradients and the loss of a rule."""
    loss.prepare(CLASSES)
    rule.prepare(net, Objective(loss))
    value = rule.step(net, samples).loss
    return gradients(net), value


def backprop_of_errors(net: hx.Network, loss: Loss, samples: Batch) -> list[Tensor]:
    """Return the gradients of the sum of the output, weighted by the errors of its steps."""
    activity: Activity = net(samples.spikes)
    errors = loss.online(samples.labels, CLASSES, Grid(net.steps, net.dt))
    assert errors is not None
    (activity.output * errors.observe(activity.output.detach(), is_end=True)).sum().backward()  # type: ignore[no-untyped-call]
    return gradients(net)


def cosine(x: Tensor, y: Tensor) -> float:
    return float(torch.cosine_similarity(x.flatten(), y.flatten(), dim=0))


def distance(x: list[Tensor], y: list[Tensor]) -> float:
    """Return the largest relative difference of two lists of gradients."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("loss", LOSSES[:5], ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("hidden", [(), (11,)], ids=["perceptron", "hidden"])
def test_rtrl_is_backpropagation_of_its_errors(hidden: tuple[int, ...], loss: Loss, window: int) -> None:
    net = network(loss, *hidden)
    streamed, value = learned(net, RTRL(window), loss, batch())
    exact = backprop_of_errors(net, loss, batch())
    assert all(float(gradient.norm()) > 0 for gradient in exact)
    assert distance(streamed, exact) < 1e-10
    with torch.no_grad():
        activity = net(batch().spikes)
    assert value == pytest.approx(float(loss(read_output(loss, activity), batch().labels)), rel=1e-10)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("steps", [20, 700])
def test_superspike_of_a_layer_is_backpropagation_of_the_distance(steps: int, window: int) -> None:
    net = network(LOSSES[-1], steps=steps)
    loss = VanRossum(tau_rise=3e-6, tau_decay=9e-6, interval=steps * 2.5e-7)
    streamed, value = learned(net, SuperSpike(window), loss, batch(steps))
    rule = Backprop()
    rule.prepare(net, Objective(loss))
    assert rule.step(net, batch(steps)).loss == pytest.approx(value, rel=1e-10)
    assert distance(streamed, gradients(net)) < 1e-10


@pytest.mark.parametrize(
    ("rule", "loss"),
    [
        (RTRL(), MaxOverTime()),
        (EProp(), MeanOverTime()),
        (RTRL(), SpikeCount()),
        (SuperSpike(feedback="random"), VanRossum()),
    ],
    ids=["rtrl", "eprop", "spikes", "superspike"],
)
@pytest.mark.parametrize("recurrent", [0.0, 0.3])
def test_windows_of_a_trial_are_the_whole(rule: OnlineRule, loss: Loss, recurrent: float) -> None:
    net = network(loss, 11, 9, steps=60, recurrent=recurrent)
    whole, value = learned(net, replace(rule, window=60), loss, batch(60))
    assert len(whole) == (5 if recurrent else 3)
    for window in (1, 7, 59):
        pieces, streamed_value = learned(net, replace(rule, window=window), loss, batch(60))
        assert distance(pieces, whole) < 1e-12
        assert streamed_value == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("is_filtered", [True, False])
def test_eligibilities_are_the_equations(is_filtered: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    steps = 13
    samples = 2
    sources = 3
    neurons = 5
    inputs = torch.poisson(torch.full((steps, samples, sources), 0.4, dtype=torch.float64), generator)
    slopes, signals = (torch.randn(steps, samples, neurons, generator=generator, dtype=torch.float64) for _ in range(2))
    trace = Filter(0.7, 0.8)
    response = Filter(0.6, 0.9)
    eligibilities = Eligibilities((samples, sources, neurons), trace, response if is_filtered else None, torch.float64)
    for part in torch.arange(steps).split(4):
        eligibilities.observe(inputs[part], slopes[part], signals[part], is_end=int(part[-1]) == steps - 1)
    current, potential = torch.zeros(2, samples, 1, sources, dtype=torch.float64)
    rise, eligibility = torch.zeros(2, samples, neurons, sources, dtype=torch.float64)
    expected = torch.zeros(neurons, sources, dtype=torch.float64)
    for x, slope, signal in zip(inputs, slopes, signals, strict=True):
        local = slope[:, :, None] * potential
        expected += (signal[:, :, None] * (eligibility if is_filtered else local)).sum(0)
        rise = response.rise * rise + local
        eligibility = response.decay * eligibility + rise
        current = trace.rise * current + x[:, None]
        potential = trace.decay * potential + current
    assert torch.allclose(eligibilities.gradient, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("rule", "loss"), [(RTRL(7), MaxOverTime()), (SuperSpike(7), VanRossum())])
def test_state_does_not_grow_with_the_trial(rule: OnlineRule, loss: Loss) -> None:
    sizes = set()
    for steps in (20, 200, 2000):
        net = network(loss, 11, steps=steps)
        loss.prepare(CLASSES)
        rule.prepare(net, Objective(loss))
        rule.begin(net, batch())
        with torch.no_grad():
            trial = windows(net, batch().spikes, net(batch().spikes).layers, rule.window)
            for _, window in zip(range(2), trial, strict=False):
                rule.observe(net, batch(), window)
        sizes.add(rule.state_size())
    assert len(sizes) == 1
    assert sizes.pop() > 2 * SAMPLES * INPUTS * 11


@pytest.mark.parametrize(("gain", "gate"), [(0.0, 1 - 1e-12), (0.3, 0.85)])
def test_rtrl_leaves_out_recurrent_paths_alone(gain: float, gate: float) -> None:
    net = network(MeanOverTime(), 16, steps=60, recurrent=1.0)
    with torch.no_grad():
        net.projections[1].synapses.weight.mul_(gain)
    streamed, _ = learned(net, RTRL(), MeanOverTime(), batch(60))
    exact = backprop_of_errors(net, MeanOverTime(), batch(60))
    assert all(cosine(x, y) > gate for x, y in zip(streamed, exact, strict=True))


@pytest.mark.parametrize(("loss", "gate"), [(MaxOverTime(), 0.9), (MeanOverTime(), 0.9)])
def test_errors_of_a_running_trial_agree_with_the_loss(loss: Loss, gate: float) -> None:
    net = network(loss, 11)
    streamed, _ = learned(net, RTRL(), loss, batch())
    rule = Backprop()
    rule.prepare(net, Objective(loss))
    rule.step(net, batch())
    assert all(cosine(x, y) > gate for x, y in zip(streamed, gradients(net), strict=True))


def test_symmetric_eprop_is_rtrl_and_random_feedback_does_not_depend_on_the_weights() -> None:
    net = network(MaxOverTime(), 11)
    exact, _ = learned(net, RTRL(), MaxOverTime(), batch())
    symmetric, _ = learned(net, EProp(feedback="symmetric"), MaxOverTime(), batch())
    random, _ = learned(net, EProp(), MaxOverTime(), batch())
    assert distance(symmetric, exact) == 0
    assert torch.equal(random[1], exact[1])  # the output has its own error
    assert not torch.allclose(random[0], exact[0])
    with torch.no_grad():
        net.projections[1].synapses.weight.copy_(fixed_feedback("random", CLASSES, [11], 0, torch.float64)[0])
    exact, _ = learned(net, RTRL(), MaxOverTime(), batch())
    random, _ = learned(net, EProp(), MaxOverTime(), batch())
    assert distance(random, exact) < 1e-12  # feedback weights that equal the weights are symmetric


def test_masks_and_fixed_projections_are_those_of_backpropagation() -> None:
    net = network(MeanOverTime(), 11, 9)
    net.set_mask("input->layer0", torch.rand(11, INPUTS) < 0.5)
    net.projections[1].synapses.learned = False
    masks = [(torch.arange(11) % 2).double(), None, None]
    streamed, _ = learned(net, RTRL(), MeanOverTime(), batch()._replace(masks=masks))
    assert len(streamed) == 2
    assert not streamed[0][::2].any()
    assert not streamed[0][~net.projections[0].synapses.mask].any()  # type: ignore[operator]
    assert streamed[0].any()


@pytest.mark.parametrize("penalty", [Burst(3.0), UpperActivity(3.0, allowed=1.0)])
def test_penalties_act_at_the_numbers_of_spikes_so_far(penalty: Regularizer) -> None:
    net = network(MaxOverTime(), 11)
    rule = RTRL(1)
    rule.prepare(net, Objective(MaxOverTime(), [penalty, WeightDecay()]))
    rule.step(net, batch())
    streamed = gradients(net)
    activity: Activity = net(batch().spikes)
    hidden = activity.hidden[0].spikes
    assert hidden is not None
    (slopes,) = penalty.online([hidden.detach().cumsum(0)]) or []
    total = (hidden * slopes).sum() + WeightDecay()(activity, net.effective_weights())
    total.backward()  # type: ignore[no-untyped-call]
    expected = [x + y for x, y in zip(gradients(net), backprop_of_errors(net, MaxOverTime(), batch()), strict=False)]
    assert distance(streamed[:1], expected[:1]) < 1e-10


REFUSALS = {
    "a loss of trials": (RTRL(), lambda output, labels: output.sum(), "known at its end alone"),
    "another loss": (SuperSpike(), SpikeCount(), "choose loss=van_rossum"),
    "a penalty of trials": (RTRL(), MaxOverTime(), "ReadoutAmplitude is known at its end alone"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case: str) -> None:
    rule, loss, text = REFUSALS[case]
    net = network(loss if isinstance(loss, Loss) else MaxOverTime(), 5)
    penalties = [ReadoutAmplitude()] if "penalty" in case else []
    with pytest.raises(RuleError, match=text):
        rule.prepare(net, Objective(loss, penalties))


def test_settings_and_saturation_are_checked() -> None:
    with pytest.raises(ValueError, match=r"rule.feedback='none' is not known"):
        RTRL(feedback="none")
    net = network(MaxOverTime(), 5)
    net.saturation = 100.0
    assert "network.saturation=100 is not known to rtrl" in RTRL().check(net, None)[0]


def test_distance_of_spike_trains() -> None:
    loss = VanRossum(tau_rise=3e-6, tau_decay=9e-6)
    spikes = torch.zeros(2000, 1, 2, dtype=torch.float64)
    spikes[10, 0, 0] = 1
    kernel = loss.kernel(1.7e-6)
    whole = filtered(spikes, kernel)
    assert float(whole.square().sum()) == pytest.approx(1)  # of a train from an empty one
    parts = DifferenceTraces(loss, 1.7e-6)
    assert torch.allclose(torch.cat([parts.observe(part) for part in spikes.split(300)]), whole, atol=1e-12)


def test_answer_is_the_class_with_the_nearest_train() -> None:
    targets = hx.Spikes.from_events([0, 0, 1, 1], [0, 1, 0, 1], [5e-6, 9e-6, 17e-6, 13e-6], 2, 2)
    loss = VanRossum()
    loss.prepare(2, targets)
    assert (loss.outputs(2, targets), loss.classes(2)) == (2, 2)
    grid = targets.to_grid(1.7e-6, 20)
    activity = network(loss, 5)(batch().spikes)
    activity.layers[-1] = replace(activity.layers[-1], fired=SpikeGrid(grid.flip(1)), anchors=(None, None, None))
    output = loss.read(activity)
    assert loss.scores(output).argmax(1).tolist() == [1, 0]
    assert float(loss.scores(output).max()) == pytest.approx(0, abs=1e-5)
    assert float(loss(output, [1, 0])) == pytest.approx(0, abs=1e-12)
    assert float(loss(output, [0, 1])) > 0.1
    # the first target spike is in step 2 (3.4 us to 5.1 us), at the end of which it is known
    assert loss.decision_times(output, 1.7e-6).tolist() == pytest.approx([5.1e-6, 5.1e-6])


@pytest.mark.parametrize("seed", [0, 1])
def test_superspike_learns_a_target_train(seed: int) -> None:
    """As the single neuron of the BrainScaleS-2 demonstration: 25 inputs, four target spikes, 200 us, 100 epochs."""
    generator = torch.Generator().manual_seed(seed)
    number = 50
    inputs = hx.Spikes.from_events(
        torch.zeros(number, dtype=torch.int64),
        torch.randint(25, (number,), generator=generator),
        torch.rand(number, generator=generator) * 2e-4,
        1,
        25,
    )
    targets = hx.Spikes.from_events([0] * 4, [0] * 4, [40e-6, 80e-6, 120e-6, 160e-6], 1, 1)
    net = hx.Network(hx.Linear(25, 1, mean=0.1, gain=2.0), hx.LIF(1, 10e-6, 5e-6, slope=5.0), steps=118, seed=seed)
    loss = VanRossum(tau_rise=10e-6, tau_decay=10e-6)
    loss.prepare(1, targets)
    rule = SuperSpike()
    rule.prepare(net, Objective(loss, targets=targets))
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-2)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
    losses = []
    for _ in range(100):
        losses.append(learn(net, rule, optimizer, Batch(inputs, torch.zeros(1, dtype=torch.int64))).loss)
        decay.step()
    assert losses[-1] <= 0.2 * losses[0]


@pytest.mark.parametrize("is_grouped", [True, False])
def test_windows_hold_the_events_of_the_grid(is_grouped: bool) -> None:
    samples = batch().spikes
    events = GridEvents(samples, 1.7e-6, 20)
    if is_grouped:
        assert len(events.grouped.units)
    grid = samples.to_grid(1.7e-6, 20)
    assert torch.equal(torch.cat([events.counts(0, 7), events.counts(7, 20)]), grid)
    layer = SpikeGrid(None, SpikeGrid(grid.clamp(max=1)).grouped, (20, SAMPLES, INPUTS))
    expected = hx.Spikes.from_grid(grid.clamp(max=1), 1.7e-6)
    actual = layer.times(1.7e-6)
    assert torch.equal(actual.time, expected.time)
    assert torch.equal(actual.unit, expected.unit)
    assert torch.equal(actual.sample, expected.sample)
