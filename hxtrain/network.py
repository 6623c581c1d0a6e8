"""Networks: linear projections, spiking populations, recurrent or not, and a leaky-integrator readout.

    net = Network(Linear(256, 246), LIF(246), Linear(246, 10), LI(10))
    activity = net(spikes)          # in software: the twin
    net.attach(device)
    activity = net(spikes)          # the same on a chip

Weights are floats on the host (threshold - leak = 1); shape letters: `T` time steps, `B` samples,
`N` neurons.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from hxtrain.backends import INPUT, DeviceError, Spikes

from .activity import Activity, LayerActivity
from .arrival import InputWatch
from .learning import GridEvents, Model, Surrogate, decay, get_surrogate, measured_layers, psp_matrix
from .twin import simulate

if TYPE_CHECKING:
    from .device import Device
    from .placement import Plan

M = TypeVar("M", bound=nn.Module)
TRACES = ("measured", "spikes_only")
"""Where the membranes of hidden layers come from that gradients see, see `Network`."""
GRAMMAR = "expected Linear, LIF, [Recurrent,] [Dropout,] ..., Linear, LI"


class Synapses(nn.Module):
    """Common part of projections: all-to-all synapses without bias.

    Weights start normal with the given mean and a standard deviation of
    `gain (1 - exp(-dt / tau_mem)) / sqrt(inputs)`.

    Args:
        inputs, outputs: number of sources and targets.
        mean, gain: of the initial weights.
        autoscale: scale the integer weights so that the largest just fits (published for the
            readout), instead of at a fixed scale at which larger weights are clipped.
        scale: integer weight per unit of float weight; None: follow from the device's synaptic strength.
        max_scale: limit of an automatic scale.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        mean: float,
        gain: float,
        autoscale: bool,
        scale: float | None,
        max_scale: float,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        _check_positive(owner, max_scale=max_scale)
        if scale is not None:
            _check_positive(owner, scale=scale)
        self.inputs, self.outputs, self.mean, self.gain = inputs, outputs, mean, gain
        self.autoscale, self.scale, self.max_scale = autoscale, scale, max_scale
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))

    def extra_repr(self) -> str:
        """Describe sizes and initial weights."""
        return f"{self.inputs}, {self.outputs}, mean={self.mean:g}, gain={self.gain:g}"

    def reset_parameters(self, leakage: float, generator: torch.Generator) -> None:
        """Draw the initial weights; `leakage` is `1 - exp(-dt / tau_mem)` of the targets."""
        noise = torch.randn(self.weight.shape, generator=generator)
        with torch.no_grad():
            self.weight.copy_(self.mean + self.gain * leakage / math.sqrt(self.inputs) * noise)


