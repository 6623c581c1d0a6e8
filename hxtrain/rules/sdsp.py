r"""Spike-driven synaptic plasticity: bistable synapses that a membrane and its calcium let jump at input spikes.

Each synapse has an internal state X in 0..1, which the chip never sees (Fusi et al. 2000; Brader, Senn and Fusi 2007)::

    at an input spike      X += jump_up     if V > theta_v  and up_low < C < up_high
                           X -= jump_down   if V <= theta_v and down_low < C < down_high
    at all other times     dX/dt = drift_up if X > theta_x, else -drift_down
    calcium                dC/dt = -C / tau_calcium + calcium_jump (at each output spike)
    weight                 high if X > theta_x, else low

The limits of C stop learning once a neuron responds enough: so synapses keep what they have stored. V is the sample of
the membrane nearest to the input spike, and C what earlier output spikes left. Trials follow one another: a batch is a
sequence of trials, measured with the weights of its start.

A teacher adds `teacher` to the membrane of the true class and subtracts it from the others; it adds `teacher_calcium`
to the calcium of the true class. On a chip it would be a current; here the host adds it to what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from hxtrain.backends import Capabilities, Spikes
from hxtrain.backends.intake import as_tensor
from hxtrain.network import Activity, Network, Write
from hxtrain.objectives import Loss

from .plasticity import Pathway, Plasticity, reported_loss
from .rule import Batch, Need, Objective, RuleError, Step
from .traces import sorted_events


@dataclass
class SDSP(Plasticity):
    """Spike-driven plasticity of bistable synapses. Defaults are the published ones at a speedup of 1000.

    The rule writes weights as they are: it goes with `optimizer=sgd trainer.learning_rate=1
    trainer.learning_rate_decay=1`.

    Attributes:
        jump_up: Jump of the internal state at an input spike while the membrane is high.
        jump_down: Jump of the internal state at an input spike while the membrane is low.
        drift_up: Drift of internal states above their threshold (1/s of the device).
        drift_down: Drift of internal states below their threshold (1/s of the device).
        theta_x: Threshold of the internal state.
        theta_v: Threshold of the membrane (leak 0, threshold 1).
        tau_calcium: Time constant of the calcium (s of the device).
        calcium_jump: Calcium per output spike.
        up_low: Calcium above which the internal state may jump up.
        up_high: Calcium below which the internal state may jump up.
        down_low: Calcium above which the internal state may jump down.
        down_high: Calcium below which the internal state may jump down.
        low: Weight of a depressed synapse (threshold - leak).
        high: Weight of a potentiated synapse (threshold - leak).
        teacher: Addition to the membrane of the true class, subtracted from that of all others (threshold - leak).
        teacher_calcium: Addition to the calcium of the true class.
        stationary: Whether a trial is taken as one period of a repeated stimulus: calcium then starts at its periodic
            value instead of 0.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUT_SPIKES, Need.SPIKES, Need.MEMBRANES, Need.TARGETS})
    solves: ClassVar[str] = "digits with one layer of binary weights (experiment=sdsp_digits)"
    watches_writes: ClassVar[bool] = True

    jump_up: float = 0.1
    jump_down: float = 0.1
    drift_up: float = 3500.0
    drift_down: float = 3500.0
    theta_x: float = 0.5
    theta_v: float = 0.8
    tau_calcium: float = 60e-6
    calcium_jump: float = 1.0
    up_low: float = 3.0
    up_high: float = 13.0
    down_low: float = 3.0
    down_high: float = 4.0
    low: float = 0.0
    high: float = 0.1
    teacher: float = 0.0
    teacher_calcium: float = 0.0
    stationary: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("tau_calcium")
        self.require_not_negative(
            "jump_up", "jump_down", "drift_up", "drift_down", "calcium_jump", "teacher", "teacher_calcium"
        )
        if not 0 < self.theta_x < 1:
            raise ValueError(f"rule.theta_x={self.theta_x} must be in 0 < x < 1")
        if not self.low < self.high:
            raise ValueError(f"rule.low={self.low} must be less than rule.high={self.high}")
        if self.homeostasis:
            raise ValueError(
                f"rule.homeostasis={self.homeostasis}: weights of sdsp are low or high; leave it at 0, calcium stops "
                "learning"
            )

    def check(self, net: Network, capabilities: Capabilities | None) -> list[str]:
        """Return a text for each misfit: the weights must lie in the range of the device."""
        misfits = super().check(net, capabilities)
        for projection, limit in zip(net.projections, net.weight_limits(), strict=True):
            extreme = max(abs(self.low), abs(self.high))
            if projection.synapses.is_trainable and limit is not None and extreme > limit * (1 + 1e-6):
                misfits.append(
                    f"{projection.name}: rule.low={self.low} and rule.high={self.high} exceed the largest weight of "
                    f"the device, {limit:.4g}; choose smaller ones, or a smaller network.scale"
                )
        return misfits

    def prepare(self, net: Network, objective: Objective | None = None) -> None:
        """Make the internal states: those of initial weights between `low` and `high`; then set the weights.

        Raises:
            RuleError: There is a teacher, but not one output neuron for each class.
        """
        super().prepare(net, objective)
        self._check_teacher(net)
        self._states: dict[str, Tensor] = {}
        for projection in net.projections:
            synapses = projection.synapses
            if synapses.is_trainable:
                share = (synapses.weight.detach().double() - self.low) / (self.high - self.low)
                self._states[projection.name] = share.clamp(0, 1)
                with torch.no_grad():
                    synapses.weight.copy_(self.weights(self._states[projection.name]))

    def _check_teacher(self, net: Network) -> None:
        """Refuse a teacher of an output that has not one neuron for each class."""
        loss = self.objective.loss
        outputs = net.layers[-1].neurons.size
        classes = loss.classes(outputs) if isinstance(loss, Loss) else outputs
        if (self.teacher or self.teacher_calcium) and classes != outputs:
            raise RuleError(
                f"rule={self.name}: a teacher drives one output neuron for each class, but {type(loss).__name__} has "
                f"{outputs} neurons for {classes} classes; choose loss=spike_count, or leave rule.teacher and "
                "rule.teacher_calcium at 0"
            )

    def weights(self, states: Tensor) -> Tensor:
        """Return the weights of synapses with internal states `[N, J]`."""
        return torch.where(states > self.theta_x, self.high, self.low)

    @torch.no_grad()
    def step(self, net: Network, batch: Batch) -> Step:
        """Run a batch, follow its trials, and leave the difference from the new weights in `.grad`."""
        activity: Activity = net(batch.spikes, batch.masks)
        layers = dict(zip((layer.name for layer in net.layers), activity.layers, strict=True))
        for projection, pathway in self.pathways(net, batch, activity):
            is_output = projection.post == net.layers[-1].name
            labels = as_tensor(batch.labels, "labels") if is_output else None
            lessons = self._lessons(pathway, labels)
            states = self._states[projection.name].cpu().numpy().T.copy()
            membranes = layers[projection.post].trace.detach().cpu().numpy()
            self.follow(states, pathway.pre, pathway.post, membranes, net.dt, lessons)
            followed = torch.from_numpy(states.T.copy())
            if pathway.active is not None:  # dropped neurons took no part, whatever the teacher says of their class
                is_active = pathway.active.bool().cpu()[:, None]
                followed = torch.where(is_active, followed, self._states[projection.name].cpu())
            self._states[projection.name] = followed
            weight = projection.synapses.weight
            weight.grad = weight - self.weights(self._states[projection.name]).to(weight)
        return Step(activity, reported_loss(self.objective, batch, activity))

    def follow(
        self,
        states: Any,
        pre: Spikes,
        post: Spikes,
        membranes: Any,
        dt: float,
        lessons: tuple[Any, Any] | None = None,
    ) -> None:
        """Follow internal states through the trials of a batch, one after the other.

        Args:
            states: Internal states, float64 `[J, N]`; changed in place.
            pre: Spikes of the inputs.
            post: Spikes of the outputs.
            membranes: Membranes of the outputs `[T, B, N]`.
            dt: Interval of the membranes (s).
            lessons: What a teacher adds to membranes and to calcium `[B, N]`; None: nothing.
        """
        from .sdsp_kernel import follow

        silence = np.zeros((post.samples, post.units))
        constants = np.array(
            [
                *(self.jump_up, self.jump_down, self.drift_up, self.drift_down, self.theta_x),
                *(self.tau_calcium, self.calcium_jump, self.up_low, self.up_high, self.down_low, self.down_high),
                self.theta_v,
            ]
        )
        pre_offsets, pre_unit, pre_time, _ = sorted_events(pre)
        post_offsets, post_unit, post_time, _ = sorted_events(post)
        membrane_lesson, calcium_lesson = lessons or (silence, silence)
        follow(
            states,
            pre_offsets,
            pre_unit,
            pre_time,
            post_offsets,
            post_unit,
            post_time,
            membranes,
            membrane_lesson,
            calcium_lesson,
            constants,
            dt,
            self.stationary,
        )

    def _lessons(self, pathway: Pathway, labels: Tensor | None) -> tuple[Any, Any] | None:
        """Return what the teacher adds to membranes and to calcium `[B, N]`; None without a teacher."""
        if labels is None or not (self.teacher or self.teacher_calcium):
            return None
        truth = one_hot(labels.cpu().long(), pathway.post.units).double().numpy()
        return self.teacher * (2 * truth - 1), self.teacher_calcium * truth

    def after_write(self, net: Network, write: Write) -> None:
        """Check that the optimiser has set the weights as they are.

        Raises:
            ValueError: The weights differ from those of the internal states.
        """
        for projection in net.projections:
            if projection.name not in self._states:
                continue
            weight = projection.synapses.weight.detach()
            difference = weight - self.weights(self._states[projection.name]).to(weight)
            mask = projection.synapses.mask
            difference = difference if mask is None else difference * mask
            if float(difference.abs().max()) > 1e-4 * (self.high - self.low):
                raise ValueError(
                    f"{projection.name}: rule=sdsp writes rule.low={self.low} and rule.high={self.high}, but the "
                    f"optimiser or a constraint left weights {float(difference.abs().max()):.3g} away; set "
                    "optimizer=sgd trainer.learning_rate=1 trainer.learning_rate_decay=1, and run in one process"
                )

    def state_dict(self) -> dict[str, Any]:
        """Return the internal states by projection."""
        return dict(self._states)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the internal states.

        Raises:
            ValueError: The state belongs to another rule, or to another network.
        """
        shapes = {name: list(value.shape) for name, value in self._states.items()}
        if {name: list(value.shape) for name, value in state.items()} != shapes:
            raise ValueError(f"a state of {', '.join(state) or 'nothing'} does not fit sdsp of {shapes}")
        self._states = dict(state)
