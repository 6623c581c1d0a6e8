"""The cost of an answer: time, energy, time to a decision."""

import io
import json

import pytest
import torch
from rich.console import Console

import hxtrain as hx
from hxtrain.backends import Cost, create_backend
from hxtrain.commands.evaluate import EvaluateConfig, evaluate_checkpoint
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run
from hxtrain.datasets import DataConfig
from hxtrain.execution.config import BackendConfig
from hxtrain.network import NetworkConfig
from hxtrain.runs.progress import Progress
from hxtrain.training.config import TrainerConfig
from hxtrain.training.cost import CostMeter, energy_of

DECISIONS = [
    # membranes of two classes at each step, and the step of the decision
    ([(0, 0), (0, 1), (0, 2), (0, 3)], 1),
    ([(0, 0), (1, 0), (0, 2), (0, 3)], 2),  # changes its mind
    ([(0, 0), (0, 2), (1, 0), (1.5, 0)], 1),  # the running maximum stays
    ([(0, 0), (-1, -2), (-1, -2), (2, 0)], 3),  # a tie at rest is no answer
    ([(0, 0), (-1, -2), (-2, -2), (-1, 0)], 4),  # a tie to the end
    ([(1, 0), (2, 0), (3, 0), (1, 0)], 0),
]


def test_an_answer_is_found_when_it_no_longer_changes():
    readout = torch.tensor([trace for trace, _ in DECISIONS], dtype=torch.float32).transpose(0, 1)
    times = hx.MaxOverTime().decision_times(readout, dt=2e-6)
    assert times.tolist() == pytest.approx([2e-6 * step for _, step in DECISIONS])


def test_the_decision_is_that_of_the_loss():
    readout = torch.tensor([[(0.0, 0.0)], [(1.0, 0.0)], [(0.0, 0.9)], [(0.0, 0.9)]])
    assert hx.MaxOverTime().decision_times(readout, 1.0).tolist() == [1]
    assert hx.MeanOverTime().decision_times(readout, 1.0).tolist() == [3]


ENERGIES = [
    (Cost(2.0, 3.0, "measured"), 0.2, (3.0, "measured", None)),
    (Cost(2.0, 3.0, "estimated"), 0.2, (3.0, "estimated", "1.5 W")),
    (Cost(2.0, None, "measured"), 0.2, (0.4, "estimated", "0.2 W")),
    (Cost(2.0, None, "measured"), None, (None, None, None)),
]


@pytest.mark.parametrize(("cost", "power", "expected"), ENERGIES)
def test_energy_says_how_it_was_obtained(cost, power, expected):
    energy, origin, assumption = energy_of(cost, power)
    assert energy == pytest.approx(expected[0]) if expected[0] else energy is None
    assert origin == expected[1]
    assert assumption is None if expected[2] is None else f"draws {expected[2]} during the chip time" in assumption


def test_the_time_that_the_host_waits_is_measured(mocker):
    clock = mocker.patch("time.perf_counter", return_value=0.0)

    def pass_time(seconds):
        clock.return_value += seconds

    backend = create_backend("reference")
    inner = backend.run
    mocker.patch.object(backend, "run", lambda *run: (pass_time(3), inner(*run))[1])
    net = NetworkConfig(hidden=[8]).build(4, 2, seed=0)
    with hx.Device(backend) as device:
        net.attach(device)
        net(hx.LatencyEncoder()(torch.rand(5, 4)))
        meter = CostMeter(device)
        pass_time(0.5)
        meter.add(net(hx.LatencyEncoder()(torch.rand(5, 4))).cost)
        costs = meter.costs()
    assert (costs.wait_time, costs.host_time, costs.energy) == (3.0, 0.5, None)
    assert costs.chip_time == pytest.approx(5 * 200e-6)


@pytest.mark.parametrize("backend", ["emulator", "software"])
def test_results_hold_costs(tmp_path, backend):
    trainer = TrainerConfig(1, 50, train_samples=100, test_samples=50, progress=False, plots=False)
    config = RunConfig(
        backend=BackendConfig(backend), network=NetworkConfig(hidden=[20]), data=DataConfig("digits"), trainer=trainer
    )
    quiet = Progress(show=False, console=Console(file=io.StringIO()))
    run(config, tmp_path, "test", quiet)
    evaluation = EvaluateConfig(str(tmp_path / "checkpoint.pt"), BackendConfig(backend), test_samples=50)
    evaluate_checkpoint(evaluation, tmp_path, "test", quiet)
    for name in ("result.json", "evaluation.json"):
        record = json.loads((tmp_path / name).read_text())
        assert record["host_seconds_per_sample"] > 0
        assert 0 < record["decision_seconds"] <= record["decision_seconds_95"] * (1 + 1e-6)
        assert record["decision_seconds_95"] <= 20 * 1.7e-6 * (1 + 1e-6)
        device = ["chip_seconds_per_sample", "wait_seconds_per_sample", "chip_joules_per_sample"]
        if backend == "software":
            assert [record[key] for key in (*device, "energy_origin", "energy_assumption")] == [None] * 5
        else:
            assert [record[device[0]], record[device[2]]] == pytest.approx([200e-6, 0.2 * 200e-6])
            assert record[device[1]] > 0
            assert record["energy_origin"] == "estimated"
            assert "0.2 W during the chip time" in record["energy_assumption"]
