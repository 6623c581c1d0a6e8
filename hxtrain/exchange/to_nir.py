"""From a network to a NIR graph: the ideal network in seconds, with metadata that restore the network here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from hxtrain._version import __version__
from hxtrain.backends.intake import as_tensor
from hxtrain.checks import one_of, optional, require_kind
from hxtrain.datasets.encoders import Encoder
from hxtrain.execution.config import SOFTWARE
from hxtrain.network import LIF, DelayedNetwork, Layer, Network
from hxtrain.objectives import Loss

from .device_weights import DeviceWeights, device_weights_of
from .errors import ExchangeError
from .graphs import nir_package
from .metadata import DELAYS, INTEGERS, KEY, MASK, PARAMETER, metadata_text
from .plain import input_size
from .reading import DISCRETISATIONS, euler_equivalent, resistance

READOUTS = ("CubaLI", "omit")
"""Ways to write a readout: as its neurons, or not at all, for simulators that have no such neurons."""


class Form(NamedTuple):
    """Form of a graph for a simulator.

    Attributes:
        step: Time step (s) that times are stretched to; None: times are those of the network.
        nested: Whether recurrent populations are subgraphs.
        unit: Unit of the graph's times (s).
        discretisation: The only one that the simulator reads; None: any.
    """

    step: float | None = None
    nested: bool = False
    unit: float = 1.0
    discretisation: str | None = None


DIALECTS: Mapping[str, Form] = {
    "none": Form(),
    "snntorch": Form(1e-4, nested=True),
    "hxtorch": Form(unit=1e-3, discretisation="continuous"),
}
"""Forms of graphs. snnTorch has steps of 1e-4 s, and feeds the inputs of a recurrent population that is no subgraph
into the recurrent weights. hxtorch reads milliseconds, and configures a chip with the physical time constants."""


def to_nir(
    net: Network,
    *,
    encoder: Encoder | None = None,
    loss: Loss | None = None,
    discretisation: str | None = None,
    dialect: str = "none",
    readout: str = "CubaLI",
    approximate: bool = False,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    device_weights: DeviceWeights | None = None,
) -> Any:
    """Return the graph of a network.

    Args:
        net: Network with its weights; integer weights and identity are those of the device that it is attached to.
            Inputs with several terminals become a Linear that copies them and a Delay.
        encoder: Code of the samples, for the metadata.
        loss: Loss that turns outputs into answers, for the metadata.
        discretisation: `euler` for time constants at which forward Euler in steps of dt decays as the network does, for
            norse, snnTorch and SpikingJelly; `continuous` for the physical ones, whose exact solution is the network;
            None: `euler`, or what the dialect needs.
        dialect: Simulator that needs a form of its own, or `none`: `snntorch` stretches all times, so that a step
            is its 1e-4 s, and makes subgraphs of recurrent populations; `hxtorch` writes milliseconds.
        readout: `CubaLI`, or `omit` to end the graph in the weights of the readout.
        approximate: Whether to write neurons that reset to 0 where the network subtracts the threshold or has a
            refractory period, which NIR cannot say. The network here is restored exactly; `hxtrain nir check` names
            the programs that differ.
        parameters: Measured parameters of neurons, such as `{"layer0": {"tau_mem": [...]}}`, for the metadata.
        device_weights: Integer weights of a device that the network is not attached to; None: those of its device.

    Raises:
        ExchangeError: The package `nir` is missing, or NIR cannot represent the network.
    """
    require_kind(net, Network, "net", "to_nir(net)")
    optional(one_of(DISCRETISATIONS))("discretisation", discretisation)
    one_of(tuple(DIALECTS))("dialect", dialect)
    one_of(READOUTS)("readout", readout)
    nir = nir_package()
    _require_representable(net, approximate)
    form = DIALECTS[dialect]
    discretisation = discretisation or form.discretisation or "euler"
    if form.discretisation not in (None, discretisation):
        raise ExchangeError(
            f"discretisation={discretisation!r} and dialect={dialect!r}: it reads {form.discretisation!r} time "
            "constants; "
            "leave the discretisation out"
        )
    scale = (1.0 if form.step is None else form.step / net.dt) / form.unit
    builder = _Builder(
        nir, net, discretisation, scale, form.nested, device_weights or device_weights_of(net), parameters or {}
    )
    for layer in net.layers:
        builder.add(layer, omit=readout == "omit" and not layer.neurons.spiking)
    builder.end()
    text = metadata_text(
        net,
        encoder,
        loss,
        {
            "hxtrain": __version__,
            "discretisation": discretisation,
            "dialect": dialect,
            "time_scale": scale,
            "approximate": approximate,
            "nodes": builder.names,
            **builder.device_entries(),
        },
    )
    return nir.NIRGraph(nodes=builder.nodes, edges=builder.edges, metadata={KEY: text}, type_check=False)


def deviations(net: Network) -> dict[str, str]:
    """Return what a network does that no graph says, by layer: NIR's neurons reset to a value, and fire on at once."""
    return {layer.name: text for layer in net.layers if (text := _deviation(layer.neurons))}


