"""Rules of the STDP family: windows, weight dependence, competition, homeostasis, protocols, and votes."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import hxtrain as hx
from hxtrain.datasets.encoders import RateEncoder
from hxtrain.network.winner_take_all import WinnerTakeAll
from hxtrain.objectives.vote import Vote
from hxtrain.rules import SGD, Batch, Objective, RuleError, learn, require_fit
from hxtrain.rules.clopath import Clopath
from hxtrain.rules.protocols import (
    cortex_error,
    pair_changes,
    pairing,
    quadruplets,
    relative_change,
    triplets,
)
from hxtrain.rules.stdp import STDP, TRIPLETS, TripletSTDP, WeightDependent, first_to_fire
from hxtrain.runs.checkpoint import load_checkpoint


def test_a_pair_changes_the_weight_by_the_published_window() -> None:
    rule = STDP(a_plus=0.01, a_minus=0.01)
    changes = pair_changes(rule, [10e-3, -10e-3, 40e-3, 0.0])
    assert changes == pytest.approx(
        [0.01 * math.exp(-0.5), -0.01 * math.exp(-0.5), 0.01 * math.exp(-2), 0.0], rel=1e-12
    )


@pytest.mark.parametrize("constants", [name for name in TRIPLETS if name.startswith("v1")])
def test_triplets_reproduce_pairings_in_cortex_at_all_rates(constants: str) -> None:
    expected = {"v1_all_full": 0.34, "v1_all_minimal": 0.36, "v1_nearest_full": 0.23, "v1_nearest_minimal": 0.35}
    assert cortex_error(TripletSTDP(constants=constants)) == pytest.approx(expected[constants], abs=0.006)


def test_pairs_alone_never_turn_depression_into_potentiation_at_high_rates() -> None:
    pairs = STDP(tau_plus=16.8e-6, tau_minus=33.7e-6, a_plus=5e-3, a_minus=7e-3)
    rates = (0.1, 10.0, 50.0)
    assert all(relative_change(pairs, pairing(rate, -10e-3)) < 0 for rate in rates)
    assert cortex_error(pairs) > 5
    assert (
        relative_change(TripletSTDP(), pairing(50.0, -10e-3))
        > 0
        > relative_change(TripletSTDP(), pairing(10.0, -10e-3))
    )


@pytest.mark.parametrize(
    ("constants", "protocol", "change"),
    [
        ("culture_all_full", triplets((0, 10e-3), (5e-3,)), 0.043),
        ("culture_all_full", triplets((5e-3,), (0, 10e-3)), 0.358),
        ("culture_nearest_minimal", quadruplets(10e-3), 0.213),
        ("culture_nearest_minimal", quadruplets(-10e-3), 0.473),
        ("culture_nearest_minimal", quadruplets(90e-3), 0.093),
        ("culture_nearest_minimal", quadruplets(-90e-3), 0.052),
    ],
)
def test_triplets_and_quadruplets_in_culture(constants: str, protocol: Any, change: float) -> None:
    assert relative_change(TripletSTDP(constants=constants), protocol) == pytest.approx(change, abs=1e-3)


def test_pairs_of_poisson_trains_drift_by_the_area_of_the_window() -> None:
    generator = torch.Generator().manual_seed(5)
    duration = 400.0  # s of biology
    trains = []
    for rate in (12.0, 9.0):
        times = torch.rand(round(rate * duration), generator=generator, dtype=torch.float64) * duration / 1000
        zeros = torch.zeros(len(times), dtype=torch.int64)
        trains.append(hx.Spikes.trusted(zeros, zeros, times, 1, 1))
    rule = STDP(a_plus=1.0, a_minus=0.5, tau_plus=20e-6, tau_minus=30e-6)
    expected = 12.0 * 9.0 * (1.0 * 20e-3 - 0.5 * 30e-3)
    change = relative_change(rule, pairing(1.0, 0.0)._replace(pre=trains[0], post=trains[1])) / duration
    assert change == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize(
    ("mu", "weight", "plus", "minus"),
    [(0, 0.2, 1, 1), (0, 0.9, 1, 1), (1, 0.2, 0.8, 0.2), (1, 1.0, 0, 1), (0.5, 0.36, 0.8, 0.6), (2, 0.5, 0.25, 0.25)],
)
def test_potentiation_and_depression_depend_on_the_weight(mu: float, weight: float, plus: float, minus: float) -> None:
    rule = STDP(mu_plus=mu, mu_minus=mu)
    window = math.exp(-0.5)
    assert relative_change(rule, pairing(1.0, 10e-3, 1), weight) == pytest.approx(plus * window, abs=1e-6)
    assert relative_change(rule, pairing(1.0, -10e-3, 1), weight) == pytest.approx(-minus * window, abs=1e-6)


def test_a_spike_depresses_and_forgets_also_silent_inputs() -> None:
    rule = STDP(a_plus=0.0, a_minus=0.0, heterosynaptic=0.3, forgetting=0.5)
    assert relative_change(rule, pairing(1.0, 0.0, 3), 0.4) == pytest.approx(-3 * (0.3 + 0.5 * 0.4), rel=1e-6)


def test_the_first_neurons_to_fire_win_and_ties_go_to_more_spikes() -> None:
    unit, time = [0, 1, 2, 2, 3], [2.0, 1.0, 1.0, 3.0, 0.5]
    spikes = hx.Spikes.from_events([0, 0, 0, 0, 1], unit, time, 2, 4)
    winners = first_to_fire(spikes, 1)
    assert [winners.sample.tolist(), winners.unit.tolist()] == [[0, 0, 1], [2, 2, 3]]
    assert first_to_fire(spikes, 2).unit.tolist() == [1, 2, 2, 3]
    assert len(first_to_fire(spikes, 4)) == 5


def network(size: int = 5) -> hx.Network:
    return hx.Network(hx.Linear(8, size, mean=0.3, gain=1.0), hx.LIF(size), hx.LateralInhibition(size, 0.2), seed=2)


def batch(samples: int = 6) -> Batch:
    times = torch.rand(samples, 8, generator=torch.Generator().manual_seed(3)) * 3e-5
    return Batch(hx.Spikes.from_times(times), torch.arange(samples) % 3)


RULES: list[WeightDependent | Clopath] = [
    STDP(winners=2, mu_minus=1.0),
    STDP(pairing="reduced"),
    TripletSTDP(constants="culture_nearest_full"),
    Clopath(),
]


def gradient(rule: Any, net: hx.Network, sample: Batch) -> torch.Tensor:
    rule = replace(rule)
    rule.prepare(net, Objective(hx.SpikeCount()))
    rule.step(net, sample)
    result = net.projections[0].synapses.weight.grad
    assert result is not None
    return result.clone()


@pytest.mark.parametrize("rule", RULES)
def test_a_batch_changes_weights_by_the_mean_over_its_samples(rule: Any) -> None:
    whole = batch()
    total = gradient(rule, network(), whole)
    parts = [
        gradient(rule, network(), Batch(whole.spikes[[index]], whole.labels[index : index + 1])) for index in range(6)
    ]
    assert total.abs().sum() > 0
    torch.testing.assert_close(torch.stack(parts).mean(0), total, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rule", RULES)
def test_silence_changes_nothing_and_absent_synapses_stay_absent(rule: Any) -> None:
    net = network()
    silence = Batch(hx.Spikes.from_events([], [], [], 2, 8), torch.tensor([0, 1]))
    assert not gradient(rule, net, silence).any()
    mask = torch.rand(5, 8, generator=torch.Generator().manual_seed(1)) < 0.5
    net.set_mask("input->layer0", mask)
    assert not gradient(rule, net, batch())[~mask].any()


def test_homeostasis_strengthens_neurons_that_fire_too_little() -> None:
    net = network()
    counts = net(batch().spikes).layers[0].counts.detach().mean(0)
    target = float(counts.median()) + 0.01
    rule = STDP(a_plus=0.0, a_minus=0.0, homeostasis=0.5, target_spikes=target, maximum=2.0)
    change = -gradient(rule, net, batch())
    torch.testing.assert_close(change, (0.5 * 2.0 * (target - counts))[:, None].expand(5, 8))


def test_homeostasis_leaves_dropped_neurons_alone() -> None:
    active = torch.tensor([1.0, 0, 1, 0, 1])
    rule = STDP(a_plus=0.0, a_minus=0.0, homeostasis=0.5, target_spikes=9.0)
    change = -gradient(rule, network(), batch()._replace(masks=[active]))
    assert [bool(row.any()) for row in change] == [True, False, True, False, True]


@pytest.mark.parametrize(
    ("rule", "choice"),
    [(hx.Tempotron(), "loss=firing"), (hx.ReSuMe(), "loss=correlation"), (STDP(), "loss=spike_count")],
)
def test_a_readout_is_refused_with_all_settings_that_are_to_change(rule: hx.LearningRule, choice: str) -> None:
    with pytest.raises(RuleError, match=rf"network\.output=spikes.*{choice}"):
        require_fit(rule, hx.Network(hx.Linear(8, 3), hx.LI(3)), None)


def test_a_readout_that_does_not_spike_is_refused_with_a_remedy() -> None:
    net = hx.Network(hx.Linear(8, 5), hx.LIF(5), hx.Linear(5, 3), hx.LI(3))
    with pytest.raises(RuleError, match=r"layer0->layer1.*: the readout does not spike; end the network in a"):
        require_fit(STDP(), net, None)
    net.stack[2].learned = False
    require_fit(STDP(), net, None)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: STDP(pairing="nearest"), "rule.pairing='nearest' is not known; choose one of all_to_all, symmetric"),
        (lambda: TripletSTDP(constants="v2"), "rule.constants='v2' is not known; choose one of v1_all_full"),
        (lambda: STDP(tau_plus=0.0), "rule.tau_plus=0.0 must be positive and finite"),
        (lambda: STDP(maximum=-1.0), "rule.maximum=-1.0 must be positive and finite, or null"),
        (lambda: STDP(homeostasis=-1.0), "rule.homeostasis=-1.0 must be finite and not negative"),
        (lambda: Clopath(tau_x=-1.0), "rule.tau_x=-1.0 must be positive and finite"),
        (lambda: Vote(votes="veto"), "loss.votes='veto' is not known; choose one of majority"),
        (lambda: Vote(neurons=0), "loss.neurons=0 must be at least 1"),
        (lambda: RateEncoder(spikes=0), "encoder.spikes=0 is out of range"),
        (lambda: WinnerTakeAll(inhibition=-1.0), "network.inhibition=-1.0"),
    ],
)
def test_mistakes_are_named(build: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        build()


def voltage_change(rule: Clopath, voltages: Sequence[float], inputs: Sequence[int]) -> float:
    """Return the change of a synapse for a membrane without spikes and input spikes in some steps."""
    net = hx.Network(hx.Linear(1, 1, mean=0.1), hx.LIF(1), dt=1e-6, steps=len(voltages))
    sample = Batch(hx.Spikes.from_events([0], [0], [0.0], 1, 1), torch.tensor([0]))
    rule.prepare(net, Objective(hx.SpikeCount()))
    rule.begin(net, sample)
    u = torch.tensor(voltages, dtype=torch.float64)[:, None, None]
    x = torch.zeros(len(voltages), 1, 1)
    x[list(inputs)] = 1.0
    window = hx.rules.Window(0, x, [torch.zeros_like(x)], [u])
    rule.observe(net, sample, window)
    return float(rule.change(net, "input->layer0"))


@pytest.mark.parametrize(
    ("voltage", "change"),
    [
        (-0.1, 0.0),  # below theta_minus
        (0.6, -1.0 * (0.6 - 0.2)),  # between both thresholds: depression alone, at the input spike
    ],
)
def test_voltage_below_and_between_the_thresholds(voltage: float, change: float) -> None:
    rule = Clopath(theta_minus=0.2, theta_plus=1.0)
    assert voltage_change(rule, [voltage] * 40, [10]) == pytest.approx(change, abs=1e-12)


def test_voltage_above_both_thresholds_adds_potentiation_by_the_input_trace() -> None:
    rule = Clopath(theta_minus=0.2, theta_plus=1.0, a_ltp=3.0)
    trace = sum(math.exp(-step / 15) for step in range(29)) / 15  # from the step after the spike on
    expected = -(1.4 - 0.2) + 3.0 * (1.4 - 1.0) * (1.4 - 0.2) * trace
    assert voltage_change(rule, [1.4] * 40, [10]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("window", [3, 7, 20])
def test_voltage_based_plasticity_does_not_depend_on_the_window(window: int) -> None:
    assert torch.equal(gradient(Clopath(window=window), network(), batch()), gradient(Clopath(), network(), batch()))


@pytest.mark.parametrize(("period", "sign"), [(60, -1), (20, -1), (6, 1), (4, 1)])
def test_voltage_based_plasticity_depresses_at_low_and_potentiates_at_high_rates(period: int, sign: int) -> None:
    phases = [step % period for step in range(600)]  # steps of 1 us since the last output spike
    voltages = [5.0 if phase == 0 else 0.9 * math.exp(-phase / 6) for phase in phases]
    inputs = [step for step, phase in enumerate(phases) if phase == period // 2]
    assert sign * voltage_change(Clopath(), voltages, inputs) > 0


def responses(counts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return spikes `[T, B, N]` with these numbers `[B, N]`."""
    numbers = torch.tensor(counts)
    return (torch.arange(int(numbers.max()))[:, None, None] < numbers).float()


