"""The checks of rules find faults: rules with one fault each, and sound rules with state and in windows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import rule_checks as checks
import torch
from rule_checks import CHECKS, STEPS, Case, network, random_batch
from torch import Tensor
from torch.nn.functional import one_hot

import hxtrain as hx
from hxtrain.network import Activity
from hxtrain.rules import Batch, LearningRule, Need, Step, StreamingRule, Window


@dataclass
class Integral(StreamingRule):
    """Descent of the squared error of the readout's integral, step by step; the first projection is not learned."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.SPIKES, Need.MEMBRANES, Need.TARGETS})
    solves: ClassVar[str] = "nothing; it serves tests"

    def begin(self, net: hx.Network, batch: Batch) -> None:
        zeros = torch.zeros(batch.spikes.samples, net.layers[-1].linear.inputs, dtype=torch.float64)
        self.current = zeros
        self.trace = zeros
        self.eligibility = zeros
        self.charge = zeros
        self.integral = torch.zeros(batch.spikes.samples, net.layers[-1].neurons.size, dtype=torch.float64)

    def observe(self, net: hx.Network, batch: Batch, window: Window) -> None:
        alpha, beta = net.decays(net.layers[-1])
        spikes, membranes = window.spikes[-2], window.membranes[-1]
        assert spikes is not None
        assert membranes is not None
        for upstream, membrane in zip(spikes, membranes, strict=True):
            self.current = alpha * self.current + self.charge
            self.trace = beta * self.trace + self.current
            self.charge = upstream
            self.eligibility = self.eligibility + self.trace
            self.integral = self.integral + membrane

    def finish(self, net: hx.Network, batch: Batch, activity: Activity) -> float:
        error = self.integral - one_hot(batch.labels, self.integral.shape[1])
        net.projections[-1].synapses.weight.grad = error.t() @ self.eligibility / len(error)
        return float(error.square().sum() / 2)


@dataclass
class Baseline(LearningRule):
    """Reward-modulated Hebbian change of the last projection, with the running mean of the spikes as a baseline."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.SPIKES, Need.TARGETS})
    is_local: ClassVar[bool] = True
    solves: ClassVar[str] = "nothing; it serves tests"
    rate: float = 0.1

    def prepare(self, net: hx.Network, objective: Any = None) -> None:
        super().prepare(net, objective)
        self.mean = torch.zeros(net.layers[-1].neurons.size, dtype=torch.float64)

    @torch.no_grad()
    def step(self, net: hx.Network, batch: Batch) -> Step:
        activity = net(batch.spikes, batch.masks)
        upstream, output = (layer.counts for layer in activity.layers[-2:])
        error = output - self.mean - one_hot(batch.labels, output.shape[1])
        net.projections[-1].synapses.weight.grad = error.t() @ upstream / len(error)
        self.mean = self.mean + self.rate * (output.mean(0) - self.mean)
        return Step(activity, float(error.square().mean()))

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.mean = state["mean"]


SHORT = (100, 400)
"""Lengths of a trial (time steps), shorter than those of the package's rules to save time."""
SOUND = {"streaming": Case(Integral, lengths=SHORT), "with a state": Case(Baseline, checks.spiking_network)}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", SOUND)
def test_sound_rules_pass(name: str, check: Callable[[Case], None]) -> None:
    check(SOUND[name])


class Drifting(Baseline):
    """Changes weights without activity."""

    def step(self, net: hx.Network, batch: Batch) -> Step:
        step = super().step(net, batch)
        net.projections[-1].synapses.weight.grad += 1e-9
        return step


class Infinite(Baseline):
    """Divides by a number of spikes that may be zero."""

    def step(self, net: hx.Network, batch: Batch) -> Step:
        step = super().step(net, batch)
        net.projections[-1].synapses.weight.grad *= torch.tensor(torch.inf)
        return step


class Idle(Baseline):
    """Changes nothing."""

    def step(self, net: hx.Network, batch: Batch) -> Step:
        step = super().step(net, batch)
        net.zero_grad(set_to_none=True)
        return step