def _deviation(neurons: Any) -> str:
    """Return what neurons do that no graph says; an empty text if a graph says all."""
    if not isinstance(neurons, LIF) or neurons.refractory == 0:
        return ""
    if neurons.refractory is None:
        return "subtracts the threshold in software (refractory=None)"
    return f"has a refractory period of {neurons.refractory:g} s"


def _require_representable(net: Network, approximate: bool) -> None:
    """Refuse a network whose neurons NIR cannot represent.

    Raises:
        ExchangeError: A layer subtracts the threshold, or has a refractory period; or the class is unknown here.
    """
    if type(net) not in (Network, DelayedNetwork):
        raise ExchangeError(
            f"{type(net).__name__} cannot be written: graphs are made of the classes Network and DelayedNetwork; write "
            "a Network of the same modules"
        )
    unsaid = {} if approximate else deviations(net)
    if unsaid:
        raise ExchangeError(
            f"{'; '.join(f'{name} {text}' for name, text in unsaid.items())}; but NIR's neurons reset to v_reset, "
            "without a refractory period: train with network.refractory=0, or write neurons that reset to 0 all the "
            "same with approximate=True (the network is restored exactly here, while spikes in other programs differ "
            "from the twin's)"
        )


class _Builder:
    """The nodes and edges of a graph while it grows.

    Attributes:
        nodes: Nodes by name.
        edges: Pairs of names.
        names: By layer, the names of its nodes: weights, neurons, recurrent weights, as far as there are.
    """

    def __init__(
        self,
        nir: Any,
        net: Network,
        discretisation: str,
        scale: float,
        nested: bool,
        device_weights: DeviceWeights | None,
        parameters: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._nir = nir
        self._net = net
        self._is_euler = discretisation == "euler"
        self._scale = scale
        self._nested = nested
        self._device_weights = device_weights
        self._parameters = parameters
        self.nodes: dict[str, Any] = {"input": nir.Input({"input": np.array([input_size(net)])})}
        self.edges: list[tuple[str, str]] = []
        self.names: list[list[str]] = []
        self._last = "input"
        unknown = sorted(set(parameters) - {layer.name for layer in net.layers})
        if unknown:
            raise ExchangeError(f"parameters of {', '.join(unknown)} belong to no layer of the network; remove them")
        if isinstance(net, DelayedNetwork):
            self._delay(net)

    def _delay(self, net: DelayedNetwork) -> None:
        """Add the terminals of the inputs: weights that copy all inputs, and the delays of the copies (s)."""
        inputs = input_size(net)
        self._put("terminals", self._nir.Linear(np.tile(np.eye(inputs, dtype=np.float32), (net.copies, 1))))
        values = net.delays.detach().cpu().numpy()
        seconds = np.maximum(values.astype(np.float64), 0) * net.unit * self._scale
        self._put("delays", self._nir.Delay(seconds, metadata={DELAYS: values}))

    def add(self, layer: Layer, omit: bool) -> None:
        """Add a layer; without its neurons if they are omitted."""
        names = [f"synapses{len(self.names)}"]
        self._put(names[0], self._weights(layer, 0))
        if not omit and layer.recurrent is not None and self._nested:
            self._put(layer.name, self._subgraph(layer))
            names += [f"{layer.name}.lif", f"{layer.name}.w_rec"]
        elif not omit:
            names.append(layer.name)
            self._put(layer.name, self._neurons(layer))
            if layer.recurrent is not None:
                names.append(f"recurrent{len(self.names)}")
                self.nodes[names[2]] = self._weights(layer, 1)
                self.edges += [(layer.name, names[2]), (names[2], layer.name)]
        self.names.append(names)

    def _subgraph(self, layer: Layer) -> Any:
        """Return a recurrent population as a graph, of the names that snnTorch gives."""
        nir = self._nir
        shape = np.array([layer.neurons.size])
        nodes = {
            "input": nir.Input({"input": shape}),
            "lif": self._neurons(layer),
            "w_rec": self._weights(layer, 1),
            "output": nir.Output({"output": shape}),
        }
        edges = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
        return nir.NIRGraph(nodes=nodes, edges=edges, type_check=False)

    def end(self) -> None:
        """Add the output."""
        size = self._net.layers[-1].neurons.size
        self._put("output", self._nir.Output({"output": np.array([size])}))

    def device_entries(self) -> dict[str, Any]:
        """Return what the metadata say of the device."""
        if self._device_weights is None:
            return {"device": {"backend": SOFTWARE}}
        return {"device": dict(self._device_weights.identity), "scales": dict(self._device_weights.scales)}

    def _put(self, name: str, node: Any) -> None:
        self.nodes[name] = node
        self.edges.append((self._last, name))
        self._last = name

    def _weights(self, layer: Layer, place: int) -> Any:
        """Return the node of a projection onto a layer."""
        projection = layer.projections[place]
        synapses = projection.synapses
        metadata: dict[str, Any] = {}
        if synapses.mask is not None:
            metadata[MASK] = synapses.mask.cpu().numpy().astype(np.uint8)
        if self._device_weights is not None:
            metadata[INTEGERS] = self._device_weights.integers[projection.name].cpu().numpy()
        weight = synapses.effective_weight.detach().cpu().numpy().copy()
        return self._nir.Linear(weight, metadata=metadata)

    def _neurons(self, layer: Layer) -> Any:
        """Return the node of the neurons of a layer."""
        neurons = layer.neurons
        dt = self._net.dt
        mem = euler_equivalent(neurons.tau_mem, dt) if self._is_euler else neurons.tau_mem
        syn = euler_equivalent(neurons.tau_syn, dt) if self._is_euler else neurons.tau_syn
        fields = {
            "tau_mem": mem * self._scale,
            "tau_syn": syn * self._scale,
            "r": mem / dt if self._is_euler else resistance(neurons.tau_mem, neurons.tau_syn, dt),
            "v_leak": 0.0,
            "w_in": syn / dt,
        }
        if neurons.spiking:
            fields |= {"v_threshold": 1.0, "v_reset": 0.0}
        kind = self._nir.CubaLIF if neurons.spiking else self._nir.CubaLI
        arrays = {name: np.full(neurons.size, value) for name, value in fields.items()}
        return kind(**arrays, metadata=self._measured(layer))

    def _measured(self, layer: Layer) -> dict[str, Any]:
        """Return the measured parameters of a layer's neurons as metadata."""
        metadata = {}
        for name, values in self._parameters.get(layer.name, {}).items():
            array = as_tensor(values, f"parameters: {layer.name}: {name}").double().cpu().numpy()
            if array.shape != (layer.neurons.size,):
                raise ExchangeError(
                    f"parameters: {layer.name}: {name} has the shape {array.shape}, the layer has {layer.neurons.size} "
                    "neurons; give one value for each"
                )
            metadata[f"{PARAMETER}{name}"] = array
        return metadata