@pytest.mark.parametrize("votes", ["majority", "proportional", "likelihood", "regression"])
def test_neurons_vote_for_the_class_to_which_they_respond(votes: str) -> None:
    loss = Vote(neurons=4, votes=votes)
    assert loss.outputs(2) == 4
    loss.prepare(2)
    training = responses([[3, 1, 0, 0], [2, 0, 0, 0], [0, 0, 2, 1], [0, 1, 3, 0]])
    loss.observe(training, torch.tensor([0, 0, 1, 1]))
    assert loss.classes(4) == 2
    assert loss.scores(training).argmax(1).tolist() == [0, 0, 1, 1]
    assert loss.preferred.tolist()[0::2] == [0, 1]
    good, bad = (float(loss(training, torch.tensor(labels))) for labels in ([0, 0, 1, 1], [1, 1, 0, 0]))
    assert 0 <= good < 0.5 < bad <= 1
    restored = Vote(neurons=4, votes=votes)
    restored.prepare(2)
    restored.load_state_dict(loss.state_dict())
    assert torch.equal(restored.scores(training), loss.scores(training))


def test_a_neuron_without_spikes_has_no_class_and_old_responses_fade() -> None:
    loss = Vote(neurons=2, memory=2.0)
    loss.prepare(2)
    assert loss.preferred.tolist() == [-1, -1]
    assert float(loss(responses([[0, 1]]), torch.tensor([0]))) == 1.0
    loss.observe(responses([[3, 0]]), torch.tensor([0]))
    for _ in range(6):
        loss.observe(responses([[1, 0]]), torch.tensor([1]))
    assert loss.samples.sum() < 2.1
    with pytest.raises(ValueError, match=r"does not fit Vote"):
        Vote(neurons=3).load_state_dict(loss.state_dict())
    with pytest.raises(ValueError, match="a state of nothing does not fit"):
        loss.load_state_dict({})


