"""Reward-modulated STDP: credits against integrals, changes of weights against sums over pairs, and delayed credit."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import hxtrain as hx
from hxtrain.neurons.conversion import on_grid
from hxtrain.objectives import SpikeCount
from hxtrain.objectives.rewards import Rewards, RewardSource
from hxtrain.rules import Batch, Objective, RuleError, require_fit
from hxtrain.rules.modulation import Modulator, credits
from hxtrain.rules.reward import RewardSTDP
from hxtrain.rules.traces import Pairing, pair_correlation

INFINITE = math.inf
REWARDS = ((10.0, 1.0), (30.0, -0.5), (50.0, 2.0), (80.0, 1.0))


def trains(times: list[float]) -> hx.Spikes:
    return hx.Spikes.from_events([0] * len(times), [0] * len(times), times, 1, 1)


def timed(*rewards: tuple[float, float]) -> Rewards:
    times = torch.tensor([time for time, _ in rewards], dtype=torch.float64)
    values = torch.tensor([value for _, value in rewards], dtype=torch.float64)
    return Rewards(torch.zeros(len(rewards), dtype=torch.int64), times, values)


def integral(spike: float, modulator: Modulator, end: float, start: float) -> tuple[float, float]:
    """Return credit and last baseline by small steps of the differential equations."""
    dt = 0.01
    baseline = start
    dopamine = credit = 0.0
    eligibility = 0.0
    rewards = dict(REWARDS)
    for step in range(round(end / dt)):
        time = step * dt
        if abs(time - spike) < dt / 2:
            eligibility = 1.0
        pulse = next((value for at, value in rewards.items() if abs(at - time) < dt / 2), 0.0)
        if modulator.dopamine:
            dopamine += pulse
        else:
            baseline += pulse / modulator.baseline
            credit += pulse * eligibility
        middle = eligibility * math.exp(-dt / 2 / modulator.eligibility)
        level = dopamine * math.exp(-dt / 2 / modulator.dopamine) if modulator.dopamine else 0.0
        mean = baseline + (level - baseline) * dt / 2 / modulator.baseline
        credit += (level - mean) * middle * dt
        baseline += (level - mean) * dt / modulator.baseline
        eligibility *= math.exp(-dt / modulator.eligibility)
        dopamine *= math.exp(-dt / modulator.dopamine) if modulator.dopamine else 0.0
    return credit, baseline


@pytest.mark.parametrize("spike", [1.0, 50.0, 99.0])
@pytest.mark.parametrize(
    "modulator",
    [
        Modulator(25.0),
        Modulator(25.0, baseline=40.0),
        Modulator(25.0, 7.0),
        Modulator(25.0, 7.0, 40.0),
        Modulator(INFINITE, 7.0, 40.0),
    ],
)
def test_the_credit_of_a_spike_is_the_integral_of_modulator_and_eligibility(modulator: Modulator, spike: float) -> None:
    credit = credits(trains([spike]), trains([]), timed(*REWARDS), modulator, 100.0, 0.3)
    expected, baseline = integral(spike, modulator, 100.0, 0.3)
    assert float(credit.inputs) == pytest.approx(expected, rel=2e-4, abs=2e-4)
    assert float(credit.baseline) == pytest.approx(baseline, rel=2e-4)


def test_a_pair_earns_what_izhikevich_s_equations_give() -> None:
    credit = credits(trains([0.0]), trains([10.0]), timed((1010.0, 0.5)), Modulator(1000.0, 200.0), 1e5)
    assert math.exp(-10 / 20) * float(credit.outputs) == pytest.approx(18.594, abs=5e-4)


def test_samples_have_rewards_of_their_own_and_none_after_the_end() -> None:
    spikes = hx.Spikes.from_events([0, 1, 2], [0, 0, 0], [1.0, 1.0, 99.5], 3, 1)
    rewards = Rewards(torch.tensor([1, 0, 1]), torch.tensor([20.0, 150.0, 10.0]), torch.tensor([2.0, 5.0, 1.0]))
    credit = credits(spikes, spikes, rewards, Modulator(10.0), 100.0)
    assert credit.outputs.tolist() == pytest.approx([0, math.exp(-0.9) + 2 * math.exp(-1.9), 0])


def poisson(rate: float, duration: float, units: int, generator: torch.Generator) -> hx.Spikes:
    counts = torch.poisson(torch.full((units,), rate * duration), generator=generator).long()
    times = torch.rand(int(counts.sum()), generator=generator, dtype=torch.float64) * duration
    unit = torch.arange(units).repeat_interleave(counts)
    return hx.Spikes.from_events(torch.zeros_like(unit), unit, times, 1, units)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_synapse_that_earns_late_rewards_grows_most(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pre = poisson(5.0, 600.0, 50, generator)
    post = poisson(5.0, 600.0, 1, generator)
    gap = post.time[:, None] - pre.time[pre.unit == 0]
    earned = post.time[((gap > 0) & (gap <= 10e-3)).any(1)].double()
    delay = 0.2 + 0.4 * torch.rand(len(earned), generator=generator, dtype=torch.float64)
    rewards = Rewards(torch.zeros(len(earned), dtype=torch.int64), earned + delay, torch.full_like(earned, 0.5))
    credit = credits(pre, post, rewards, Modulator(1.0, baseline=20.0), 600.0)
    causal, anticausal = pair_correlation(pre, post, 0.02, 0.02, factors=(credit.inputs, credit.outputs))
    change = (causal - 1.05 * anticausal)[0]
    z = (change[0] - change[1:].mean()) / change[1:].std()
    assert int((change >= change[0]).sum()) == 1
    assert z >= 4


def network(hidden: int = 0) -> hx.Network:
    layers = [hx.Linear(12, hidden, gain=8.0), hx.LIF(hidden)] if hidden else []
    return hx.Network(*layers, hx.Linear(hidden or 12, 3, mean=0.3, gain=8.0), hx.LIF(3), steps=30, seed=1).double()


def batch(samples: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(3)
    times = torch.rand(samples * 5, generator=generator) * 4e-5
    unit = torch.randint(12, (samples * 5,), generator=generator)
    spikes = hx.Spikes.from_events(torch.arange(samples).repeat_interleave(5), unit, times, samples, 12)
    return Batch(spikes, torch.arange(samples) % 3)


def right_count(scores: Tensor, labels: Tensor) -> Tensor:
    return scores.gather(1, labels[:, None])[:, 0]


def prepared(net: hx.Network, reward: Any = right_count, **settings: Any) -> RewardSTDP:
    rule = RewardSTDP(**settings)
    rule.prepare(net, Objective(SpikeCount(), reward=reward))
    return rule


def gradients(net: hx.Network, rule: RewardSTDP, samples: Batch) -> list[Tensor]:
    rule.step(net, samples)
    return [projection.synapses.weight.grad.clone() for projection in net.projections]  # type: ignore[union-attr]


@pytest.mark.parametrize("tau", [None, 8e-6])
def test_a_change_is_the_sum_over_pairs_times_reward(tau: float | None) -> None:
    net = network()
    samples = batch()
    settings: dict[str, Any] = {"a_minus": 0.5, "pairing": "all_to_all", "baseline": "none", "tau_eligibility": tau}
    grad = gradients(net, prepared(net, **settings), samples)[0]
    with torch.no_grad():
        activity = net(samples.spikes)
    outputs = activity.layers[-1].times(net.dt)
    reward = right_count(activity.layers[-1].counts, samples.labels)
    change = torch.zeros_like(grad)
    inputs = on_grid(samples.spikes, net.dt)
    for b, j, s in zip(inputs.sample, inputs.unit, inputs.time.double(), strict=True):
        for c, i, t in zip(outputs.sample, outputs.unit, outputs.time.double(), strict=True):
            if b == c and s != t:
                pair = math.exp((s - t) / 10e-6) if s < t else -0.5 * math.exp((t - s) / 10e-6)
                remaining = 1.0 if tau is None else math.exp((max(s, t) - 30 * net.dt) / tau)
                change[i, j] += reward[b] * pair * remaining * (max(s, t) <= 30 * net.dt)
    assert float(change.abs().sum()) > 0
    assert torch.allclose(grad, -change / 6, rtol=1e-5, atol=1e-9)


def test_a_reward_of_one_gives_plain_stdp() -> None:
    net = network()
    samples = batch()
    rule = prepared(net, lambda scores, labels: torch.ones(len(labels)), pairing="symmetric", baseline="none")
    outputs = net(samples.spikes).layers[-1].times(net.dt)
    expected = pair_correlation(on_grid(samples.spikes, net.dt), outputs, 10e-6, 10e-6, Pairing.SYMMETRIC).causal
    assert torch.allclose(gradients(net, rule, samples)[0], -expected / 6)


@pytest.mark.parametrize("baseline", ["label", "batch"])
def test_an_expected_reward_changes_nothing(baseline: str) -> None:
    net = network()
    rule = prepared(net, lambda scores, labels: torch.full((len(labels),), 0.7), baseline=baseline, settling=2)
    changes = [float(gradients(net, rule, batch())[0].abs().max()) for _ in range(4)]
    assert changes == [0, 0, 0, 0]


def test_the_mean_reward_of_a_label_is_learned_before_weights_are() -> None:
    net = network()
    samples = batch()
    rule = prepared(net, lambda scores, labels: labels.double(), settling=2, baseline_rate=0.1)
    settled = [bool(gradients(net, rule, samples)[0].any()) for _ in range(3)]
    assert settled == [False, False, False]
    assert rule.state_dict()["means"].tolist() == [0, 1, 2]
    surprise = prepared(net, lambda scores, labels: labels.double(), settling=0)
    assert bool(gradients(net, surprise, samples)[0].any())


def test_a_batch_gives_the_mean_of_its_samples() -> None:
    samples = batch()
    net = network(hidden=10)
    settings: dict[str, Any] = {"baseline": "none", "a_minus": 0.3, "homeostasis": 0.1}
    together = gradients(net, prepared(net, **settings), samples)
    singles = [
        gradients(net, prepared(net, **settings), Batch(samples.spikes[[k]], samples.labels[k : k + 1]))
        for k in range(6)
    ]
    for whole, parts in zip(together, zip(*singles, strict=True), strict=True):
        assert torch.allclose(whole, torch.stack(parts).mean(0), rtol=1e-12, atol=1e-14)


def test_nothing_recorded_changes_nothing() -> None:
    net = network(hidden=10)
    empty = Batch(hx.Spikes.from_times(torch.full((4, 12), math.inf)), torch.arange(4) % 3)
    assert all(not bool(grad.any()) for grad in gradients(net, prepared(net, baseline="none"), empty))


def test_homeostasis_strengthens_silent_neurons_but_not_silenced_ones() -> None:
    net = network()
    empty = Batch(
        hx.Spikes.from_times(torch.full((4, 12), math.inf)), torch.arange(4) % 3, [torch.tensor([1.0, 0, 1]).double()]
    )
    grad = gradients(net, prepared(net, homeostasis=0.5), empty)[0]
    assert grad[:, 0].tolist() == [-0.5, 0, -0.5]


def test_absent_synapses_stay_as_they_are() -> None:
    net = network()
    mask = torch.rand(3, 12, generator=torch.Generator().manual_seed(1)) < 0.5
    net.set_mask("input->layer0", mask)
    grad = gradients(net, prepared(net, baseline="none", homeostasis=0.5), batch())[0]
    assert bool(grad[mask].any())
    assert not bool(grad[~mask].any())


def test_a_restored_rule_goes_on_bit_equally() -> None:
    net = network()
    rule = prepared(net, settling=1)
    rule.step(net, batch())
    copy = prepared(net, settling=1)
    copy.load_state_dict(rule.state_dict())
    assert torch.equal(gradients(net, rule, batch())[0], gradients(net, copy, batch())[0])
    with pytest.raises(ValueError, match="running means of 3 labels, expected 1"):
        prepared(net, baseline="batch").load_state_dict(rule.state_dict())
    with pytest.raises(ValueError, match="the checkpoint has a state of nothing, not of rstdp"):
        copy.load_state_dict({})


class Praise(RewardSource):
    """A reward of 1 in the middle of each trial."""

    def rewards(self, inputs: hx.Spikes, outputs: hx.Spikes, labels: Tensor) -> Rewards:
        samples = len(labels)
        return Rewards(torch.arange(samples), torch.full((samples,), 2e-5), torch.ones(samples))


def test_rewards_in_time_credit_earlier_pairs_alone() -> None:
    net = network()
    samples = batch()
    grad = gradients(net, prepared(net, Praise(), pairing="all_to_all"), samples)[0]
    outputs = net(samples.spikes).layers[-1].times(net.dt)
    factors = torch.ones(len(samples.spikes)), (outputs.time <= 2e-5).double()
    expected = pair_correlation(on_grid(samples.spikes, net.dt), outputs, 10e-6, 10e-6, factors=factors).causal
    assert bool(expected.any())
    assert torch.allclose(grad, -expected / 6)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"tau_plus": 0.0}, "rule.tau_plus=0.0 must be positive and finite"),
        ({"pairing": "next"}, "rule.pairing='next' is not known; choose one of all_to_all, symmetric"),
        ({"baseline": "mean"}, "rule.baseline='mean' is not known; choose one of label, batch, none"),
        ({"baseline_rate": 0.0}, r"rule.baseline_rate=0.0 must be in 0 < x <= 1"),
        ({"settling": -1}, "rule.settling=-1 must not be negative"),
        ({"homeostasis": -1.0}, "rule.homeostasis=-1.0 must be finite and not negative"),
        ({"tau_dopamine": 1.0, "tau_baseline": 1.0}, "set a longer tau_baseline"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        RewardSTDP(**settings)


def test_a_readout_and_dopamine_without_times_are_refused() -> None:
    readout = hx.Network(hx.Linear(12, 3), hx.LI(3))
    with pytest.raises(RuleError, match=r"network\.output=spikes and loss=spike_count"):
        require_fit(RewardSTDP(), readout, None)
    with pytest.raises(RuleError, match=r"rule\.tau_dopamine are for rewards at times"):
        prepared(network(), tau_dopamine=1e-4)
