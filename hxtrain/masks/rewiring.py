"""Rewiring: synapses that move during training, while each neuron keeps their number.

Both ways are regularisers that watch what is written to the device: their state is part of a checkpoint, and any
learning rule goes with them. Steps are counted; nothing random is stored.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, List, Optional  # noqa: UP035 - OmegaConf resolves these on every Python

import torch
from torch import Tensor

from hxtrain.checks import optional, whole
from hxtrain.execution import device_of
from hxtrain.network import Activity, Network, Write
from hxtrain.network.layers import Incoming
from hxtrain.objectives import Regularizer
from hxtrain.runs.randomness import generator

from .budget import best_of_rows, free_rows, largest


@dataclass
class Rewiring(Regularizer):
    """Base: after some steps, synapses of each neuron are replaced; masks of the network change.

    Attributes:
        interval: Steps between two rewirings.
        rows: Signed inputs that all sources share, see `Budget.rows`; None: any synapses.
        projections: Names of the projections that are rewired. Without names, all that have a mask and are learned.
    """

    watches_writes: ClassVar[bool] = True
    interval: int = 1
    rows: Optional[int] = None  # noqa: UP045 - OmegaConf resolves these on every Python
    projections: List[str] = field(default_factory=list)  # noqa: UP006

    def __post_init__(self) -> None:
        super().__post_init__()
        name = f"{type(self).__name__}: "
        for setting in ("interval", "rows"):
            value = optional(whole)(name + setting, getattr(self, setting))
            if value is not None and value < 1:
                raise ValueError(f"{name}{setting}={value} must be at least 1")
        self._step = 0
        self._rewired: list[Incoming] = []
        self._places: list[int] = []

    def prepare(self, net: Network) -> None:
        """Find the projections.

        Raises:
            ValueError: No projection has a mask, or the placed network shares signed inputs in another way.
        """
        names = [projection.name for projection in net.projections]
        unknown = [name for name in self.projections if name not in names]
        if unknown:
            raise ValueError(
                f"{type(self).__name__}: projections={unknown} do not exist; choose from {', '.join(names)}"
            )
        self._step = 0
        self._rewired = [
            p
            for p in net.projections
            if p.synapses.mask is not None and p.synapses.is_trainable and (p.name in (self.projections or names))
        ]
        if not self._rewired:
            raise ValueError(
                f"{type(self).__name__} moves the synapses of a mask, but no projection that is learned has one; set a "
                "mask first: mask=rigl mask.fan_in=..., or net.set_mask(projection, mask)"
            )
        self._places = [names.index(projection.name) for projection in self._rewired]
        self._check_rows(net)

    def _check_rows(self, net: Network) -> None:
        device = device_of(net)
        plan = None if device is None else device.plan
        placed = {} if plan is None else {p.name: p for p in plan.circuit.projections}
        for incoming in self._rewired:
            shared = None if incoming.name not in placed else placed[incoming.name].signed_inputs
            if shared is None:
                continue
            ends: dict[int, int] = {}
            rows = self.rows or len(shared)
            if any(ends.setdefault(end, source % rows) != source % rows for source, end in enumerate(shared)):
                raise ValueError(
                    f"{type(self).__name__}: sources of {incoming.name} share signed inputs of the device, which a "
                    f"moved synapse would break; give mask.rows={plan.capabilities.inputs_per_circuit if plan else 128}"
                )

    def penalty(self, activity: Activity, weights: list[Tensor]) -> Tensor:
        """Return the mean magnitude of the weights of the projections that are rewired, summed."""
        return torch.stack([weights[place].abs().mean() for place in self._places]).sum()

    @torch.no_grad()
    def after_write(self, net: Network, write: Write) -> None:
        """Count the step, and rewire if it is time."""
        self._step += 1
        if self._step % self.interval == 0:
            for incoming in self._rewired:
                self.rewire(net, incoming)

    @abstractmethod
    def rewire(self, net: Network, incoming: Incoming) -> None:
        """Replace synapses of a projection."""

    def _grow(self, incoming: Incoming, survivors: Tensor, scores: Tensor, numbers: Tensor) -> Tensor:
        """Set the mask to survivors and new synapses, and return the new ones, True in `[N, J]`.

        Args:
            incoming: Projection.
            survivors: Synapses that stay, True in `[N, J]`.
            scores: Scores of the absent ones `[N, J]`; survivors are excluded.
            numbers: Number of new synapses of each neuron `[N]`.
        """
        candidates = scores.masked_fill(survivors, -torch.inf)
        if self.rows is not None:
            candidates = best_of_rows(candidates.masked_fill(~free_rows(survivors, self.rows), -torch.inf), self.rows)
        grown = largest(candidates, numbers)
        incoming.synapses.mask = survivors | grown
        return grown

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps."""
        return {"step": self._step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the number of steps."""
        self._step = int(state["step"])


@dataclass
class RigL(Rewiring):
    """Drops the smallest weights, and grows where the gradient is largest (Evci et al. 2020).

    After every `interval` steps each neuron drops a share of its synapses, the smallest, and gets as many absent ones
    with the largest gradients of the loss, summed over these steps. New weights are zero. The share falls as a half
    cosine to 0 at the step `end`.

    Attributes:
        share: Share of the synapses of a neuron that are replaced at first.
        end: Step after which nothing is replaced; None: 75 % of a run, or without an end in `hx.fit`.
    """

    interval: int = 25
    share: float = 0.2
    end: Optional[int] = None  # noqa: UP045

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise ValueError(f"RigL: share={self.share} must be in 0 < x < 1")
        if self.end is not None and self.end < 1:
            raise ValueError(f"RigL: end={self.end} steps must be at least 1")

    def prepare(self, net: Network) -> None:
        """Find the projections, and let them sum up the gradients of absent synapses."""
        super().prepare(net)
        for incoming in self._rewired:
            incoming.synapses.watch_gradient()

    def after_write(self, net: Network, write: Write) -> None:
        """Count the step, and rewire if it is time, until the last step."""
        if self.end is None or self._step < self.end:
            super().after_write(net, write)

    def current_share(self) -> float:
        """Return the share that is replaced now."""
        return self.share if self.end is None else self.share / 2 * (1 + math.cos(math.pi * self._step / self.end))

    def rewire(self, net: Network, incoming: Incoming) -> None:
        """Replace synapses of a projection.

        Raises:
            ValueError: The rule gives no gradients of absent synapses.
        """
        synapses = incoming.synapses
        mask = synapses.mask
        gradient = synapses.gradient_sum
        assert mask is not None
        if gradient is None:
            raise ValueError(
                f"RigL grows synapses by the gradients of absent ones, but the learning rule gave none for "
                f"{incoming.name}; use a rule that differentiates passes, such as rule=backprop, or mask=deep_r"
            )
        fan_in = mask.sum(1)
        dropped = (fan_in * self.current_share()).round().long()
        survivors = largest(synapses.weight.abs().masked_fill(~mask, -torch.inf), fan_in - dropped)
        grown = self._grow(incoming, survivors, gradient.abs(), dropped)
        synapses.weight.masked_fill_(grown & ~mask, 0.0)
        synapses.watch_gradient(self.end is None or self._step < self.end)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps, and the sum of the gradients of each projection; None without any."""
        return {**super().state_dict(), "gradients": [incoming.synapses.gradient_sum for incoming in self._rewired]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: The gradients are those of other projections.
        """
        super().load_state_dict(state)
        for incoming, gradient in zip(self._rewired, state["gradients"], strict=True):
            synapses = incoming.synapses
            if gradient is not None and gradient.shape != synapses.weight.shape:
                raise ValueError(f"the gradients of RigL are not those of {incoming.name}")
            start = None if gradient is None else gradient.to(synapses.weight)
            synapses.watch_gradient(self.end is None or self._step < self.end, start)


@dataclass
class DeepR(Rewiring):
    """Replaces each synapse whose weight changes its sign by a random one (Bellec et al. 2018), without their noise.

    A synapse has a sign, drawn when it appears. The L1 penalty of `strength` drives unused weights to zero, across it,
    and so makes room. New weights are zero; each neuron keeps the number of its synapses.

    Attributes:
        strength: Factor of the L1 penalty, the mean magnitude of the weights that are rewired; 0 without.
        seed: Seed of new synapses and of their signs.
    """

    strength: float = 1e-5
    seed: int = 0

    def prepare(self, net: Network) -> None:
        """Find the projections, and take the signs of their weights."""
        super().prepare(net)
        self._signs = [incoming.synapses.weight.detach().sign().to(torch.int8) for incoming in self._rewired]

    @torch.no_grad()
    def rewire(self, net: Network, incoming: Incoming) -> None:
        """Replace the synapses of a projection whose weights have another sign than at first."""
        number = [projection.name for projection in self._rewired].index(incoming.name)
        synapses = incoming.synapses
        signs = self._signs[number]
        mask = synapses.mask
        assert mask is not None
        weight = synapses.weight
        survivors = mask & (weight * signs >= 0)
        dropped = (mask & ~survivors).sum(1)
        if not bool(dropped.any()):
            return
        random = generator(self.seed, "deep_r", self._step, incoming.name)
        scores = torch.rand(weight.shape, generator=random).to(weight)
        grown = self._grow(incoming, survivors, scores, dropped)
        drawn = torch.randint(0, 2, weight.shape, generator=random).mul_(2).sub_(1).to(signs)
        self._signs[number] = torch.where(grown, drawn, signs)
        weight.masked_fill_(grown, 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps, and the signs of the synapses of each projection."""
        return {**super().state_dict(), "signs": list(self._signs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: The signs are those of other projections.
        """
        super().load_state_dict(state)
        signs = [*state["signs"]]
        if [values.shape for values in signs] != [values.shape for values in self._signs]:
            raise ValueError("the signs of DeepR are of other projections")
        self._signs = [values.to(old) for values, old in zip(signs, self._signs, strict=True)]
