"""Networks: linear projections, spiking populations, recurrent or not, and an output.

The output is a leaky-integrator readout, whose membranes are the result, or a population that spikes.

    net = Network(Linear(256, 246), LIF(246), Linear(246, 10), LI(10))
    activity = net(spikes)          # in software: the twin
    net.attach(device)
    activity = net(spikes)          # on a chip

Weights are floats on the host (threshold - leak = 1); shape letters: `T` time steps, `B` samples,
`N` neurons.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hxtrain.backends import Backend, DeviceError, Spikes
from hxtrain.backends.spikes import Data
from hxtrain.checks import (
    Constants,
    Rule,
    count,
    one_of,
    optional,
    positive,
    require_kind,
)
from hxtrain.checks import seed as check_seed
from hxtrain.eager import eager
from hxtrain.gradients import Gradient, SurrogateGradient
from hxtrain.neurons import (
    GridEvents,
    Model,
    decay,
    full_precision,
    get_surrogate,
    hold_of_measured,
    hold_of_model,
    psp_matrix,
)

from .activity import Activity
from .arrival import InputWatch
from .chain import check_chain, pair_modules
from .description import Description, changes, describe
from .layers import LIF, Incoming, Layer
from .neuron_masks import dropout_masks, silenced_masks
from .program import Program
from .refusals import (
    refuse_bits,
    require_differentiable,
    require_learning,
    require_masks,
    require_modules,
    require_precision,
    require_short,
    require_spikes,
)
from .runner import RUNNERS, PlacementError, Runner
from .summary import layer_table, shape_line
from .twin import Twin

TRACES = ("measured", "spikes_only")
"""Sources of the hidden membranes that gradients see, see `Network`."""


def _gradient(label: str, value: Any) -> Gradient:
    """Return a gradient after a check of its kind."""
    require_kind(value, Gradient, label, "give hx.SurrogateGradient()")
    gradient: Gradient = value
    return gradient


class Network(Constants):
    """A spiking network: a chain of layers, each of which may project onto itself.

    Weights that have values keep them, even if another network shares their modules; all others are drawn. The modules
    in `stack` are the ones that run, and may be exchanged there. Attaching a network fixes its description for the
    device, see `describe`; later changes are refused until the network is attached again. A copy (`copy.deepcopy`,
    `pickle`, `torch.save`) of an attached network runs in software: the device stays with the original.

    Args:
        modules: `Linear, LIF, [Recurrent or LateralInhibition,] [Dropout,] ..., Linear, LI`, or `LIF` at the end.
        dt: width of a time step, the device's trace interval (s).
        steps: number of time steps `T`.
        seed: seed of the weights that are drawn.
        weight_bits: resolution of the magnitude of integer weights (bits, the sign aside); None: the device's.
        trace_bits: resolution of membranes (bits); None: the device's.
        traces: membranes of spiking layers: `measured`, or `spikes_only`, the model's response to the measured spikes
            (both are the same in software, whose membranes are the model's).
        saturation: current at which a synaptic input of the device saturates (weight LSB, measured by `hxtrain fit`),
            for the gradients; None: gradients assume linear synapses (decision 0010).
        gradient: how a measured pass is differentiated.

    Resolution, traces and saturation take effect when the network runs on a device.

    Attributes:
        device: device that runs the network; None: the network runs in software.
        twin: runner of the network in software.
        in_software: whether an attached network runs in software; the device's limits of weights stay in force.
        input_watch: check that logs one warning if most input events lie after the window, or if there are none.

    Raises:
        ValueError: the modules do not form a chain, or sizes do not match.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {
        "dt": positive,
        "steps": count,
        "weight_bits": optional(count),
        "trace_bits": optional(count),
        "traces": one_of(TRACES),
        "saturation": optional(positive),
        "gradient": _gradient,
    }

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
        gradient: Gradient | None = None,
    ) -> None:
        super().__init__()
        self.dt = dt
        self.steps = steps
        self.weight_bits = weight_bits
        self.trace_bits = trace_bits
        self.traces = traces
        self.saturation = saturation
        self.gradient = SurrogateGradient() if gradient is None else gradient
        self.stack = nn.ModuleList(require_modules(modules))
        self.device: Runner[Network] | None = None
        self.twin = Twin(self)
        self.in_software = False
        self.input_watch = InputWatch()
        self._plan: Any = None
        self._program: Program | None = None
        self._description = self._checked(self.program)
        self.draw(seed)

    @property
    def layers(self) -> list[Layer]:
        """The populations of `stack`, the output last.

        Raises:
            ValueError: the modules do not form a chain.
        """
        return self.program.layers

    @property
    def projections(self) -> list[Incoming]:
        """All projections, in the order of every list of weights."""
        return self.program.projections

    @property
    def output_kind(self) -> str:
        """Kind of the output, `membranes` of a readout or `spikes`: what `Activity.output` holds, and a loss reads."""
        return "spikes" if self.layers[-1].neurons.spiking else "membranes"

    @property
    def runner(self) -> Runner[Any]:
        """What runs the next pass: the device, or the twin in software."""
        return self.twin if self.device is None or self.in_software else self.device

    @property
    def torch_device(self) -> torch.device:
        """Accelerator that holds the weights and computes on the host."""
        return self.layers[0].linear.weight.device

    def draw(self, seed: int) -> None:
        """Draw the weights that have no values yet; torch's meta device cannot hold values and is skipped."""
        if all(projection.synapses.weight.is_meta for projection in self.projections):
            return
        generator = torch.Generator().manual_seed(check_seed("Network: seed", seed))
        for layer in self.layers:
            for projection in layer.projections:
                projection.synapses.draw(1 - decay(self.dt, layer.neurons.tau_mem), generator)

    def attach(self, device: Runner[Network] | Backend | None, gradient: Gradient | None = None) -> None:
        """Place the network on a device, which runs it from then on.

        Args:
            device: device for the network, or a bare backend, which becomes one with the default settings; None: the
                network runs in software, as with its `twin`.
            gradient: how measured passes are differentiated from now on; None: as before.

        Raises:
            TypeError: the argument is not a device.
            PlacementError: the network does not fit.
        """
        device = RUNNERS.load("device")(device) if isinstance(device, Backend) else device
        if device is not None and not isinstance(device, Runner):
            raise TypeError(
                f"attach takes a device, not {device!r:.60}; write `with hx.open_device(name) as device: "
                "net.attach(device)`, where name is that of a registered backend, such as 'emulator'"
            )
        if isinstance(device, Twin):  # each network has one of its own
            device = None
        previous = self.gradient
        self.gradient = previous if gradient is None else gradient
        try:
            description = self._checked(self._remade())
            self._plan = None if device is None else device.place(self)
        except BaseException:
            self.gradient = previous
            raise
        self.device = device
        self._description = description

    @property
    def program(self) -> Program:
        """What passes read of the network; it is made anew after a change."""
        program = self._program
        modules = tuple(self._modules["stack"]._modules.values())  # type: ignore[union-attr]  # in every pass
        if program is None or program.mark != Constants.changes or program.modules != modules:
            return self._remade()
        return program

    def _remade(self) -> Program:
        """Make anew what passes read of the network."""
        mark = Constants.changes
        modules = tuple(self.stack)
        layers = pair_modules(list(modules))
        projections = [projection for layer in layers for projection in layer.projections]
        self._program = Program(
            mark,
            modules,
            layers,
            projections,
            [len(layer.projections) for layer in layers],
            [projection.synapses.weight.shape for projection in projections],
            describe(layers, self.steps, self.dt, self.weight_bits, self.trace_bits, self.hidden_traces),
            [self.model(layer) for layer in layers],
            self.gradient.check([layer.recurrent is not None for layer in layers], self.saturation),
        )
        return self._program

    @property
    def hidden_traces(self) -> str:
        """Membranes of hidden layers that a device provides, `traces`, unless the gradient reads none."""
        return self.traces if self.gradient.reads_membranes else "spikes_only"

    def weight_limits(self) -> list[float | None]:
        """Return by projection the largest float weight that the device can represent; None where there is none."""
        is_placed = self.device is not None and self.device.plan is not None
        runner: Runner[Any] = self.device if self.device is not None and is_placed else self.twin
        return runner.weight_limits()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy: all attributes except the device and the twin."""
        return {**vars(self), "device": None, "_plan": None, "twin": None, "_program": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set the state of a copy, which has a twin of its own."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.twin = Twin(self)

    def extra_repr(self) -> str:
        """Describe the time grid."""
        return f"dt={self.dt:.3g} s, steps={self.steps}"

    def __repr__(self) -> str:
        """Describe the network in a line; `print` shows its modules."""
        try:
            shape = shape_line(self.layers)
        except ValueError:  # modules that were exchanged, and form no chain
            return str(self)
        place = "in software" if self.device is None or self.in_software else f"on {self.device!r:.60}"
        return f"{type(self).__name__}({shape}, {self.extra_repr()}, {place})"

    def __str__(self) -> str:
        """Return the tree of the modules."""
        return super().__repr__()

    def _repr_html_(self) -> str:
        """Return the layers as a table of a notebook."""
        return layer_table(self.layers, repr(self))

    def decays(self, layer: Layer) -> tuple[float, float]:
        """Return the factors by which the layer's synaptic currents and membranes decay in a step."""
        return decay(self.dt, layer.neurons.tau_syn), decay(self.dt, layer.neurons.tau_mem)

    def model(self, layer: Layer) -> Model:
        """Return the model of a layer, which defines its gradient."""
        neurons = layer.neurons
        decays = self.decays(layer)
        if not isinstance(neurons, LIF):
            return Model(*decays)
        return Model(
            *decays,
            get_surrogate(neurons.surrogate),
            neurons.slope,
            neurons.at_spike == "threshold",
            hold=hold_of_model(neurons.refractory, self.dt),
        )

    def models(self) -> list[Model]:
        """Return the model of each layer."""
        return self.program.models

    def psp(self, layer: Layer) -> Tensor:
        """Return the layer's post-synaptic potential as a matrix `[T, T]`."""
        weight = layer.linear.weight
        return psp_matrix(self.steps, *self.decays(layer), weight.dtype, weight.device)

    def dropout_masks(self, generator: torch.Generator) -> list[Tensor | None]:
        """Draw one mask of active neurons `[N]` per layer; None for a layer without dropout."""
        return dropout_masks(self.layers, generator)

    def silenced_masks(self, share: float, generator: torch.Generator) -> list[Tensor | None]:
        """Draw one mask of active neurons `[N]` per hidden layer; that of the output is None.

        In each hidden layer `round(share N)` neurons are silent. With the same generator state, a larger share silences
        all neurons of a smaller one.

        Args:
            share: share of silent neurons, 0..1.
            generator: source of the choice.
        """
        return silenced_masks(self.layers, share, generator)

    def set_mask(self, projection: str, mask: Data | None) -> None:
        """Set which synapses of a projection exist; weights of absent ones act as zeros from the next pass on.

        Args:
            projection: name of the projection, such as `input->layer0`.
            mask: existing synapses, True or 1 in `[N, J]`; None: all exist.

        Raises:
            ValueError: there is no such projection, or the mask has another shape or other values than 0 and 1.
        """
        synapses = {incoming.name: incoming.synapses for incoming in self.projections}
        if projection not in synapses:
            raise ValueError(f"projection={projection!r} does not exist; choose one of {', '.join(synapses)}")
        synapses[projection].mask = mask

    def check_training(self) -> None:
        """Refuse a network of which nothing is learned.

        Raises:
            ValueError: no projection is learned.
        """
        require_learning(self.projections)

    def check_software(self) -> None:
        """Refuse options that need a device.

        Raises:
            ValueError: fewer bits are set for weights or membranes.
        """
        refuse_bits(weight_bits=self.weight_bits, trace_bits=self.trace_bits)

    def arrivals(self, spikes: Spikes) -> Spikes:
        """Return the events that reach the first projection for input events: the same, unless inputs have delays."""
        return spikes

    @eager
    def forward(self, spikes: Spikes, masks: list[Tensor | None] | None = None) -> Activity:
        """Run a batch.

        Args:
            spikes: input events of `B` samples.
            masks: active neurons of each layer, from `dropout_masks` or `silenced_masks`; None: all neurons.

        Raises:
            ValueError: the number of inputs does not match, an option needs a device, or weights are not finite or
                neither float32 nor float64.
            PlacementError: the network has changed since it was attached.
            TypeError: the input is not `Spikes`.
            DeviceError: a run failed, or another network has been placed on the device.
        """
        with full_precision(self.torch_device):
            return self._pass(spikes, masks)

    def _pass(self, spikes: Spikes, masks: list[Tensor | None] | None) -> Activity:
        program = self.program
        require_spikes(spikes, program.layers[0].linear.inputs)
        program = self._check_unchanged(program)
        if self.device is None:
            self.check_software()
        runner = self.runner
        weights = self.effective_weights(masks)
        require_precision(weights)
        if spikes.time.device != weights[0].device:
            spikes = spikes.to(weights[0].device)
        events = GridEvents(spikes, self.dt, self.steps)
        graph = torch.is_grad_enabled()
        activity = runner.run(weights, spikes, events)
        self.input_watch.look(events)
        activity.inputs = events
        activity.onto_output = program.counts[-1]
        if not graph:
            return activity
        models = program.models if runner is self.twin else self.models_of_measured(program)
        if self.saturation is not None:
            saturations = zip(models, runner.saturations(self.saturation), strict=True)
            models = [model._replace(saturation=saturation) for model, saturation in saturations]
        onto = [(weight, recurrent[0] if recurrent else None) for weight, *recurrent in program.by_layer(weights)]
        activity.layers = self.gradient.attach(onto, events, activity.layers, models)
        return activity

    def models_of_measured(self, program: Program) -> list[Model]:
        """Return the model of each layer for spikes that a device measured."""
        periods = [n.refractory if isinstance(n := layer.neurons, LIF) else None for layer in program.layers]
        holds = [hold_of_measured(period, self.dt) for period in periods]
        return [model._replace(hold=hold) for model, hold in zip(program.models, holds, strict=True)]

    def _check_unchanged(self, program: Program) -> Program:
        """Refuse a network that is not the one placed on the device; in software, check its changes.

        Returns what the pass reads of the network. Shapes of weights and needs of the gradient change without a mark.
        """
        if self.device is not None and self.device.plan is not self._plan:
            raise DeviceError("another network was placed on this device since; call net.attach(device) again")
        shapes = [projection.synapses.weight.shape for projection in program.projections]
        if shapes != program.shapes or self.hidden_traces != program.description.traces:
            program = self._remade()
        require_differentiable(program)
        description = program.description
        if description is self._description:
            return program
        if description == self._description:
            self._description = description
            return program
        if self.device is not None:
            raise PlacementError(
                f"the network has changed since it was attached: {changes(self._description, description)}; call "
                "net.attach(device) again"
            )
        self._description = self._checked(program)
        return program

    def _checked(self, program: Program) -> Description:
        """Return the description after the checks that involve several modules.

        Raises:
            ValueError: sizes do not match, a time constant is too long for the window, or gradients cannot
                use the saturation.
        """
        check_chain(program.layers)
        require_short(program.description, self.dt * self.steps)
        require_differentiable(program)
        return program.description

    def effective_weights(self, masks: list[Tensor | None] | None = None) -> list[Tensor]:
        """Return the float weights of each projection; those of dropped neurons and of absent synapses are zero.

        Raises:
            ValueError: `masks` does not hold one mask `[N]` or None for each layer.
        """
        if masks is None:
            return [projection.synapses.effective_weight for projection in self.program.projections]
        require_masks(masks, [layer.neurons.size for layer in self.layers])
        return [
            p.synapses.effective_weight if mask is None else p.synapses.effective_weight * mask[:, None]
            for layer, mask in zip(self.layers, masks, strict=True)
            for p in layer.projections
        ]

    def representable_weights(self) -> list[Tensor]:
        """Return the weights of each projection as the device represents them; in software as they are."""
        weights = self.effective_weights()
        return self.runner.representable(weights)

    def by_layer(self, weights: list[Tensor]) -> list[list[Tensor]]:
        """Group the weights of the projections by layer: feed-forward weights, then recurrent ones if any."""
        return self.program.by_layer(weights)
