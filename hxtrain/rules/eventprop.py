"""EventProp in the loop: the exact gradient of measured spike times (Wunderlich and Pehle 2021).

`gradients/spike_times.py` has the equations. What they need is measured: the times of all spikes. Membranes of hidden
neurons are not read, so that a device need not record them (`network.traces=spikes_only`).

On a device, two additions keep exact gradients useful:

- A guarded slope. The gradient of a spike is divided by the slope of the membrane at the threshold. The model's current
  at a measured time is not the device's, so that the slope may be tiny or negative; it is at least
  `slope_floor / tau_mem`. `guarded_share` is the share of spikes to which this applies.
- A firing floor. Exact gradients say nothing about neurons that do not spike. A neuron whose mean number of spikes in
  a batch is below `firing_floor` adds `floor_strength` times its missing share to the loss; this adds to the gradient,
  and never replaces it. Numbers of spikes are differentiated as in a rate model: an event adds its weight times the
  charge of a unit weight, `drive tau_syn`, to the number of spikes. Penalties on numbers of spikes and the pull of
  silent outputs (`objectives/time_losses.py`) use the same derivative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from hxtrain.backends import Capabilities, Spikes
from hxtrain.checks import one_of
from hxtrain.execution import device_of
from hxtrain.gradients.spike_times import Guard, LayerTimes, Population, constants, in_order, spike_time_layers
from hxtrain.network import Activity, Network

from .backprop import descend
from .inputs import input_events
from .rule import Batch, LearningRule, Need, Objective, RuleError, Step

SLOPES = ("model", "measured")
"""Sources of the slope of a membrane at a spike."""
GUARDED = 0.5
"""Share of guarded spikes above which the rule warns."""
COLLAPSE = 0.2
"""Share of a layer's spikes at the start below which it counts as silenced."""
MEMORY = 500
"""Number of samples over which spikes are averaged for the alarm of silence."""


