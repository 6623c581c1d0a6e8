"""Networks larger than the device: their parts run in turn, with the results of a device that is large enough."""

import io
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from rich.console import Console

import hxtrain as hx
from hxtrain.backends import (
    INPUT,
    Backend,
    Cost,
    DeviceError,
    FaultyBackend,
    Recording,
    Spikes,
    TimeOut,
    check_run,
    create_backend,
)
from hxtrain.backends.emulated import EmulatorBackend
from hxtrain.backends.reference import CAPABILITIES, SUBSTEPS, ReferenceBackend
from hxtrain.commands.evaluate import EvaluateConfig, evaluate_checkpoint
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run
from hxtrain.datasets import DataConfig, write_idx
from hxtrain.datasets.catalogue import IDX_NAMES
from hxtrain.execution import place
from hxtrain.execution.config import BackendConfig
from hxtrain.execution.partition import replayed
from hxtrain.network import NetworkConfig
from hxtrain.runs.checkpoint import CheckpointError, load_checkpoint
from hxtrain.runs.progress import Progress
from hxtrain.training.config import TrainerConfig

CHIP = create_backend("emulator").capabilities


class Sized(Backend):
    """An ideal chip of any size, on which a replayed spike acts exactly as one that stayed on the chip.

    Time advances in sub-steps: a spike is detected at the end of one, gets this time, and acts in the next. Charges are
    integers, so that sums do not depend on their order. The backend records circuits, and clock and trials of each run.
    """

    identity = {"backend": "sized", "chip": "ideal", "chip_hash": "none"}  # noqa: RUF012
    capabilities = None

    def __init__(self, circuits=10_000, **limits):
        self.capabilities = replace(CAPABILITIES, neuron_circuits=circuits, **{"inputs_per_circuit": 8, **limits})
        self.configured, self.runs = [], []

    def open(self):
        pass

    def close(self):
        pass

    def configure(self, circuit):
        self.circuit = circuit
        self.configured.append(circuit)

    def run(self, weights, stimulus):
        self.runs.append((stimulus.clock, stimulus.spikes.samples))
        circuit = check_run(self.circuit, weights, stimulus, self.capabilities.weight_max)
        batch = stimulus.spikes.samples
        h = circuit.dt / SUBSTEPS
        steps = circuit.samples * SUBSTEPS
        grids = {p.name: torch.zeros(steps + 1, batch, p.size) for p in circuit.populations}  # [k]: detected until k h
        grids[INPUT] = stimulus.spikes.to_grid(h, steps)
        charge, v = ({p.name: torch.zeros(batch, p.size) for p in circuit.populations} for _ in range(2))
        traces = {p.name: [] for p in circuit.populations}
        for k in range(steps):
            for p in circuit.projections:
                charge[p.post] = charge[p.post] + grids[p.pre][k] @ weights[p.name].float().t()
            for p in circuit.populations:
                if k % SUBSTEPS == 0:
                    traces[p.name].append((v[p.name] + p.leak + 0.5).clamp(0, 255).to(torch.uint8))
                v[p.name] = 0.93 * v[p.name] + 0.1 * charge[p.name]
                charge[p.name] = (0.93 * charge[p.name]).round()
                if p.threshold is not None:
                    grids[p.name][k + 1] = v[p.name] > p.threshold - p.leak
                    v[p.name] = v[p.name] * (1 - grids[p.name][k + 1])
        return Recording(
            spikes={p.name: Spikes.from_grid(grids[p.name], h) for p in circuit.populations if p.threshold is not None},
            traces={name: torch.stack(codes, dim=1) for name, codes in traces.items()},
            cost=Cost(batch * self.capabilities.trial_time, None, "estimated"),
        )


def limited(kind, circuits, **settings):
    """Return a backend with `circuits` neuron circuits."""

    class Limited(kind):
        @property
        def capabilities(self):
            return replace(super().capabilities, neuron_circuits=circuits)

    return Limited(**settings)


def network(*sizes, recurrent=False, dropout=0.0, gain=5.0):
    """Return a chain of populations that all fire."""
    modules = []
    for inputs, size in pairwise(sizes[:-1]):
        modules += [hx.Linear(inputs, size, mean=1.6 / inputs, gain=gain), hx.LIF(size)]
        modules += [hx.Recurrent(size, gain=2)] if recurrent else []
        modules += [hx.Dropout(dropout)] if dropout else []
    return hx.Network(*modules, hx.Linear(sizes[-2], sizes[-1], gain=3), hx.LI(sizes[-1]), seed=3)


def stimulus(batch, inputs):
    return hx.LatencyEncoder()(torch.rand(batch, inputs, generator=torch.Generator().manual_seed(0)))


