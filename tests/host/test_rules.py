"""The seams of learning: rules, gradients, constraints, and what watches the weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from test_training import digits, quiet
from torch import Tensor

import hxtrain as hx
from hxtrain.backends import BackendWrapper, Capabilities, create_backend
from hxtrain.commands.train import run
from hxtrain.gradients import GRADIENTS, SurrogateGradient
from hxtrain.network import Activity, Write
from hxtrain.objectives import Burst, Regularizer
from hxtrain.objectives.regularizers import default_penalties
from hxtrain.rules import (
    CONSTRAINTS,
    RULES,
    Backprop,
    Batch,
    Clamp,
    Constraint,
    LearningRule,
    Need,
    Objective,
    RuleError,
    Sign,
    Step,
    StreamingRule,
    Window,
    learn,
    require_fit,
    train_step,
)
from hxtrain.runs.checkpoint import CheckpointError, load_checkpoint
from hxtrain.training import Task, Trainer
from hxtrain.training.config import TrainerConfig
from hxtrain.training.loop import TrainingInterrupt
from hxtrain.training.parallel import Team


@dataclass
class Integral(StreamingRule):
    """Descent of the squared error of the readout's integral, step by step: `1/2 sum_c (sum_t U_c[t] - y_c)^2`.

    The eligibility of a synapse is its filtered input; its integral and that of the membrane are all that is kept.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUT_SPIKES, Need.MEMBRANES, Need.TARGETS})

    def begin(self, net: hx.Network, batch: Batch) -> None:
        zeros = torch.zeros(batch.spikes.samples, batch.spikes.units)
        self.current = zeros
        self.trace = zeros
        self.eligibility = zeros
        self.charge = zeros
        self.integral = torch.zeros(batch.spikes.samples, net.layers[-1].neurons.size)

    def observe(self, net: hx.Network, batch: Batch, window: Window) -> None:
        alpha, beta = net.decays(net.layers[-1])
        membranes = window.membranes[-1]
        assert membranes is not None
        for inputs, membrane in zip(window.inputs, membranes, strict=True):
            self.current = alpha * self.current + self.charge
            self.trace = beta * self.trace + self.current
            self.charge = inputs
            self.eligibility = self.eligibility + self.trace
            self.integral = self.integral + membrane

    def finish(self, net: hx.Network, batch: Batch, activity: Activity) -> float:
        error = self.integral - torch.nn.functional.one_hot(batch.labels, self.integral.shape[1])
        net.projections[-1].synapses.weight.grad = error.t() @ self.eligibility
        return float(error.square().sum() / 2)


def integral_loss(readout: Tensor, labels: Tensor) -> Tensor:
    return (readout.sum(0) - torch.nn.functional.one_hot(labels, readout.shape[2])).square().sum() / 2


def integrator() -> hx.Network:
    return hx.Network(hx.Linear(12, 3, gain=2.0), hx.LI(3), steps=20, seed=1)


