"""Spike times and gradients of 20 random networks equal those of jaxsnn 0.3.0, see `jaxsnn_gradients.py`."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import continuous
import pytest
import torch

import hxtrain as hx
from hxtrain.gradients.spike_times import constants
from hxtrain.objectives import SpikeTimeTargets
from hxtrain.rules import Batch, Objective
from hxtrain.rules.eventprop import EventProp

DT = 1e-6
STEPS = 40
CASES = json.loads((Path(__file__).parent / "data" / "jaxsnn.json").read_text())


@dataclass
class Case:
    """A network of jaxsnn.

    Attributes:
        values: Content of the file.
    """

    values: dict[str, Any]

    @property
    def scale(self) -> float:
        """Weight of jaxsnn in units of ours: its membrane follows tau_mem dV/dt = I - V."""
        fixed = constants(self.values["tau_mem"], self.values["tau_syn"], DT)
        return fixed.drive * fixed.tau_mem

    @cached_property
    def weights(self) -> list[torch.Tensor]:
        """Weights `[N, J]` of each layer, in our units."""
        return [torch.tensor(weight, dtype=torch.float64) / self.scale for weight in self.values["weights"]]

    def layers(self) -> list[hx.Spikes]:
        """Return the spikes of jaxsnn by layer."""
        pairs = zip(self.values["spikes"], self.weights, strict=True)
        return [continuous.as_spikes([layer], len(weight)) for layer, weight in pairs]


class MeasuredNetwork(hx.Network):
    """A network of LIF neurons with the weights of a case; a pass shows the spikes of jaxsnn, as those of a device."""

    def __init__(self, case: Case) -> None:
        modules: list[torch.nn.Module] = []
        for weight in case.weights:
            neurons = hx.LIF(len(weight), case.values["tau_mem"], case.values["tau_syn"])
            modules += [hx.Linear(weight.shape[1], len(weight)), neurons]
        super().__init__(*modules, dt=DT, steps=STEPS)
        self.double()
        self.case = case
        with torch.no_grad():
            for projection, weight in zip(self.projections, case.weights, strict=True):
                projection.synapses.weight.copy_(weight)

    def _pass(self, spikes: hx.Spikes, masks: list[torch.Tensor | None] | None) -> Any:
        activity = super()._pass(spikes, masks)
        pairs = zip(activity.layers, self.case.layers(), strict=True)
        activity.layers = [replace(layer, events=events) for layer, events in pairs]
        return activity


def test_the_file_holds_20_networks_of_each_kind() -> None:
    kinds = {(len(case["weights"]), round(case["tau_mem"] / case["tau_syn"])) for case in CASES}
    assert len(CASES) == 20
    assert kinds == {(1, 1), (1, 2), (2, 1), (2, 2)}


@pytest.mark.parametrize("values", CASES, ids=lambda values: f"seed{values['seed']}")
def test_spike_times_and_gradients_are_those_of_jaxsnn(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hxtrain.rules.inputs.network_times", lambda net, spikes: spikes)  # as on a device
    case = Case(values)
    fixed = constants(values["tau_mem"], values["tau_syn"], DT)
    weights = [weight.numpy() for weight in case.weights]
    events = [(time, unit) for time, unit in values["events"]]
    layers = continuous.network(weights, events, fixed, DT * STEPS)
    for ours, theirs in zip(layers, values["spikes"], strict=True):
        assert [unit for _, unit in ours] == [unit for _, unit in theirs]
        assert [time for time, _ in ours] == pytest.approx([time for time, _ in theirs], rel=1e-8)
    net = MeasuredNetwork(case)
    loss = SpikeTimeTargets(pull=0.0)
    loss.prepare(1, continuous.as_spikes([[(time, n) for n, time in enumerate(values["targets"])]], len(weights[-1])))
    rule = EventProp(slope_floor=1e-9, floor_strength=0.0)
    rule.prepare(net, Objective(loss))
    times = [time for time, _ in events]
    units = [unit for _, unit in events]
    inputs = hx.Spikes.from_events([0] * len(events), units, times, 1, weights[0].shape[1])
    rule.step(net, Batch(inputs, torch.tensor([0])))
    for projection, theirs in zip(net.projections, values["gradients"], strict=True):
        expected = torch.tensor(theirs, dtype=torch.float64) * case.scale
        gradient = projection.synapses.weight.grad
        assert float((gradient - expected).abs().max()) < 1e-6 * float(expected.abs().max())