def measured(net, backend, spikes, masks=None, **settings):
    """Return activity and gradients of a pass on a device."""
    with hx.Device(backend, **settings) as device:
        net.attach(device)
        net.zero_grad()
        activity = net(spikes, masks)
        loss = activity.readout.square().sum()
        for layer in activity.hidden:
            loss = loss + (layer.trace.sin() * layer.spikes).sum()
        loss.backward()
        return activity, [weight.grad.clone() for weight in net.parameters()]


def assert_same(first, second):
    """Compare two results of `measured` bit by bit: traces, spikes, measured times, gradients."""
    for a, b in zip(first[0].layers, second[0].layers, strict=True):
        assert torch.equal(a.trace, b.trace)
        if a.events is not None:
            assert a.spikes.sum() > 10
            assert torch.equal(a.spikes, b.spikes)
            actual, expected = a.events.ordered(), b.events.ordered()
            assert all(torch.equal(getattr(actual, k), getattr(expected, k)) for k in ("sample", "unit", "time"))
    assert all(torch.equal(a, b) and a.any() for a, b in zip(first[1], second[1], strict=True))


def content(plan):
    """Return source, sizes and first neuron of each part."""
    return [(part.source, [p.size for p in part.circuit.populations], part.first) for part in plan.parts]


LAYOUTS = [
    # sizes, circuits of the device, network, source, sizes and first neuron of each part
    pytest.param(
        (10, 30, 4), 24, {},
        [("input", [10], 0), ("input", [10], 10), ("input", [10], 20), ("layer0", [4], 0)],
        id="hidden layer split",
    ),
    pytest.param(
        (12, 31, 4), 17, {},
        [("input", [8], 0), ("input", [8], 8), ("input", [8], 16), ("input", [7], 24), ("layer0", [4], 0)],
        id="odd slices",
    ),
    pytest.param(
        (10, 13, 17, 5), 26, {},
        [("input", [13], 0), ("layer0", [9], 0), ("layer0", [8], 9), ("layer1", [5], 0)],
        id="second layer split",
    ),
    pytest.param(
        (20, 9, 40), 30, {},
        [("input", [9], 0), ("layer0", [14], 0), ("layer0", [13], 14), ("layer0", [13], 27)],
        id="readout split",
    ),
    pytest.param(
        (10, 13, 17, 5), 64, {},
        [("input", [13, 17], 0), ("layer1", [5], 0)],
        id="layers that fit together share a run",
    ),
    pytest.param(
        (10, 13, 11, 5), 40, {"recurrent": True},
        [("input", [13], 0), ("layer0", [11], 0), ("layer1", [5], 0)],
        id="recurrent populations",
    ),
    pytest.param(
        (10, 30, 14, 4), 40, {"dropout": 0.3},
        [("input", [15], 0), ("input", [15], 15), ("layer0", [7], 0), ("layer0", [7], 7), ("layer1", [4], 0)],
        id="dropout",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("sizes", "circuits", "kind", "parts"), LAYOUTS)
def test_an_ideal_device_in_parts_equals_one_that_is_large_enough(sizes, circuits, kind, parts):
    net = network(*sizes, **kind)
    spikes = stimulus(6, sizes[0])
    assert content(place(net, Sized(circuits).capabilities)) == parts
    assert len(place(net, Sized().capabilities).parts) == 1
    masks = net.dropout_masks(torch.Generator().manual_seed(1))
    whole = measured(net, Sized(), spikes, masks)
    split = measured(net, Sized(circuits), spikes, masks)
    assert_same(whole, split)
    assert split[0].cost.chip_time == pytest.approx(len(parts) * whole[0].cost.chip_time)


@pytest.mark.parametrize(("kind", "settings"), [(ReferenceBackend, {}), (EmulatorBackend, {"preset": "ideal"})])
def test_other_devices_differ_by_their_latency_on_the_chip(kind, settings):
    net = network(40, 60, 50, 5, gain=2)
    spikes = stimulus(30, 40)
    (whole, gradients), (split, split_gradients) = (
        measured(net, limited(kind, n, **settings), spikes) for n in (512, 52)
    )
    assert torch.equal(whole.layers[0].trace, split.layers[0].trace)
    counts = [float(activity.layers[1].spikes.detach().sum()) for activity in (whole, split)]
    assert counts[1] == pytest.approx(counts[0], rel=0.01)
    assert counts[0] > 500
    for a, b in zip(gradients, split_gradients, strict=True):
        assert float(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0)) > 0.999