def batch(units: int = 12, classes: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(3)
    times = torch.rand(8, units, generator=generator) * 3e-5
    return Batch(hx.Spikes.from_times(times), torch.arange(8) % classes)


@pytest.mark.parametrize("window", [1, 3, 7, 20, 50])
def test_a_rule_that_streams_gets_the_gradient_of_autograd(window: int) -> None:
    net = integrator()
    rule = Integral(window)
    rule.prepare(net, Objective(integral_loss))
    step = rule.step(net, batch())
    streamed = net.stack[0].weight.grad.clone()
    net.stack[0].weight.grad = None
    backprop = Backprop()
    backprop.prepare(net, Objective(integral_loss))
    reference = backprop.step(net, batch())
    assert torch.allclose(streamed, net.stack[0].weight.grad, rtol=1e-5, atol=1e-5)
    assert step.loss == pytest.approx(reference.loss, rel=1e-5)


def test_windows_hold_every_event_and_every_step() -> None:
    net = hx.Network(hx.Linear(12, 20, gain=6.0), hx.LIF(20), hx.Linear(20, 3), hx.LI(3), steps=20)
    passed: list[Window] = []

    class Recorder(Integral):
        def observe(self, net: hx.Network, batch: Batch, window: Window) -> None:
            passed.append(window)

        def finish(self, net: hx.Network, batch: Batch, activity: Activity) -> float:
            return 0.0

    activity = Recorder(8).step(net, batch()).activity
    assert [window.first for window in passed] == [0, 8, 16]
    assert torch.equal(torch.cat([w.inputs for w in passed]), batch().spikes.to_grid(net.dt, net.steps))
    assert torch.equal(torch.cat([w.spikes[0] for w in passed]), activity.layers[0].spikes)  # type: ignore[arg-type]
    assert torch.equal(torch.cat([w.membranes[1] for w in passed]), activity.readout)  # type: ignore[arg-type]
    assert all(window.spikes[1] is None for window in passed)


def test_windows_have_membranes_for_rules_that_need_them() -> None:
    passed: list[Window] = []

    class Blind(Integral):
        needs: ClassVar[frozenset[Need]] = frozenset({Need.SPIKES})

        def observe(self, net: hx.Network, batch: Batch, window: Window) -> None:
            passed.append(window)

    Blind(20).step(integrator(), batch())
    assert passed[0].membranes == [None]


@pytest.mark.parametrize("preset", [None, "ideal", "uncalibrated"])
def test_a_step_of_the_rule_equals_train_step(preset: str | None) -> None:
    weights = []
    for form in ("function", "rule"):
        net = hx.Network(hx.Linear(12, 20, gain=3.0), hx.LIF(20), hx.Linear(20, 3), hx.LI(3), steps=20, seed=2)
        device = None if preset is None else hx.Device(create_backend("emulator", preset=preset))
        net.attach(device)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        samples = batch()
        if form == "function":
            train_step(net, hx.MaxOverTime(), [Burst()], optimizer, samples.spikes, samples.labels)
        else:
            rule = Backprop()
            rule.prepare(net, Objective(hx.MaxOverTime(), [Burst()]))
            learn(net, rule, optimizer, samples)
        weights.append([parameter.detach().clone() for parameter in net.parameters()])
    assert all(map(torch.equal, *weights))


class Blind(BackendWrapper):
    """A device without membranes."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.backend.capabilities, traces=False)


def test_a_device_without_membranes_is_refused_with_a_remedy() -> None:
    blind = Blind(create_backend("reference"))
    text = "cannot train this network:\n  1. .* reads membranes, but the device 'reference' records none; choose"
    with pytest.raises(RuleError, match=text):
        require(Integral(), blind.capabilities)
    require(Backprop(), blind.capabilities)


def require(rule: LearningRule, capabilities: Capabilities) -> None:
    require_fit(rule, integrator(), capabilities)


@dataclass
class Inertia(Regularizer):
    """A penalty with a state: the sum of all written changes, and their number."""

    strength: float = 0.05
    watches_writes: ClassVar[bool] = True

    def prepare(self, net: hx.Network) -> None:
        self.path = [torch.zeros_like(projection.synapses.weight) for projection in net.projections]
        self.writes = 0

    def penalty(self, activity: Activity, weights: list[Tensor]) -> Tensor:
        return torch.stack([(path * w).square().sum() for path, w in zip(self.path, weights, strict=True)]).sum()

    def after_write(self, net: hx.Network, write: Write) -> None:
        pairs = zip(self.path, write.previous, write.current, strict=True)
        self.path = [path + (current - previous).abs() for path, previous, current in pairs]
        self.writes += 1

    def state_dict(self) -> dict[str, Any]:
        return {"path": self.path, "writes": self.writes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.path = list(state["path"])
        self.writes = state["writes"]


@pytest.mark.parametrize("backend", ["software", "emulator"])
def test_a_penalty_with_a_state_resumes_bit_by_bit(tmp_path: Path, mocker: Any, backend: str) -> None:
    config = replace(digits(2, backend, train_samples=150, test_samples=20), regularizer={"inertia": Inertia()})
    run(config, tmp_path / "whole", "test", quiet())
    steps = 0
    original = Inertia.after_write

    def interrupt(self: Inertia, net: hx.Network, write: Write) -> None:
        nonlocal steps
        steps += 1
        original(self, net, write)
        if steps == 4:
            raise TrainingInterrupt("stop")

    mocker.patch.object(Inertia, "after_write", interrupt)
    with pytest.raises(TrainingInterrupt):
        run(config, tmp_path / "parts", "test", quiet())
    mocker.patch.object(Inertia, "after_write", original)
    resumed = replace(config, trainer=replace(config.trainer, resume=True))
    run(resumed, tmp_path / "parts", "test", quiet())
    whole, parts = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "parts"))
    assert whole["penalties"]["inertia"]["writes"] == parts["penalties"]["inertia"]["writes"] == 6
    assert all(map(torch.equal, whole["penalties"]["inertia"]["path"], parts["penalties"]["inertia"]["path"]))
    assert all(torch.equal(whole["model"][name], parts["model"][name]) for name in whole["model"])
    assert not hasattr(config.regularizer["inertia"], "path"), "settings hold no state"


def test_a_penalty_keeps_its_state_from_step_to_step() -> None:
    net = hx.Network(hx.Linear(12, 20, gain=3.0), hx.LIF(20), hx.Linear(20, 3), hx.LI(3), steps=20, seed=2)
    penalty = Inertia()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(3):
        train_step(net, hx.MaxOverTime(), [penalty], optimizer, *batch()[:2])
    assert penalty.writes == 3


def test_watchers_learn_what_the_device_got() -> None:
    net = hx.Network(hx.Linear(12, 20, gain=3.0), hx.LIF(20), hx.Linear(20, 3), hx.LI(3), steps=20, seed=2)
    device = hx.Device(create_backend("emulator", preset="ideal"))
    net.attach(device)
    writes: list[Write] = []

    @dataclass
    class Witness(Backprop):
        watches_writes: ClassVar[bool] = True

        def after_write(self, net: hx.Network, write: Write) -> None:
            writes.append(write)

    rule = Witness()
    rule.prepare(net, Objective(hx.MaxOverTime()))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(2):
        learn(net, rule, optimizer, batch())
    assert device.plan is not None
    integers, scales = device.plan.quantise(net.effective_weights())
    for written, matrix, scale in zip(writes[1].current, integers.values(), scales, strict=True):
        assert torch.equal(written, matrix / scale)
    assert all(map(torch.equal, writes[0].current, writes[1].previous))
    assert not any(map(torch.equal, writes[0].previous, writes[0].current))


def test_a_state_without_its_owner_is_refused(tmp_path: Path) -> None:
    config = replace(digits(1, "software", train_samples=50, test_samples=20), regularizer={"a": Inertia()})
    run(config, tmp_path, "test", quiet())
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    rule = Backprop()
    with pytest.raises(ValueError, match="the checkpoint has a state of path, writes, but backprop has none"):
        rule.load_state_dict(state["penalties"]["a"])
    with pytest.raises(ValueError, match="there is a state of path, writes, but Burst has none"):
        Burst().load_state_dict(state["penalties"]["a"])


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (torch.tensor([1.0, torch.nan]), "path of a is not finite after epoch 1"),
        (np.zeros(3), "path of a holds a ndarray; a state consists of tensors and plain values"),
    ],
)
def test_a_state_that_no_run_could_resume_from_is_refused(tmp_path: Path, mocker: Any, part: Any, text: str) -> None:
    config = replace(digits(1, "software", train_samples=50, test_samples=20), regularizer={"a": Inertia()})
    mocker.patch.object(Inertia, "state_dict", return_value={"path": [torch.zeros(2), {"last": part}]})
    with pytest.raises((TypeError, ValueError), match=text):
        run(config, tmp_path, "test", quiet())
    assert not (tmp_path / "checkpoint.pt").exists()


def test_signs_hold_from_the_first_step_on(tmp_path: Path) -> None:
    config = digits(1, "software", train_samples=150, test_samples=20)
    config.constraint = {"clamp": Clamp(), "sign": Sign(0.75)}
    result = run(config, tmp_path, "test", quiet())
    assert result["settings"]["constraint.kinds"] == ["clamp", "sign"]
    assert result["settings"]["constraint.sign.excitatory"] == 0.75
    inputs, readout = load_checkpoint(tmp_path / "checkpoint.pt")["model"].values()
    assert (readout[:, :45] >= 0).all()
    assert (readout[:, 45:] <= 0).all()
    assert (inputs < 0).any()
    assert (inputs > 0).any()


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: Sign(1.5), "constraint Sign: excitatory=1.5 must be in 0..1"),
        (lambda: Sign("half"), "constraint Sign: excitatory='half'"),  # type: ignore[arg-type]
        (lambda: Backprop(penalties=[Burst()]), "Backprop: penalties without a loss; give both"),
        (lambda: hx.SuperSpike(hx.VanRossum()), r"settings, no loss .*: hx.fit\(.*SuperSpike\(\), loss=VanRossum\(\)"),
        (lambda: hx.STDP(Burst()), r"settings, no loss .*: hx.fit\(.*STDP\(\), penalties=\[Burst\(\)\]"),
        (lambda: hx.STDP(tau_plus="short"), "rule.tau_plus='short' must be a number"),
        (lambda: Integral(0), "rule.window=0 must be at least 1 time step"),
        (lambda: RULES.load("bakprop"), "rule='bakprop' is not registered; known: .*backprop.* Did you mean backprop?"),
        (lambda: GRADIENTS.load("exact"), "gradient='exact' is not registered; known: .*surrogate"),
        (lambda: CONSTRAINTS.load("clip"), "constraint='clip' is not registered; known: clamp"),
    ],
)
def test_mistakes_are_named(build: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text.replace("?", r"\?")):
        build()


def test_another_rule_is_no_continuation(tmp_path: Path) -> None:
    config = digits(1, "software", train_samples=50, test_samples=20)
    run(config, tmp_path, "test", quiet())
    RULES.add("integral", Integral) if "integral" not in RULES else None
    changed = replace(config, rule=Integral(), trainer=replace(config.trainer, epochs=2, resume=True))
    with pytest.raises(CheckpointError, match=r"rule\.kind: checkpoint 'backprop', now 'integral'"):
        run(changed, tmp_path, "test", quiet())


@dataclass
class Ternary(SurrogateGradient):
    """A gradient that reads spikes alone, and passes on that of the readout only."""

    reads_membranes: ClassVar[bool] = False

    def attach(self, weights: Sequence[Any], events: Any, layers: Sequence[Any], models: Sequence[Any]) -> list[Any]:
        spikes = layers[-2].fired.grid
        [readout] = super().attach(weights[-1:], spikes, layers[-1:], models[-1:])  # type: ignore[arg-type]
        return [*layers[:-1], readout]


def test_a_gradient_of_a_user_replaces_the_surrogate() -> None:
    net = hx.Network(
        hx.Linear(12, 20, gain=3.0), hx.LIF(20), hx.Linear(20, 3), hx.LI(3), steps=20, seed=2, gradient=Ternary()
    )
    net.attach(hx.Device(create_backend("reference")))
    assert net.hidden_traces == "spikes_only"
    rule = Backprop()
    rule.prepare(net, Objective(hx.MaxOverTime()))
    rule.step(net, batch())
    assert net.stack[0].weight.grad is None
    assert net.stack[2].weight.grad.abs().sum() > 0


def test_a_constraint_of_another_kind_is_refused(tmp_path: Path) -> None:
    config = digits(1, "software", train_samples=50, test_samples=20)
    config.constraint = {"clamp": Burst()}  # type: ignore[dict-item]
    with pytest.raises(TypeError, match=r"constraints\['clamp'\]: expected Constraint"):
        run(config, tmp_path, "test", quiet())
    assert issubclass(Clamp, Constraint)


def test_a_step_has_the_loss_and_the_activity() -> None:
    rule = Backprop()
    net = integrator()
    rule.prepare(net, Objective(integral_loss))
    step = rule.step(net, batch())
    assert isinstance(step, Step)
    assert step.loss == pytest.approx(float(integral_loss(step.activity.readout.detach(), batch().labels)))


@dataclass
class Nearest(hx.Loss):
    """Counts the samples of each class; a neuron answers for class 0 if it fires less than at its threshold."""

    reads: ClassVar[str] = "spikes"

    def outputs(self, classes: int, targets: hx.Spikes | None = None) -> int:
        if targets is None:
            raise ValueError("Nearest needs target spike trains")
        return targets.units

    def classes(self, outputs: int) -> int:
        return 2 * outputs

    def prepare(self, classes: int, targets: hx.Spikes | None = None) -> None:
        self.labels = torch.zeros(classes)

    def read(self, activity: Activity) -> Tensor:
        counts = activity.layers[-1].counts
        assert counts is not None
        return counts

    def scores(self, output: Tensor) -> Tensor:
        return torch.cat([-output, output], 1)

    def decision_times(self, output: Tensor, dt: float) -> Tensor:
        return torch.full((len(output),), dt)

    def observe(self, output: Tensor, labels: Tensor) -> None:
        self.labels += torch.bincount(labels, minlength=2)

    def state_dict(self) -> dict[str, Any]:
        return {"labels": self.labels}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.labels = state["labels"]

    def __call__(self, output: Tensor, labels: Any) -> Tensor:
        return (output[:, 0] - 3 * labels).square().mean()


def test_a_loss_chooses_what_it_reads_and_keeps_a_state(tmp_path: Path) -> None:
    data = hx.load_dataset("digits")
    data = replace(data, train=data.train[:30], test=data.test[:10])
    binary = [replace(part, labels=part.labels % 2) for part in (data.train, data.test)]
    trains = hx.Spikes.from_events([1], [0], [1e-5], 2, 1)
    data = replace(data, train=binary[0], test=binary[1], classes=("even", "odd"), targets=trains)
    loss = Nearest()
    net = hx.Network(hx.Linear(64, loss.outputs(2, data.targets), gain=5.0), hx.LIF(1))
    hx.fit(net, data, loss=loss, epochs=2, folder=tmp_path, progress=False)
    assert loss.labels.sum() == 60
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert torch.equal(state["loss"]["labels"], 2 * torch.bincount(data.train.labels).float())
    result = hx.evaluate(net, data.test, loss)
    assert result.confusion.shape == (2, 2)
    with pytest.raises(ValueError, match="targets of 1 samples, expected 2, one per class"):
        replace(data, targets=hx.Spikes.from_events([0], [0], [1e-5], 1, 1))


@dataclass
class Unled(LearningRule):
    """A rule that follows neither loss nor penalties, and changes nothing."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.SPIKES})

    def step(self, net: hx.Network, batch: Batch) -> Step:
        return Step(net(batch.spikes), 0.0)


def test_penalties_without_effect_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    net = hx.Network(hx.Linear(64, 10), hx.LI(10))
    data = hx.load_dataset("digits")
    data = replace(data, train=data.train[:20], test=data.test[:10])
    hx.fit(net, data, Unled(), penalties=[Burst()], epochs=1)
    assert "follows no penalties: regularizer 0_burst has no effect" in " ".join(capsys.readouterr().out.split())
    hx.fit(net, data, Unled(), penalties=[Burst(), Burst()], epochs=1)
    assert "0_burst, 1_burst have no effect; leave them out" in " ".join(capsys.readouterr().out.split())
    hx.fit(net, data, Unled(), penalties=default_penalties(), epochs=1)
    assert "no effect" not in capsys.readouterr().out


def test_processes_that_share_batches_keep_no_state(tmp_path: Path) -> None:
    data = hx.load_dataset("digits")
    net = hx.Network(hx.Linear(64, 10), hx.LI(10))

    def trainer(penalty: Regularizer, size: int, rule: LearningRule) -> Trainer:
        task = Task(net, hx.LatencyEncoder(), hx.MaxOverTime(), {"a": penalty}, data, rule=rule)
        return Trainer(task, TrainerConfig(), 0, tmp_path, {}, quiet(), Team(0, size))

    text = (
        "regularizer a: the state is learned from the samples of one process, and 2 processes do not share it; train "
        "in a single"
    )
    with pytest.raises(RuleError, match=text):
        trainer(Inertia(), 2, Backprop())
    trainer(Inertia(), 1, Backprop())
    trainer(Burst(), 2, Backprop())
    trainer(Burst(), 2, hx.EventProp())  # its state is that of an alarm


def test_a_rule_of_another_network_is_refused() -> None:
    nets = [hx.Network(hx.Linear(12, 3), hx.LI(3), steps=20) for _ in range(2)]
    rule = Backprop(hx.MaxOverTime())
    learn(nets[0], rule, torch.optim.SGD(nets[0].parameters(), lr=1e-3), batch())
    optimizer = torch.optim.SGD(nets[1].parameters(), lr=1e-3)
    weights = nets[1].stack[0].weight.clone()
    with pytest.raises(RuleError, match=r"rule=backprop was prepared for another network; call rule.prepare\(net"):
        learn(nets[1], rule, optimizer, batch())
    assert torch.equal(nets[1].stack[0].weight, weights)
    rule.prepare(nets[1])
    learn(nets[1], rule, optimizer, batch())
    assert not torch.equal(nets[1].stack[0].weight, weights)


@pytest.mark.parametrize("backend", [None, "emulator"])
def test_a_saturation_that_is_set_is_checked_before_the_next_pass(backend: str | None) -> None:
    modules = hx.Linear(12, 20, gain=3.0), hx.LIF(20), hx.Recurrent(20), hx.Linear(20, 3), hx.LI(3)
    net = hx.Network(*modules, steps=20, gradient=Particular(at_spike="trace"))
    net.attach(None if backend is None else hx.Device(create_backend(backend, preset="ideal")))
    net(batch().spikes)
    net.saturation = 300.0
    with pytest.raises(
        ValueError, match="Network: saturation=300 is not known to particular gradients of recurrent layers"
    ):
        net(batch().spikes)
    net.saturation = None
    net(batch().spikes)


def test_a_gradient_that_is_set_is_checked_before_the_next_pass() -> None:
    modules = hx.Linear(12, 20, gain=3.0), hx.LIF(20), hx.Recurrent(20), hx.Linear(20, 3), hx.LI(3)
    net = hx.Network(*modules, steps=20, gradient=SurrogateGradient(), saturation=300.0)
    net(batch().spikes)
    net.gradient = Particular()
    with pytest.raises(ValueError, match="is not known to particular gradients of recurrent layers"):
        net(batch().spikes)


@dataclass
class Particular(SurrogateGradient):
    """A gradient that refuses the saturation of recurrent layers."""

    def check(self, recurrent: Sequence[bool], saturation: float | None) -> list[str]:
        if saturation is None or not any(recurrent):
            return []
        return [f"saturation={saturation:g} is not known to particular gradients of recurrent layers"]


@dataclass
class Last(LearningRule):
    """A rule that learns the last projection alone."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.SPIKES, Need.PENALTIES})

    def step(self, net: hx.Network, batch: Batch) -> Step:
        weight = net.projections[-1].synapses.weight
        weight.grad = torch.zeros_like(weight)
        return Step(net(batch.spikes), 0.0)


def test_projections_that_a_rule_leaves_alone_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    net = hx.Network(hx.Linear(64, 20, gain=3.0), hx.LIF(20), hx.Linear(20, 10), hx.LI(10))
    data = hx.load_dataset("digits")
    hx.fit(net, replace(data, train=data.train[:40], test=data.test[:10]), Last(), epochs=1, batch_size=20)
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("does not learn input->layer0: these weights stay as they are") == 1