@dataclass
class EventProp(LearningRule):
    """Exact gradients of measured spike times, with a guarded slope and a firing floor (Wunderlich and Pehle 2021).

    Losses of spike times (`loss=ttfs`, `loss=spike_time_mse`) go with a spiking output, `network.output=spikes`; losses
    of membranes with a readout.

    Attributes:
        slope: Slope of the membrane at a spike: `model`, or `measured` from the last two trace samples before it,
            where there are two since the last reset.
        slope_floor: Smallest slope (threshold / tau_mem); a smaller one is replaced by this.
        firing_floor: Mean number of spikes per sample and neuron below which a neuron is pushed to fire.
        floor_strength: Strength of the push; 0: none.
    """

    needs: ClassVar[frozenset[Need]] = frozenset(
        {Need.LOSS, Need.PENALTIES, Need.TARGETS, Need.INPUT_SPIKES, Need.SPIKES}
    )
    solves: ClassVar[str] = (
        "Yin-Yang in 30 hidden neurons and MNIST 16x16, from spike times alone (experiment=eventprop_yin_yang, "
        "eventprop_mnist16)"
    )
    metrics: ClassVar[tuple[str, ...]] = ("guarded_share",)
    state_moves_weights: ClassVar[bool] = False  # it is that of the alarm of silence

    slope: str = "model"
    slope_floor: float = 0.3
    firing_floor: float = 0.5
    floor_strength: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(SLOPES)("rule.slope", self.slope)
        for name in ("slope_floor", "firing_floor"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"rule.{name}={getattr(self, name)} must be positive and finite")
        if not 0 <= self.floor_strength < float("inf"):
            raise ValueError(f"rule.floor_strength={self.floor_strength} must be >= 0 and finite")

    def check(self, net: Network, capabilities: Capabilities | None) -> list[str]:
        """Refuse a saturation, and measured slopes without measured membranes, see `LearningRule.check`."""
        misfits = super().check(net, capabilities)
        if net.saturation is not None:
            misfits.append(
                f"network.saturation={net.saturation:g} is not known to {self.name}, whose synapses are linear; leave "
                "it out, or choose rule=backprop"
            )
        if self.slope != "measured":
            return misfits
        if capabilities is not None and not capabilities.traces:
            misfits.append(
                f"rule.slope=measured reads membranes, but the device {capabilities.name!r} records none; choose "
                "rule.slope=model"
            )
        elif net.hidden_traces != "measured":
            misfits.append(
                "rule.slope=measured reads hidden membranes, but network.traces=spikes_only (or the gradient) leaves "
                "them out; choose rule.slope=model, or network.traces=measured"
            )
        return misfits

    def prepare(self, net: Network, objective: Objective | None = None) -> None:
        """Prepare for a network and an objective, see `LearningRule.prepare`.

        Raises:
            RuleError: The loss reads a spiking output, but not its spike times.
        """
        loss = (objective or self.objective).loss
        if net.output_kind == "spikes" and not getattr(loss, "reads_times", False):
            raise RuleError(
                f"rule={self.name}: {type(loss).__name__} of a spiking output has no gradient with respect to spike "
                "times; choose loss=ttfs, loss=spike_time_mse or loss=spike_time_targets, or end the network in a "
                "readout (network.output=membranes)"
            )
        super().prepare(net, objective)
        spiking = sum(layer.neurons.spiking for layer in net.layers)
        self._names = [layer.name for layer in net.layers if layer.neurons.spiking]
        self._start = torch.zeros(spiking, dtype=torch.float64)
        self._recent = torch.zeros(spiking, dtype=torch.float64)
        self._samples = 0

    def step(self, net: Network, batch: Batch) -> Step:
        """Run a batch, and leave the gradient of loss, penalties and floor in `.grad`; errors as in `descend`."""
        with torch.no_grad():
            activity: Activity = net(batch.spikes, batch.masks)
        layers = self._attached(net, batch, activity)
        step = descend(net, self.objective, batch, activity, self._floor(layers, activity))
        self._note(activity)
        spikes = sum(len(layer.spikes) for layer in layers if layer.spikes is not None)
        guarded = sum(layer.guarded for layer in layers)
        return step._replace(metrics={"guarded_share": guarded / max(spikes, 1)})

    def chosen(self, spikes: Spikes) -> Spikes:
        """Return the spikes of a layer that the gradient knows, of spikes in order of sample and time; here all."""
        return spikes

    def _attached(self, net: Network, batch: Batch, activity: Activity) -> list[LayerTimes]:
        """Put the layers of an activity into the graph of the weights."""
        end = net.dt * net.steps
        inputs = in_order(input_events(net, batch), end)
        weights = [
            (weight, recurrent[0] if recurrent else None)
            for weight, *recurrent in net.by_layer(net.effective_weights(batch.masks))
        ]
        populations = self._populations(net, activity, end)
        layers = spike_time_layers(
            weights, inputs, populations, net.dt, Guard(self.slope_floor, self.slope == SLOPES[1])
        )
        activity.layers = [
            replace(measured, membrane=layer.trace)
            if layer.trace is not None
            else replace(measured, events=layer.spikes, anchors=(None, None, layer.counts))
            for measured, layer in zip(activity.layers, layers, strict=True)
        ]
        return layers

    def _populations(self, net: Network, activity: Activity, end: float) -> list[Population]:
        """Return the measured layers with the constants of what ran them."""
        device = None if net.in_software else device_of(net)
        placed = None if device is None or device.plan is None else device.plan.circuit.populations
        models = net.models()
        populations: list[Population] = []
        for number, (layer, measured) in enumerate(zip(net.layers, activity.layers, strict=True)):
            neurons = layer.neurons
            fixed = constants(neurons.tau_mem, neurons.tau_syn, net.dt)
            steps, samples, size = measured.membrane.shape
            shape = (steps, samples, size)
            if measured.fired is None:
                populations.append(Population(fixed, None, shape, measured.trace.detach()))
                continue
            if placed is not None:
                population = placed[number]
                assert population.threshold is not None
                unit = population.threshold - population.leak
                reset = (population.reset - population.leak) / unit
                fixed = fixed._replace(refractory=population.refractory, reset=reset)
            elif (hold := models[number].hold) is not None:
                fixed = fixed._replace(refractory=hold * net.dt)
            spikes = self.chosen(in_order(measured.times(net.dt), end))
            trace = measured.trace.detach() if self.slope == SLOPES[1] else None
            populations.append(Population(fixed, spikes, shape, trace))
        return populations

    def _floor(self, layers: list[LayerTimes], activity: Activity) -> Tensor | None:
        """Return the penalty of neurons below the firing floor; its gradient is that of their numbers of spikes."""
        if self.floor_strength == 0:
            return None
        parts = []
        for layer in activity.layers:
            if layer.counts is not None:
                missing = (self.firing_floor - layer.counts.mean(0)).relu()
                parts.append(missing.sum() / self.firing_floor)
        return self.floor_strength * torch.stack(parts).sum() if parts else None

    @torch.no_grad()
    def _note(self, activity: Activity) -> None:
        """Take note of the numbers of spikes of each layer, at the start and recently."""
        counts = [layer.counts for layer in activity.layers if layer.counts is not None]
        if not counts:
            return
        samples = len(counts[0])
        means = torch.stack([count.detach().sum().double().cpu() / samples for count in counts])
        if self._samples < MEMORY:
            self._start += (means - self._start) * samples / (self._samples + samples)
            self._recent = self._start.clone()
        else:
            self._recent += (means - self._recent) * min(1.0, samples / MEMORY)
        self._samples += samples

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """Return warnings of guarded spikes and of layers that fall silent, see `LearningRule.warnings`."""
        texts = []
        share = metrics.get("guarded_share", 0.0)
        if share > GUARDED:
            texts.append(
                f"guarded spikes prevail: {share:.0%} of all spikes have a slope below rule.slope_floor="
                f"{self.slope_floor:g} in the model, so that their gradients are no longer exact. Try "
                "rule.slope=measured, or hxtrain fit: the model's time constants may not be the device's"
            )
        for name, start, recent in zip(self._names, self._start.tolist(), self._recent.tolist(), strict=True):
            if recent < COLLAPSE * start:
                texts.append(
                    f"{name} falls silent: {recent:.2g} spikes per sample, {start:.2g} at the start of training. Try "
                    f"rule.floor_strength={max(2 * self.floor_strength, 0.02):g}, or a smaller trainer.learning_rate"
                )
        return texts

    def state_dict(self) -> dict[str, Any]:
        """Return the numbers of spikes at the start and recently, for the alarm of silence."""
        return {"start": self._start, "recent": self._recent, "samples": self._samples}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned, after `prepare`.

        Raises:
            ValueError: The state belongs to another rule or network.
        """
        if state.keys() != self.state_dict().keys() or state["start"].shape != self._start.shape:
            raise ValueError(f"the checkpoint has a state of {', '.join(state) or 'nothing'}, not of {self.name}")
        self._start = state["start"].clone()
        self._recent = state["recent"].clone()
        self._samples = state["samples"]