def test_a_trial_that_exceeds_the_trace_memory_is_divided_too():
    net = network(10, 30, 5)
    spikes = stimulus(6, 10)
    small = Sized(trace_memory=20 * net.steps, trace_channels=None)  # bytes: 20 neurons
    plan = place(net, small.capabilities)
    assert content(plan) == [("input", [15], 0), ("input", [15], 15), ("layer0", [5], 0)]
    assert_same(measured(net, Sized(), spikes), measured(net, small, spikes))
    assert plan.trials_per_run == 1
    assert small.runs == [*((i, 1) for i in range(12)), (12, 4), (16, 2)]  # clock and trials of each run
    with pytest.raises(hx.PlacementError, match=r"35 neurons exceeds 400 bytes of memory.* set max_runs=3"):
        place(net, small.capabilities, max_runs=1)


def test_the_whole_batch_runs_through_a_part_before_the_next_is_configured():
    net = network(10, 30, 4)
    device = Sized(24)
    with hx.Device(device) as attached:
        net.attach(attached)
        assert len(device.configured) == 2  # each different circuit once, so that misfits appear before training
        device.configured.clear()
        for batch in (6, 3):
            net(stimulus(batch, 10))
        assert [circuit.populations[0].size for circuit in device.configured] == [4, 10, 4]
        assert device.runs == [(0, 6), (6, 6), (12, 6), (18, 6), (24, 3), (27, 3), (30, 3), (33, 3)]
        assert attached.clock == 36


def test_the_plan_shows_what_a_sample_costs():
    rows = place(network(12, 31, 4), Sized(17).capabilities).rows()
    assert rows[:5] == [
        ("neuron circuits of all runs", "78", "17 per run"),
        ("runs per sample", "5", ""),
        ("time per sample", "1000 us", "200 us per run"),
        ("runs 1-3: layer0 (8 of 31) behind input", "16 circuits", "17"),
        ("run 4: layer0 (7 of 31) behind input", "14 circuits", "17"),
    ]
    assert ("layer0: 31 spiking neurons", "2 circuits each", "64") in rows


def test_full_size_images_on_a_chip():
    plan = place(NetworkConfig(hidden=[256, 128]).build(784, 10, seed=0), CHIP)
    assert content(plan) == [*(("input", [64], first) for first in (0, 64, 128, 192)), ("layer0", [128, 10], 0)]
    assert len(place(NetworkConfig().build(256, 1000, seed=0), CHIP).parts) == 5


REFUSALS = [
    (
        network(10, 20, 30, 4), {"circuits": 40}, {"max_runs": 2},
        r"146 neuron circuits \(layer0 20 x 2, layer1 30 x 3, layer2 4 x 4\) exceed 40 by 106, which takes 5 runs per "
        r"sample; max_runs=2; .* or set max_runs=5",
    ),
    (
        network(10, 20, 4, recurrent=True), {"circuits": 60}, {},
        r"layer0: 20 neurons that project onto themselves need 80 neuron circuits \(4 each\) in one run, 20 more than "
        r"there are; such a population cannot be split over several runs; use at most 15 neurons, or fewer inputs",
    ),
    (
        network(40, 20, 4), {"circuits": 100, "max_merged": 4}, {},
        r"layer0: fan-in 40 exceeds 32 signed inputs per neuron by 8; reduce the inputs",
    ),
    (
        network(40, 20, 4), {"circuits": 4}, {},
        r"layer0: one neuron needs 5 merged neuron circuits, 1 more than there are; use at most 32 inputs",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("net", "device", "settings", "text"), REFUSALS, ids=[r[3][:20] for r in REFUSALS])
def test_refusals(net, device, settings, text):
    backend = Sized(**device)
    with pytest.raises(hx.PlacementError, match=text):
        net.attach(hx.Device(backend, **settings))
    assert backend.configured == []


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="max_runs=0 must be at least 1"):
        hx.Device(Sized(), max_runs=0)
    with pytest.raises(ValueError, match=r"backend.max_runs=0 must be at least 1"):
        BackendConfig(max_runs=0)


def test_a_device_that_refuses_a_part_holds_no_network(mocker):
    net = network(10, 30, 4)
    backend = Sized(24)
    device = hx.Device(backend)
    network(4, 3, 2).attach(device)
    mocker.patch.object(backend, "configure", side_effect=ValueError("not this circuit"))
    with pytest.raises(ValueError, match="not this circuit"):
        net.attach(device)
    with pytest.raises(DeviceError, match="no network is placed"):
        device.record({}, stimulus(1, 4))


def test_warnings_name_the_runs(mocker):
    net = network(10, 30, 4)
    backend = Sized(24)
    current = mocker.patch.object(Sized, "warnings", new_callable=mocker.PropertyMock)
    current.side_effect = lambda: ("everywhere", f"size {backend.circuit.populations[0].size}")
    device = hx.Device(backend)
    net.attach(device)
    assert device.warnings == ("everywhere", "run 4: size 4", "runs 1, 2, 3: size 10")


