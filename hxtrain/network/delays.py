"""Networks with several delayed terminals per input, whose delays may learn.

Programmable delays of synapses are rare on chips. The host chooses when an input spike is sent, so that a delay of an
input is a shift of its spikes, on any device. Each input is copied to several terminals with weights of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, List  # noqa: UP035 - OmegaConf resolves these on every Python

import torch
from torch import Tensor, nn

from hxtrain.backends import Spikes

from .activity import Activity
from .config import NetworkConfig
from .network import Network


class DelayedNetwork(Network):
    """A network whose input spikes reach several terminals, each after a delay.

    Terminal `k` of input n of J is input `k J + n` of the first projection.

    Args:
        modules: Modules as in `Network`; the first projection has one input per terminal.
        delays: Delay of each terminal of an input at the start (s).
        learned: Whether delays are parameters; a rule that knows spike times gives them a gradient.
        unit: Unit of the parameters (s), so that one learning rate suits them and the weights.
        settings: Settings of `Network`.

    Attributes:
        copies: Number of terminals of each input `K`.
        delays: Delay of each terminal of each input, in units of `unit`, `[K J]`; negative ones act as 0.
    """

    def __init__(
        self, *modules: nn.Module, delays: Sequence[float], learned: bool = False, unit: float = 6e-6, **settings: Any
    ) -> None:
        super().__init__(*modules, **settings)
        terminals = self.layers[0].linear.inputs
        if not delays or terminals % len(delays) or not all(0 <= delay < math.inf for delay in delays):
            raise ValueError(
                f"delays: {len(delays)} terminals per input for {terminals} inputs of the first projection; give at "
                "least one finite delay >= 0 s, and a multiple of their number as inputs"
            )
        values = torch.tensor(delays).repeat_interleave(terminals // len(delays)) / unit
        self.copies = len(delays)
        self.unit = unit
        self.delays = nn.Parameter(values.to(self.layers[0].linear.weight.dtype), requires_grad=learned)

    def arrivals(self, spikes: Spikes) -> Spikes:
        """Return the spikes of all terminals, with times in the graph of the delays.

        Raises:
            ValueError: The number of inputs does not match.
        """
        terminals = len(self.delays)
        if not spikes.units or terminals % spikes.units:
            raise ValueError(f"spikes have {spikes.units} inputs, but {terminals} terminals are no multiple of that")
        copies = terminals // spikes.units
        delays = self.delays + (self.delays.clamp(min=0) - self.delays).detach()
        unit = spikes.unit[:, None] + torch.arange(copies, device=spikes.unit.device) * spikes.units
        time = spikes.time[:, None] + (self.unit * delays)[unit].to(spikes.time)
        sample = spikes.sample.repeat_interleave(copies)
        return Spikes.trusted(sample, unit.flatten(), time.flatten(), spikes.samples, terminals)

    def _pass(self, spikes: Spikes, masks: list[Tensor | None] | None) -> Activity:
        if isinstance(spikes, Spikes):
            with torch.no_grad():
                spikes = self.arrivals(spikes.to(self.torch_device))
        return super()._pass(spikes, masks)


@dataclass
class DelayedNetworkConfig(NetworkConfig):
    """A network with delayed terminals of its inputs, see `DelayedNetwork`; `NetworkConfig` has the other attributes.

    Attributes:
        delays: Delay of each terminal of an input at the start (s); the published ones are as many milliseconds.
        learned_delays: Whether delays learn; they do with rules of spike times, such as `rule=spikeprop`.
        delay_unit: Unit of the delays that learn (s): the learning rate is in this unit per step.
    """

    delays: List[float] = field(default_factory=lambda: [k * 1e-6 for k in range(1, 17)])  # noqa: UP006
    learned_delays: bool = True
    delay_unit: float = 6e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.delays or not all(0 <= delay < math.inf for delay in self.delays):
            raise ValueError(f"network.delays={self.delays}: give at least one finite delay >= 0 s")
        if not 0 < self.delay_unit < math.inf:
            raise ValueError(f"network.delay_unit={self.delay_unit} s must be positive and finite")

    def build(self, inputs: int, classes: int, seed: int) -> Network:
        """Return the network with weights drawn from `seed`; see `Architecture.build` for the arguments."""
        modules = self.modules(inputs * len(self.delays), classes)
        return DelayedNetwork(
            *modules,
            delays=self.delays,
            learned=self.learned_delays,
            unit=self.delay_unit,
            seed=seed,
            **self.options(),
        )
