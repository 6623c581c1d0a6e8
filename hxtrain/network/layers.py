"""Modules of a network: projections, populations and dropout, and the layers that `chain` makes of them.

Shape letters: `N` neurons, the targets of a projection; `J` sources.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from hxtrain.backends.intake import as_tensor
from hxtrain.backends.spikes import Data
from hxtrain.checks import Constants, Rule, count, flag, not_negative, number, one_of, optional, positive
from hxtrain.gradients.gradient import AT_SPIKE
from hxtrain.neurons import Surrogate, get_surrogate


class Synapses(Constants):
    """Common part of projections: all-to-all synapses without bias.

    Initial weights are normally distributed with mean `mean` and standard deviation
    `gain (1 - exp(-dt / tau_mem)) / sqrt(inputs)`, which depends on the target neurons: weights are drawn when a
    network is made, and are NaN until then. Values that are set earlier stay.

    A projection that is not learned keeps its drawn or set values: no gradient reaches its weights. A mask removes
    synapses: their effective weights and their gradients are zero, whatever `weight` holds for them.

    Args:
        inputs: number of sources.
        outputs: number of targets.
        mean: mean of the initial weights.
        gain: factor of the standard deviation of the initial weights.
        autoscale: whether integer weights are scaled so that the largest just fits (published for the readout),
            instead of at a fixed scale at which larger weights are clipped.
        scale: integer weight per unit of float weight; None: derived from the device's synaptic strength.
        max_scale: limit of an automatic scale.
        learned: whether training changes the weights.
        mask: existing synapses, True or 1 in `[N, J]`; all others are absent. None: all exist.
    """

    weight: Tensor
    mask: Tensor | None
    RULES: ClassVar[Mapping[str, Rule]] = {
        "inputs": count,
        "outputs": count,
        "mean": number,
        "gain": not_negative,
        "autoscale": flag,
        "scale": optional(positive),
        "max_scale": positive,
        "learned": flag,
    }

    def __init__(
        self,
        inputs: int,
        outputs: int,
        mean: float,
        gain: float,
        autoscale: bool,
        scale: float | None,
        max_scale: float,
        learned: bool,
        mask: Data | None,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.outputs = outputs
        self.mean = mean
        self.gain = gain
        self.autoscale = autoscale
        self.scale = scale
        self.max_scale = max_scale
        self.weight = nn.Parameter(torch.full((self.outputs, self.inputs), torch.nan))
        self.learned = learned
        self.register_buffer("mask", None)
        self.mask = mask
        self._gradient_sum: Tensor | None = None
        self._watches_gradient = False
        self._drawn = False

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a mask is checked, and the weights of a fixed projection require no gradient.

        Raises:
            TypeError: the mask does not consist of numbers.
            ValueError: the value breaks a constant's rule, or the mask has another shape or other values than 0 and 1.
        """
        super().__setattr__(name, self._checked_mask(value) if name == "mask" else value)
        if name == "learned" and "weight" in self._parameters:
            self.weight.requires_grad_(self.learned)

    def _checked_mask(self, mask: Data | None) -> Tensor | None:
        """Return a mask as truth values `[N, J]` on the accelerator of the weights."""
        if mask is None:
            return None
        label = f"{type(self).__name__}: mask"
        values = as_tensor(mask, label)
        if tuple(values.shape) != (self.outputs, self.inputs):
            raise ValueError(
                f"{label} has the shape {tuple(values.shape)}, expected (targets, sources) = "
                f"{(self.outputs, self.inputs)}"
            )
        if not bool(((values == 0) | (values == 1)).all()):
            raise ValueError(f"{label} has other values than 0 and 1; give 1 (True) for each synapse that exists")
        return values.to(self.weight.device, torch.bool, copy=True)

    def extra_repr(self) -> str:
        """Describe sizes, initial weights, and what is fixed or absent."""
        return f"{self.inputs}, {self.outputs}, mean={self.mean:g}, gain={self.gain:g}{self._restrictions()}"

    def _restrictions(self) -> str:
        """Return a text that says whether the weights are fixed, and how many synapses a mask leaves."""
        fixed = "" if self.learned else ", learned=False"
        if self.mask is None or self.mask.is_meta:
            return fixed
        return f"{fixed}, mask={int(self.mask.sum())} of {self.mask.numel()} synapses"

    @property
    def is_trainable(self) -> bool:
        """Whether gradients reach the weights: the projection is learned, and its weights are not frozen in torch."""
        return self.learned and self.weight.requires_grad

    @property
    def effective_weight(self) -> Tensor:
        """Weights in effect `[N, J]`, in the graph if they are learned; those of absent synapses are zero."""
        weight = self.weight if self.learned else self.weight.detach()
        mask = self._buffers["mask"]  # in every pass
        if mask is None:
            return weight
        effective = torch.where(mask, weight, 0.0)
        if self._watches_gradient and effective.requires_grad:
            effective.register_hook(self._add_gradient)  # type: ignore[no-untyped-call]
        return effective

    def watch_gradient(self, watches: bool = True, start: Tensor | None = None) -> None:
        """Sum up in `gradient_sum` what autograd gives for all synapses, absent ones too, from now on.

        Args:
            watches: whether to sum up; the sum so far is forgotten in any case.
            start: sum to begin with `[N, J]`; None for none.
        """
        self._watches_gradient = watches
        self._gradient_sum = start

    @property
    def gradient_sum(self) -> Tensor | None:
        """Sum of the gradients of all synapses `[N, J]` since `watch_gradient`; None without any."""
        return self._gradient_sum

    def _add_gradient(self, gradient: Tensor) -> None:
        total = self._gradient_sum
        self._gradient_sum = gradient.detach() if total is None else total + gradient.detach()

    @torch.no_grad()
    def apply_mask(self) -> None:
        """Set the weights of absent synapses to zero in `weight` itself; effective weights are the same without it."""
        if self.mask is not None:
            self.weight.masked_fill_(~self.mask, 0.0)

    @property
    def lacks_values(self) -> bool:
        """Whether some weights have neither been drawn nor set."""
        return not self._drawn and bool(self.weight.isnan().any())

    def draw(self, leakage: float, generator: torch.Generator) -> None:
        """Draw the weights that have no values.

        The generator advances equally whether or not weights have values, so other projections do not depend on it.

        Args:
            leakage: `1 - exp(-dt / tau_mem)` of the targets.
            generator: source of the weights.
        """
        noise = torch.randn(self.weight.shape, generator=generator, device=generator.device)
        if self.weight.is_meta:  # the values are loaded later
            return
        drawn = (self.mean + self.gain * leakage / math.sqrt(self.inputs) * noise).to(self.weight)
        with torch.no_grad():
            if self.lacks_values:
                self.weight.copy_(torch.where(self.weight.isnan(), drawn, self.weight))
        self._drawn = True

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        self._drawn = self._drawn or f"{prefix}weight" in state_dict
        if f"{prefix}mask" in state_dict:
            self.mask = state_dict[f"{prefix}mask"]
        super()._load_from_state_dict(state_dict, prefix, *arguments)