class Summing(Baseline):
    """Adds the changes of samples up."""

    def step(self, net: hx.Network, batch: Batch) -> Step:
        step = super().step(net, batch)
        net.projections[-1].synapses.weight.grad *= len(batch.labels)
        return step


class Random(Baseline):
    """Uses torch's global random numbers."""

    def step(self, net: hx.Network, batch: Batch) -> Step:
        step = super().step(net, batch)
        grad = net.projections[-1].synapses.weight.grad
        net.projections[-1].synapses.weight.grad = grad * (1 + 1e-12 * torch.rand(()).double())
        return step


class Precise(Baseline):
    """Reads times of inputs that a network in software does not know."""

    def step(self, net: hx.Network, batch: Batch) -> Step:
        step = super().step(net, batch)
        net.projections[-1].synapses.weight.grad *= batch.spikes.time.double().mean() / net.dt
        return step


class Forgetful(Baseline):
    """Lacks its state in the checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        return


class Resetting(Integral):
    """Forgets the synaptic current at the start of a window."""

    def observe(self, net: hx.Network, batch: Batch, window: Window) -> None:
        self.current = torch.zeros_like(self.current)
        super().observe(net, batch, window)


class Hoarding(Integral):
    """Keeps all membranes of a trial."""

    def begin(self, net: hx.Network, batch: Batch) -> None:
        super().begin(net, batch)
        self.membranes: list[Tensor | None] = []

    def observe(self, net: hx.Network, batch: Batch, window: Window) -> None:
        super().observe(net, batch, window)
        self.membranes += window.membranes


class Counting(Baseline):
    """Keeps its state in a setting."""

    def step(self, net: hx.Network, batch: Batch) -> Step:
        self.rate *= 0.9
        return super().step(net, batch)


class Unmasking(Baseline):
    """Lets absent synapses exist while it runs the network."""

    def step(self, net: hx.Network, batch: Batch) -> Step:
        synapses = net.projections[-1].synapses
        mask = synapses.mask
        if mask is not None:
            synapses.mask = torch.ones_like(mask)
        step = super().step(net, batch)
        synapses.mask = mask
        return step


class Clocked(Baseline):
    """Depends on the device's number of runs, which no recording holds."""

    runs: ClassVar[int] = 0

    def step(self, net: hx.Network, batch: Batch) -> Step:
        Clocked.runs += 1
        step = super().step(net, batch)
        net.projections[-1].synapses.weight.grad *= Clocked.runs
        return step


FAULTS: list[tuple[type[LearningRule], Callable[[Case], None]]] = [
    (Drifting, checks.a_recording_without_activity_changes_nothing),
    (Infinite, checks.gradients_are_finite_and_have_the_shape_of_the_weights),
    (Idle, checks.gradients_are_finite_and_have_the_shape_of_the_weights),
    (Summing, checks.a_batch_is_the_mean_of_its_samples),
    (Random, checks.equal_states_give_equal_changes),
    (Precise, checks.software_sees_inputs_on_the_time_grid),
    (Resetting, checks.windows_make_no_difference),
    (Clocked, checks.a_replay_gives_the_same_weights),
    (Forgetful, checks.a_resumed_training_is_the_same),
    (Hoarding, checks.memory_does_not_grow_with_a_trial),
    (Unmasking, checks.absent_synapses_are_never_sent),
    (Counting, checks.settings_stay_settings),
]


@pytest.mark.parametrize(("rule", "check"), FAULTS, ids=lambda part: part.__name__)
def test_a_fault_is_found(rule: type[LearningRule], check: Callable[[Case], None]) -> None:
    net = network if issubclass(rule, StreamingRule) else checks.spiking_network
    with pytest.raises(AssertionError):
        check(Case(rule, net, lengths=SHORT))


def test_every_check_finds_a_fault() -> None:
    assert {check for _, check in FAULTS} == set(CHECKS)


def test_the_samples_of_the_checks_make_spikes_everywhere() -> None:
    for net in (network(), checks.spiking_network()):
        layers = net(random_batch(net).spikes).layers
        assert all(layer.counts.sum() > 0 for layer in layers if layer.counts is not None)
    assert network().steps == STEPS
