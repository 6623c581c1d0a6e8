"""Turns, ratios and peers of the benchmark."""

import json
from contextlib import ExitStack
from typing import ClassVar

import pytest
import torch

import hxtrain as hx
from hxtrain.backends import Stimulus, create_backend
from hxtrain.experiments.benchmark import recurrent as recurrent_bench
from hxtrain.experiments.benchmark import rules as rules_bench
from hxtrain.experiments.benchmark import speed
from hxtrain.experiments.benchmark.config import BenchConfig
from hxtrain.experiments.benchmark.peers import PEERS, build, installed
from hxtrain.experiments.benchmark.peers.common import Task
from hxtrain.experiments.benchmark.replay import ReplayBackend
from hxtrain.experiments.benchmark.rounds import in_turns, ratios, spread
from hxtrain.experiments.benchmark.workload import Workload


def test_every_work_has_a_turn_in_every_round() -> None:
    calls: list[str] = []
    reports: list[tuple[int, int]] = []
    works = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    times = in_turns(works, rounds=4, report=lambda count, total: reports.append((count, total)), warm_up=2)
    assert len(calls) == 3 * 6
    assert all(sorted(calls[i : i + 3]) == ["a", "b", "c"] for i in range(0, 18, 3))
    assert len({tuple(calls[i : i + 3]) for i in range(0, 18, 3)}) > 1, "in changing order"
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4, "c": 4}
    assert reports[-1] == (4, 4)


def test_a_turn_lasts_as_long_as_requested(mocker) -> None:
    mocker.patch("hxtrain.experiments.benchmark.rounds.time.perf_counter", side_effect=map(float, range(1000)))
    calls = []
    times = in_turns({"a": lambda: calls.append(1)}, rounds=2, warm_up=0, turn=3.0)
    assert times == {"a": [1.0, 1.0]}  # a call takes one second by this clock
    assert len(calls) == 2 * (1 + 3)  # the first call of a turn does not count


def test_ratios_are_of_the_same_round() -> None:
    assert spread([5.0, 1.0, 3.0, 2.0, 4.0]) == (3.0, 2.0, 4.0)
    assert ratios([2.0, 4.0, 60.0], [1.0, 2.0, 30.0]) == (2.0, 2.0, 2.0)


@pytest.fixture(scope="module")
def task() -> Task:
    g = torch.Generator().manual_seed(1)
    spikes = (torch.rand(20, 30, 40, generator=g) < 0.02).float()
    labels = torch.randint(5, (30,), generator=g)
    hidden = 0.6 * torch.rand(25, 40, generator=g)
    return Task(spikes, labels, hidden, torch.randn(5, 25, generator=g), 1.7e-6, 6e-6, 0.75, 12.0, 1e-2)


@pytest.mark.filterwarnings("default")  # warnings of other libraries
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("name", [name for name in PEERS if name != "torch.compile, loop by hand"])
def test_peers_do_the_same_task(task: Task, name: str, recurrent: bool) -> None:
    if name not in installed():
        pytest.skip(f"{PEERS[name].package} is not installed")
    if recurrent:
        task = task._replace(recurrent=0.05 * torch.randn(25, 25, generator=torch.Generator().manual_seed(2)))
    peer = build(name, task)
    assert peer.hidden_spikes() == pytest.approx(task.activity, rel=0.1)
    outputs = torch.as_tensor(peer.infer())
    assert outputs.shape == (30, 5)
    losses = [float(peer.train()) for _ in range(20)]
    assert losses[-1] < losses[0]
    assert not torch.allclose(outputs, torch.as_tensor(peer.infer()))


def test_a_replay_gives_the_first_recording_again() -> None:
    with ExitStack() as stack:
        load = Workload(stack, 60)
        net = load.network(ReplayBackend(create_backend("emulator")))
        assert net.device is not None
        assert net.device.plan is not None
        integers, _ = net.device.plan.quantise(net.effective_weights())
        spikes = load.spikes.split(25)
        first, second = (net.device.backend.run(integers, Stimulus(spikes[i], 25 * i)) for i in (0, 1))
        assert second.traces is first.traces
        assert (first.clock, second.clock) == (0, 25)
        load.training(net, 50)()
        readouts = [net(load.spikes.stretch(0, 50)).readout for _ in range(2)]
        assert torch.equal(*readouts)


def test_a_recurrent_network_is_timed_in_software_and_on_chips(tmp_path, mocker) -> None:
    mocker.patch.dict(speed.SIZES, {speed.RECURRENT: 12})
    mocker.patch.object(speed, "TURN", 0.0)
    speeds = recurrent_bench.bench_recurrent(BenchConfig("recurrent", rounds=1, peers=False), tmp_path, "hxtrain bench")
    assert {s.work for s in speeds} == {speed.SOFTWARE, speed.IDEAL, speed.CALIBRATED, speed.HOST}
    assert {s.task for s in speeds} == {speed.RECURRENT}
    saved = json.loads((tmp_path / "bench_recurrent.json").read_text())
    assert [s["work"] for s in saved["speed"]] == [s.work for s in speeds]
    assert len(saved["load"]) == 2
    assert [row[-1] for row in speed.speed_rows(speeds) if row[1] == speed.SOFTWARE] == ["1.00"]


class Spiking(hx.LearningRule):
    """Local rule that takes a network with a spiking output alone, and a hidden population no more."""

    needs: ClassVar[frozenset[hx.Need]] = frozenset({hx.Need.SPIKES})
    is_local: ClassVar[bool] = True

    def check(self, net, capabilities):
        return [] if net.output_kind == "spikes" and len(net.layers) == 1 else ["one population that spikes is needed"]

    @torch.no_grad()
    def step(self, net, batch):
        return hx.Step(net(batch.spikes, batch.masks), 0.0)


class Impossible(Spiking):
    """Rule that takes no network."""

    def check(self, net, capabilities):
        return ["it takes no network"]


def test_every_rule_is_timed_beside_surrogate_gradients_on_the_network_that_it_takes(tmp_path, monkeypatch, mocker):
    for name, rule in (("spiking", Spiking), ("impossible", Impossible)):
        for names in (rules_bench.RULES._added, rules_bench.RULES._loaded):
            monkeypatch.setitem(names, name, rule)
    mocker.patch.object(rules_bench, "SAMPLES", 60)
    mocker.patch.object(rules_bench, "BATCH", 30)
    mocker.patch.object(rules_bench.RULES, "names", return_value=["backprop", "impossible", "spiking"])
    timings, refusals = rules_bench.bench_rules(BenchConfig("rules", rounds=1), tmp_path, "hxtrain bench suite=rules")
    places = ("software", "calibrated emulated chip")
    pairs = (("backprop", "256-246-10, readout"), ("spiking", "256-10, spikes"), ("backprop", "256-10, spikes"))
    assert {t.training for t in timings} == {rules_bench.Training(*pair, place) for pair in pairs for place in places}
    assert all(t.ratio.middle == 1 for t in timings if t.training.rule == "backprop")
    spiking = [t for t in timings if t.training.rule == "spiking"]
    assert [(t.ratio.middle > 0, t.limit) for t in spiking] == [(True, 1)] * 2
    assert [refusal[:2] for refusal in refusals] == [("impossible", place) for place in places]
    assert refusals[0].reason.count("it takes no network") == 3
    saved = json.loads((tmp_path / "bench_rules.json").read_text())
    assert len(saved["rules"]) == 6
    assert saved["refusals"][0]["rule"] == "impossible"
    assert len(rules_bench.rule_rows(timings)) == 6