class Linear(Synapses):
    """Synapses from the inputs or the previous population; see `Synapses`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        mean: float = 0.0,
        gain: float = 0.7,
        autoscale: bool = False,
        scale: float | None = None,
        max_scale: float = 250.0,
        learned: bool = True,
        mask: Data | None = None,
    ) -> None:
        super().__init__(inputs, outputs, mean, gain, autoscale, scale, max_scale, learned, mask)


class Recurrent(Synapses):
    """Synapses of the previous module's `size` LIF neurons onto themselves; see `Synapses`.

    A population's membrane has one unit, so `autoscale` and the limit of an automatic scale must be the same as in
    the `Linear` onto the population; both then share one automatic scale.
    """

    def __init__(
        self,
        size: int,
        mean: float = 0.0,
        gain: float = 0.7,
        autoscale: bool = False,
        scale: float | None = None,
        max_scale: float = 250.0,
        learned: bool = True,
        mask: Data | None = None,
    ) -> None:
        size = count(f"{type(self).__name__}: size", size)
        super().__init__(size, size, mean, gain, autoscale, scale, max_scale, learned, mask)

    @property
    def size(self) -> int:
        """Number of neurons."""
        return self.inputs


def fixed(label: str, value: Any) -> bool:
    """Return False, the only value of `learned` of a projection whose weights are fixed by its kind."""
    if flag(label, value):
        raise ValueError(
            f"{label}=True, but its weights follow from its strength; for weights that learn use Recurrent"
        )
    return False


class LateralInhibition(Recurrent):
    """Fixed synapses by which each of the previous module's `size` LIF neurons inhibits all others.

    The weights are `-strength` off the diagonal and 0 on it, so that the first neurons to fire silence the others (a
    soft winner-take-all). They follow from `strength`, and are neither drawn nor part of a `state_dict`. A mask
    restricts the inhibition, for example to groups of neurons. A population has one projection onto itself: either
    `LateralInhibition` or a `Recurrent`, whose weights can learn to inhibit, too.

    Args:
        size: number of neurons.
        strength: weight of the inhibition, in units of the threshold.
        autoscale: as in `Recurrent`.
        scale: as in `Synapses`.
        max_scale: as in `Recurrent`.
        mask: as in `Synapses`.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {**Recurrent.RULES, "strength": positive, "learned": fixed}

    def __init__(
        self,
        size: int,
        strength: float = 0.2,
        autoscale: bool = False,
        scale: float | None = None,
        max_scale: float = 250.0,
        mask: Data | None = None,
    ) -> None:
        super().__init__(size, 0.0, 0.0, autoscale, scale, max_scale, learned=False, mask=mask)
        del self.weight
        self.register_buffer("weight", torch.eye(self.outputs), persistent=False)
        self.strength = strength

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; the weights follow the strength."""
        super().__setattr__(name, value)
        if name == "strength":
            self.weight.fill_(-self.strength).fill_diagonal_(0.0)

    def extra_repr(self) -> str:
        """Describe size and strength."""
        restrictions = "" if self.mask is None else self._restrictions().removeprefix(", learned=False")
        return f"{self.outputs}, strength={self.strength:g}{restrictions}"

    def draw(self, leakage: float, generator: torch.Generator) -> None:
        """Leave weights and generator as they are: other projections get the same weights as without inhibition."""

    def apply_mask(self) -> None:
        """Leave the weights as they are: they follow the strength, also once the mask is lifted."""


def surrogate_or_name(label: str, value: Any) -> str | Surrogate:
    """Return a surrogate derivative or its name, after a check."""
    get_surrogate(value)
    surrogate: str | Surrogate = value
    return surrogate


def share(label: str, value: Any) -> float:
    """Return a share below 1."""
    result = number(label, value)
    if not 0 <= result < 1:
        raise ValueError(f"{label}={value} must be in 0 <= x < 1")
    return result


class _Neurons(Constants):
    """Common part of populations."""

    RULES: ClassVar[Mapping[str, Rule]] = {"size": count, "tau_mem": positive, "tau_syn": positive}
    spiking = False

    def __init__(self, size: int, tau_mem: float, tau_syn: float) -> None:
        super().__init__()
        self.size = size
        self.tau_mem = tau_mem
        self.tau_syn = tau_syn

    def extra_repr(self) -> str:
        """Describe size and time constants."""
        return f"{self.size}, tau_mem={self.tau_mem:g} s, tau_syn={self.tau_syn:g} s"


class LIF(_Neurons):
    """Leaky integrate-and-fire neurons with exponential synapses: a hidden population, or a spiking output.

    Args:
        size: number of neurons.
        tau_mem: time constant of the membranes (s).
        tau_syn: time constant of the synaptic currents (s).
        surrogate: derivative of the spike: a name in `hxtrain.neurons.SURROGATES`, or a function of (distance from
            the threshold, slope). A `state_dict` does not hold the function, nor other constants: a network that loads
            a `state_dict` must be built with the same function. Functions run in torch, not in the compiled loops.
        slope: inverse width of the derivative.
        at_spike: membrane that the derivative sees in a bin with a spike: `threshold` (its value at the spike), or
            `trace` (the sample of the bin, as published).
        refractory: refractory period (s): after a spike the membrane is held at the reset potential for this time, on a
            device and in software; 0: it is reset and not held. None: on a device, the period that the device suggests;
            in software, a soft reset, which subtracts the threshold, and no refractory period (decision 0023).
    """

    RULES: ClassVar[Mapping[str, Rule]] = {
        **_Neurons.RULES,
        "surrogate": surrogate_or_name,
        "slope": positive,
        "at_spike": one_of(AT_SPIKE),
        "refractory": optional(not_negative),
    }
    spiking = True

    def __init__(
        self,
        size: int,
        tau_mem: float = 6e-6,
        tau_syn: float = 6e-6,
        surrogate: str | Surrogate = "superspike",
        slope: float = 10.0,
        at_spike: str = "threshold",
        refractory: float | None = None,
    ) -> None:
        super().__init__(size, tau_mem, tau_syn)
        self.surrogate = surrogate
        self.slope = slope
        self.at_spike = at_spike
        self.refractory = refractory

    def extra_repr(self) -> str:
        """Describe size, time constants and, if it is set, the refractory period."""
        period = "" if self.refractory is None else f", refractory={self.refractory:g} s"
        return f"{super().extra_repr()}{period}"


class LI(_Neurons):
    """Leaky integrators without spikes: a readout, whose membranes are the output.

    Args:
        size: number of neurons.
        tau_mem: time constant of the membranes (s).
        tau_syn: time constant of the synaptic currents (s).
    """

    def __init__(self, size: int, tau_mem: float = 6e-6, tau_syn: float = 6e-6) -> None:
        super().__init__(size, tau_mem, tau_syn)


class Dropout(Constants):
    """Silences neurons of the previous population for a whole batch, in passes that get masks.

    `net(spikes, net.dropout_masks(generator))` drops neurons, `net(spikes)` does not; there is no mode to set.

    On a chip, all synapses onto a silenced neuron, recurrent ones included, are written as zero. The other
    neurons are not scaled up: the chip's weights have no headroom, and the readout's maximum over
    time decides by rank.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {"p": share}

    def __init__(self, p: float = 0.4) -> None:
        super().__init__()
        self.p = p

    def extra_repr(self) -> str:
        """Describe the share."""
        return f"p={self.p:g}"


class Incoming(NamedTuple):
    """A projection onto a layer: names of source and target, and its synapses."""

    pre: str
    post: str
    synapses: Synapses

    @property
    def name(self) -> str:
        """Return the projection's name."""
        return f"{self.pre}->{self.post}"


class Layer(NamedTuple):
    """A population with the projections onto it; `source` is the name of the upstream population or of the input."""

    name: str
    source: str
    linear: Linear
    neurons: LIF | LI
    recurrent: Recurrent | None
    dropping: Dropout | None

    @property
    def dropout(self) -> float:
        """Share of the neurons silenced per batch."""
        return 0.0 if self.dropping is None else self.dropping.p

    @property
    def projections(self) -> list[Incoming]:
        """Return the feed-forward projection, then the recurrent one, if any."""
        forward = Incoming(self.source, self.name, self.linear)
        return [forward] if self.recurrent is None else [forward, Incoming(self.name, self.name, self.recurrent)]