def test_a_rate_code_fires_in_proportion_to_the_intensity() -> None:
    encoder = RateEncoder(spikes=8, duration=80e-6, threshold=0.1)
    spikes = encoder(torch.tensor([[1.0, 0.5, 0.1, 0.25]]))
    counts = torch.bincount(spikes.unit, minlength=4).tolist()
    assert spikes.units == encoder.units(4) == 4
    assert [counts[0], counts[2]] == [8, 0]
    assert counts[1] == pytest.approx(4, abs=1)
    times = spikes.time[spikes.unit == 1].sort().values
    torch.testing.assert_close(times.diff(), torch.full((len(times) - 1,), 20e-6))
    assert float(spikes.time.max()) < 80e-6


def digits_run(folder: Path, epochs: int, resume: bool = False) -> tuple[hx.Network, Vote]:
    data = hx.load_dataset("digits")
    data = replace(data, train=data.train[:60], test=data.test[:10])
    loss = Vote(neurons=12, votes="regression")
    net = WinnerTakeAll(init_mean=0.03).build(64, 12, 0)
    rule = STDP(a_minus=0.0, heterosynaptic=0.4, forgetting=1.0, winners=1, maximum=0.1, homeostasis=0.1)
    settings: dict[str, Any] = {"learning_rate": 0.1, "learning_rate_decay": 1.0, "batch_size": 10, "progress": False}
    hx.fit(net, data, rule, loss=loss, optimizer=SGD(), epochs=epochs, folder=folder, resume=resume, **settings)
    return net, loss