class Linear(Synapses):
    """Synapses from the inputs, or from the population before; see `Synapses`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        mean: float = 0.0,
        gain: float = 0.7,
        autoscale: bool = False,
        scale: float | None = None,
        max_scale: float = 250.0,
    ) -> None:
        _check_positive("Linear", inputs=inputs, outputs=outputs)
        super().__init__(inputs, outputs, mean, gain, autoscale, scale, max_scale)


class Recurrent(Synapses):
    """Synapses of the `size` neurons of the LIF population before it onto themselves; see `Synapses`.

    A population's membrane has one unit, so `autoscale` and an automatic scale's limit must be those of
    the `Linear` onto it; both then share one automatic scale.
    """

    def __init__(
        self,
        size: int,
        mean: float = 0.0,
        gain: float = 0.7,
        autoscale: bool = False,
        scale: float | None = None,
        max_scale: float = 250.0,
    ) -> None:
        _check_positive("Recurrent", size=size)
        super().__init__(size, size, mean, gain, autoscale, scale, max_scale)


class _Neurons(nn.Module):
    """Common part of populations."""

    spiking = False

    def __init__(self, size: int, tau_mem: float, tau_syn: float) -> None:
        super().__init__()
        _check_positive(type(self).__name__, size=size, tau_mem=tau_mem, tau_syn=tau_syn)
        self.size, self.tau_mem, self.tau_syn = size, tau_mem, tau_syn

    def extra_repr(self) -> str:
        """Describe size and time constants."""
        return f"{self.size}, tau_mem={self.tau_mem:g} s, tau_syn={self.tau_syn:g} s"


class LIF(_Neurons):
    """Leaky integrate-and-fire neurons with exponential synapses.

    Args:
        size: number of neurons.
        tau_mem, tau_syn: time constants of membrane and synapses (s).
        surrogate: derivative of the spike, by a name in `hxtrain.learning.SURROGATES`, or a function like those there.
        slope: its inverse width.
        at_spike: membrane that the derivative sees in a bin with a spike: `threshold` (where it was at
            the spike), or `trace` (the bin's sample, as published).
    """

    spiking = True

    def __init__(
        self,
        size: int,
        tau_mem: float = 6e-6,
        tau_syn: float = 6e-6,
        surrogate: str | Surrogate = "superspike",
        slope: float = 10.0,
        at_spike: str = "threshold",
    ) -> None:
        super().__init__(size, tau_mem, tau_syn)
        _check_positive("LIF", slope=slope)
        get_surrogate(surrogate)
        if at_spike not in ("threshold", "trace"):
            raise ValueError(f"at_spike={at_spike!r} is not known; choose 'threshold' or 'trace'")
        self.surrogate, self.slope, self.at_spike = surrogate, slope, at_spike


class LI(_Neurons):
    """Leaky integrators without spikes: a readout.

    Args:
        size: number of neurons.
        tau_mem, tau_syn: time constants of membrane and synapses (s).
    """

    def __init__(self, size: int, tau_mem: float = 6e-6, tau_syn: float = 6e-6) -> None:
        super().__init__(size, tau_mem, tau_syn)


class Dropout(nn.Module):
    """Silence neurons of the population before it for a whole batch, where masks are given to the pass.

    `net(spikes, net.dropout_masks(generator))` drops, `net(spikes)` does not; there is no mode to forget.

    On a chip, all synapses onto a silenced neuron, recurrent ones included, are written as zero. Kept
    neurons are not scaled up: the chip's weights have no headroom, and the readout's maximum over
    time decides by rank.
    """

    def __init__(self, p: float = 0.4) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout p={p} must be in 0 <= p < 1")
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
    """A population with the projections onto it; `source` names what is before it."""

    name: str
    source: str
    linear: Linear
    neurons: LIF | LI
    recurrent: Recurrent | None
    dropout: float

    @property
    def projections(self) -> list[Incoming]:
        """Return the feed-forward projection, then the recurrent one, if any."""
        found = [Incoming(self.source, self.name, self.linear)]
        return found if self.recurrent is None else [*found, Incoming(self.name, self.name, self.recurrent)]


class Network(nn.Module):
    """A spiking network: a chain of layers, each of which may project onto itself.

    Args:
        modules: `Linear, LIF, [Recurrent,] [Dropout,] ..., Linear, LI`.
        dt: width of a time step, the device's trace interval (s).
        steps: number of time steps `T`.
        seed: seed of the initial weights.
        weight_bits: resolution of the magnitude of integer weights (bits, the sign aside); None: the device's.
        trace_bits: resolution of membranes (bits); None: the device's.
        traces: membranes of hidden layers: `measured`, or `spikes_only`, the model's response to the measured spikes
            (in software, whose membranes are the model's, both are one).
        saturation: current at which a synaptic input of the device saturates (weight LSB, `hxtrain-fit` measures it),
            which gradients then take into account; None: they take synapses to be linear (decision 0010).

    The last four take effect when the network runs on a device.

    Attributes:
        device: what it is attached to; None: it runs in software, as its twin.
        in_software: run in software although attached; the device's limits of weights stay in force.
        input_watch: warns once, in the log, if most input events lie after the window, or there are none.

    Raises:
        ValueError: the modules do not form such a chain, or sizes do not match.
    """

    def __init__(
        self,
        *modules: nn.Module,
        dt: float = 1.7e-6,
        steps: int = 20,
        seed: int = 0,
        weight_bits: int | None = None,
        trace_bits: int | None = None,
        traces: str = "measured",
        saturation: float | None = None,
    ) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], list | tuple | nn.ModuleList | nn.Sequential):
            raise TypeError(
                f"Network takes its modules one by one; give Network(*modules), not a {type(modules[0]).__name__}"
            )
        given = {"weight_bits": weight_bits, "trace_bits": trace_bits, "saturation": saturation}
        _check_positive("Network", dt=dt, steps=steps, **{k: v for k, v in given.items() if v is not None})
        if traces not in TRACES:
            raise ValueError(f"Network: traces={traces!r} is not known; choose one of {', '.join(TRACES)}")
        self.dt, self.steps = dt, steps
        self.weight_bits, self.trace_bits, self.traces = weight_bits, trace_bits, traces
        self.saturation = saturation
        self.stack = nn.ModuleList(modules)
        self.layers = _pair(list(modules))
        if saturation is not None and any(layer.recurrent for layer in self.layers):
            raise ValueError(
                f"Network: saturation={saturation} is not known to gradients of recurrent layers; leave it out"
            )
        self.device: Device | None = None
        self.in_software = False
        self.input_watch = InputWatch()
        self._plan: Plan | None = None
        generator = torch.Generator().manual_seed(seed)
        for layer in self.layers:
            for projection in layer.projections:
                projection.synapses.reset_parameters(1 - decay(dt, layer.neurons.tau_mem), generator)

    @property
    def projections(self) -> list[Incoming]:
        """All projections in the order in which weights are listed everywhere."""
        return [projection for layer in self.layers for projection in layer.projections]

    @property
    def torch_device(self) -> torch.device:
        """Where the weights are, and the host's maths is done."""
        return self.layers[0].linear.weight.device

    def attach(self, device: Device | None) -> None:
        """Run on `device` from now on, after placing the network on it; None: in software."""
        self._plan = None if device is None else device.place(self)
        self.device = device

    def extra_repr(self) -> str:
        """Describe the time grid."""
        return f"dt={self.dt:.3g} s, steps={self.steps}"

    def decays(self, layer: Layer) -> tuple[float, float]:
        """Return the factors by which the layer's synaptic currents and membranes decay in a step."""
        return decay(self.dt, layer.neurons.tau_syn), decay(self.dt, layer.neurons.tau_mem)

    def model(self, layer: Layer) -> Model:
        """Return the model of a layer, through which its gradient runs."""
        neurons, decays = layer.neurons, self.decays(layer)
        if not isinstance(neurons, LIF):
            return Model(*decays)
        return Model(*decays, get_surrogate(neurons.surrogate), neurons.slope, neurons.at_spike == "threshold")

    def psp(self, layer: Layer) -> Tensor:
        """Return the layer's post-synaptic potential as a matrix `[T, T]`."""
        weight = layer.linear.weight
        return psp_matrix(self.steps, *self.decays(layer), weight.dtype, weight.device)

    def dropout_masks(self, generator: torch.Generator) -> list[Tensor | None]:
        """Draw one mask of kept neurons `[N]` per layer; None where nothing is dropped."""
        masks: list[Tensor | None] = []
        for layer in self.layers:
            keep = torch.rand(layer.neurons.size, generator=generator) >= layer.dropout if layer.dropout else None
            masks.append(None if keep is None else keep.to(layer.linear.weight))
        return masks

    def silenced_masks(self, share: float, generator: torch.Generator) -> list[Tensor | None]:
        """Draw one mask of kept neurons `[N]` per hidden layer, and None for the readout.

        Of each hidden layer `round(share N)` neurons are silent; those of a smaller share are among them.
        """
        masks: list[Tensor | None] = []
        for layer in self.layers:
            size, mask = layer.neurons.size, None
            if layer.neurons.spiking:
                mask = torch.ones(size)
                mask[torch.randperm(size, generator=generator)[: round(share * size)]] = 0
            masks.append(None if mask is None else mask.to(layer.linear.weight))
        return masks

    def check_software(self) -> None:
        """Refuse options that need a device.

        Raises:
            ValueError: weights or membranes are to have fewer bits.
        """
        found = {"weight_bits": self.weight_bits, "trace_bits": self.trace_bits}
        bad = [f"network.{name}={value}" for name, value in found.items() if value is not None]
        if bad:
            raise ValueError(
                f"{' and '.join(bad)}: in software (backend=software) weights and membranes are floats; choose a "
                "device, or leave this out (hxtrain-evaluate: weight_bits=0, trace_bits=0)"
            )

    def forward(self, spikes: Spikes, masks: list[Tensor | None] | None = None) -> Activity:
        """Run a batch.

        Args:
            spikes: input events of `B` samples.
            masks: kept neurons of each layer, from `dropout_masks` or `silenced_masks`; None keeps all.

        Raises:
            TypeError: the input is something else than `Spikes`.
            ValueError: the number of inputs does not match, or an option needs a device.
            DeviceError: a run failed, or another network has been placed on the device.
        """
        first = self.layers[0].linear
        if not isinstance(spikes, Spikes):
            raise TypeError(_no_spikes(spikes))
        if spikes.units != first.inputs:
            raise ValueError(f"spikes have {spikes.units} inputs, the network's first projection {first.inputs}")
        if self.device is not None and self.device.plan is not self._plan:
            raise DeviceError("another network was placed on this device since; call net.attach(device) again")
        if self.device is None:
            self.check_software()
        device = None if self.in_software else self.device
        weights = self.effective_weights(masks)
        spikes = spikes.to(self.torch_device)
        events = GridEvents(spikes, self.dt, self.steps)
        graph = torch.is_grad_enabled()
        with torch.no_grad():
            if device is None:
                found = Activity(simulate(self, weights, events, graph))
            else:
                found = device.run(weights, spikes, events)
        self.input_watch.look(events)
        found.inputs = events
        if not graph:
            return found
        models = [self.model(layer) for layer in self.layers]
        if device is not None and self.saturation is not None:
            found_out = zip(models, device.saturations(self.saturation), strict=True)
            models = [model._replace(saturation=saturation) for model, saturation in found_out]
        return Activity(self._inject(weights, events, found.layers, models), found.cost, found.health, events)

    def effective_weights(self, masks: list[Tensor | None] | None = None) -> list[Tensor]:
        """Return the float weights of each projection, rows of dropped neurons zero."""
        kept: list[Tensor | None] = [None] * len(self.layers) if masks is None else masks
        if masks is not None:
            self._check_masks(masks)
        return [
            p.synapses.weight if mask is None else p.synapses.weight * mask[:, None]
            for layer, mask in zip(self.layers, kept, strict=True)
            for p in layer.projections
        ]

    def _check_masks(self, masks: list[Tensor | None]) -> None:
        sizes = [layer.neurons.size for layer in self.layers]
        if len(masks) != len(sizes) or any(
            mask is not None and not (isinstance(mask, Tensor) and tuple(mask.shape) == (size,))
            for mask, size in zip(masks, sizes, strict=True)
        ):
            raise ValueError(
                f"masks: expected one tensor [N] or None for each layer, N = {', '.join(map(str, sizes))}; make them "
                "with net.dropout_masks or net.silenced_masks"
            )

    def by_layer(self, weights: list[Tensor]) -> list[list[Tensor]]:
        """Group the weights of each projection by layer: feed-forward and, if there are, recurrent ones."""
        rest = iter(weights)
        return [list(islice(rest, len(layer.projections))) for layer in self.layers]

    def _inject(
        self, weights: list[Tensor], events: GridEvents, found: list[LayerActivity], models: list[Model]
    ) -> list[LayerActivity]:
        pairs = [(weight, own[0] if own else None) for weight, *own in self.by_layer(weights)]
        return measured_layers(pairs, events, found, models)


def _pair(modules: list[nn.Module]) -> list[Layer]:
    """Group modules to layers and check the chain."""
    layers: list[Layer] = []
    queue = list(modules)
    while queue:
        linear = queue.pop(0)
        neurons = queue.pop(0) if queue else None
        if not isinstance(linear, Linear) or not isinstance(neurons, LIF | LI):
            found = ", ".join(type(m).__name__ for m in modules)
            raise ValueError(f"network is {found or 'empty'}; {GRAMMAR}")
        recurrent, dropout = _take(queue, Recurrent), _take(queue, Dropout)
        source = layers[-1].name if layers else INPUT
        rate = 0.0 if dropout is None else dropout.p
        layers.append(Layer(f"layer{len(layers)}", source, linear, neurons, recurrent, rate))
    if not layers or not isinstance(layers[-1].neurons, LI) or layers[-1].dropout:
        raise ValueError(f"the last population must be a readout LI without dropout; {GRAMMAR}")
    previous = layers[0].linear.inputs
    for layer in layers:
        if layer.linear.inputs != previous or layer.linear.outputs != layer.neurons.size:
            raise ValueError(
                f"{layer.name} is Linear({layer.linear.inputs}, {layer.linear.outputs}) onto {layer.neurons.size} "
                f"neurons behind {previous} units; sizes must match"
            )
        if layer is not layers[-1] and not isinstance(layer.neurons, LIF):
            raise ValueError(f"{layer.name} is a readout LI in the middle of the network; {GRAMMAR}")
        if layer.recurrent is not None:
            _check_recurrent(layer, layer.recurrent)
        previous = layer.neurons.size
    return layers


def _no_spikes(values: object) -> str:
    """Return the error for what a network takes for its input, but is none."""
    shape = getattr(values, "shape", None)
    described = type(values).__name__ + ("" if shape is None else f" {list(shape)}")
    return (
        f"expected Spikes, got {described}; give net(encode(images)), or of a grid of spikes [T, B, N]: "
        "net(Spikes.from_grid(grid, net.dt))"
    )


def _take(queue: list[nn.Module], kind: type[M]) -> M | None:
    """Take the first module out of the queue if it is of this kind."""
    head = queue[0] if queue else None
    if not isinstance(head, kind):
        return None
    del queue[0]
    return head


def _check_recurrent(layer: Layer, recurrent: Recurrent) -> None:
    if not layer.neurons.spiking:
        raise ValueError(f"{layer.name} is a readout LI, which has no spikes to feed back; {GRAMMAR}")
    if recurrent.inputs != layer.neurons.size:
        raise ValueError(f"{layer.name} is Recurrent({recurrent.inputs}) on {layer.neurons.size} neurons; use its size")
    automatic = {(s.autoscale, s.max_scale if s.autoscale else None) for s in (layer.linear, recurrent)}
    if len(automatic) > 1:
        raise ValueError(
            f"{layer.name}: Linear(autoscale={layer.linear.autoscale}, max_scale={layer.linear.max_scale}) and "
            f"Recurrent(autoscale={recurrent.autoscale}, max_scale={recurrent.max_scale}) differ, but a population "
            "has one unit of membrane; give both the same"
        )


def _check_positive(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{owner}: {name}={value} must be positive")