def test_events_are_replayed_at_the_times_measured():
    spikes = Spikes.from_times(torch.tensor([[0.0, 1.23e-6], [33.9e-6, 34.0e-6]]))
    replay = replayed(spikes, 34e-6)
    assert (replay.sample.tolist(), replay.unit.tolist(), replay.samples, replay.units) == ([0, 0, 1], [0, 1, 0], 2, 2)
    assert torch.equal(replay.time, spikes.time[:3])


def emulated(circuits, retries=5, faults=(), **settings):
    """Return what a calibrated chip measures of a network in two batches."""
    backend = limited(EmulatorBackend, circuits, **settings)
    net = network(40, 60, 50, 5, gain=2)
    spikes = stimulus(30, 40)
    with hx.Device(FaultyBackend(backend, faults, seed=1) if faults else backend, retries=retries) as device:
        net.attach(device)
        activities = [net(spikes), net(spikes)]
        return activities, len(device.plan.parts), device.clock


def test_emulated_noise_follows_from_the_clock_alone():
    first, parts, clock = emulated(52)
    assert (parts, clock) == (4, 4 * 2 * 30)
    rerun, _, _ = emulated(52)
    retried, _, _ = emulated(52, retries=20, faults=[TimeOut(0.3)])
    assert sum(activity.health.retries for activity in retried) > 3
    for expected, activity, retry in zip(first, rerun, retried, strict=True):
        for a, b, c in zip(expected.layers, activity.layers, retry.layers, strict=True):
            assert torch.equal(a.trace, b.trace)
            assert torch.equal(a.trace, c.trace)
    early, late = (activity.layers for activity in first)  # the same stimulus at another clock
    assert all(not torch.equal(a.trace, b.trace) for a, b in zip(early, late, strict=True))


def test_close_trials_with_forced_resets_are_possible_in_parts():
    backend = limited(EmulatorBackend, 52, preset="ideal")
    fast = 40e-6
    net = network(40, 60, 50, 5, gain=2)
    spikes = stimulus(10, 40)
    with torch.no_grad(), hx.Device(backend) as device:
        net.attach(device)
        distant = net(spikes)
    with torch.no_grad(), hx.Device(backend, trial_time=fast, forced_reset=True) as device:
        net.attach(device)
        close = net(spikes)
        assert ("time per sample", "160 us", "40 us per run") in device.plan.rows()
    assert close.cost.chip_time == pytest.approx(4 * 10 * fast)
    assert float((close.readout - distant.readout).abs().mean()) < 0.05 * float(distant.readout.abs().mean())


def test_training_in_parts_resumes_bit_equally(tmp_path):
    def train(folder, epochs, resume=False):
        trainer = TrainerConfig(
            epochs, 100, train_samples=300, test_samples=100, progress=False, plots=False, resume=resume
        )
        config = RunConfig(network=NetworkConfig(hidden=[520]), data=DataConfig("digits"), trainer=trainer)
        console = io.StringIO()
        result = run(config, folder, "test", Progress(show=False, console=Console(file=console, width=300)))
        return result, console.getvalue()

    result, output = train(tmp_path / "whole", 2)
    train(tmp_path / "broken", 1)
    train(tmp_path / "broken", 2, resume=True)
    whole, resumed = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "broken"))
    assert whole["clock"] == resumed["clock"] == 3 * 2 * (300 + 100)
    assert all(torch.equal(a, resumed["model"][name]) for name, a in whole["model"].items())
    assert result["chip_seconds_per_sample"] == pytest.approx(3 * 200e-6)
    assert "runs per sample" in output


def test_full_size_images_from_a_folder_are_trained_on_and_evaluated(tmp_path):
    for name, count in zip(IDX_NAMES, (60, 60, 20, 20), strict=True):
        images = torch.randint(0, 256, (count, 28, 28), generator=torch.Generator().manual_seed(count))
        values = images if "images" in name else torch.arange(count) % 10
        write_idx(tmp_path / name, values.to(torch.uint8))
    quiet = Progress(show=False, console=Console(file=io.StringIO()))
    data = DataConfig("mnist", 28, str(tmp_path))
    trainer = TrainerConfig(1, 30, progress=False, plots=False)
    config = RunConfig(network=NetworkConfig(hidden=[80]), data=data, trainer=trainer)
    run(config, tmp_path / "run", "test", quiet)
    checkpoint = str(tmp_path / "run" / "checkpoint.pt")
    for settings in (EvaluateConfig(checkpoint), EvaluateConfig(checkpoint, data_folder=str(tmp_path))):
        evaluation = evaluate_checkpoint(settings, tmp_path, "test", quiet)
        assert evaluation["test_samples"] == 20
        assert evaluation["chip_seconds_per_sample"] == pytest.approx(3 * 200e-6)
    for name in IDX_NAMES:
        (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=r"its data cannot be loaded: .* data_folder=FOLDER"):
        evaluate_checkpoint(EvaluateConfig(checkpoint), tmp_path, "test", quiet)