def test_a_resumed_run_ends_with_the_same_weights_and_votes(tmp_path: Path) -> None:
    whole, whole_loss = digits_run(tmp_path / "whole", 2)
    digits_run(tmp_path / "parts", 1)
    parts, loss = digits_run(tmp_path / "parts", 2, resume=True)
    assert torch.equal(whole.projections[0].synapses.weight, parts.projections[0].synapses.weight)
    assert torch.equal(whole_loss.products, loss.products)
    assert set(load_checkpoint(tmp_path / "parts" / "checkpoint.pt")["loss"]) == {"spikes", "samples", "products"}


def test_competing_neurons_learn_prototypes_without_labels() -> None:
    patterns = torch.rand(3, 30, generator=torch.Generator().manual_seed(4)) < 0.3
    net = WinnerTakeAll(init_mean=0.12, init_gain=0.3).build(30, 6, 1)
    rule = STDP(a_minus=0.0, heterosynaptic=0.4, forgetting=1.0, winners=1, maximum=0.6, homeostasis=0.2)
    rule = replace(rule, target_spikes=0.3)
    rule.prepare(net, Objective(hx.SpikeCount()))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.2)
    generator = torch.Generator().manual_seed(0)
    with hx.open_device("emulator", preset="uncalibrated") as device:
        net.attach(device)
        for _ in range(150):
            classes = torch.randint(3, (6,), generator=generator)
            noise = torch.rand(6, 30, generator=generator) * 4e-6
            spikes = hx.Spikes.from_times(torch.where(patterns[classes], noise, torch.inf))
            learn(net, rule, optimizer, Batch(spikes, classes % 3))
        counts = net(hx.Spikes.from_times(torch.where(patterns, 2e-6, torch.inf))).layers[0].counts
    weights = net.projections[0].synapses.weight.detach()
    for index, pattern in enumerate(patterns):
        winner = int(counts[index].argmax())
        assert counts[index, winner] > 0
        assert counts[:, winner].argmax() == index
        assert weights[winner, pattern].mean() > weights[winner, ~pattern].mean() + 0.1
