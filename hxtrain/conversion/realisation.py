"""A network of rates as a spiking network of leaky neurons, on a chip or in software.

An activation is a *drive*: the mean over the window of the potential that a neuron's spikes cause through a synapse of
weight 1. A hidden neuron gets the mean potential `onset + gain z` for the normalised input `z` of its ReLU, and answers
with the drive `offset + slope relu(z)`, as far as its measured curve is a line. Its targets divide by the slope and
subtract the offset. Biases and onsets come through regular sources: inputs, and in hidden layers neurons, that fire in
the same way for every sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hxtrain.datasets.encoders import Encoder, RegularEncoder
from hxtrain.network import LayerActivity
from hxtrain.network.config import NetworkConfig
from hxtrain.objectives.losses import OffsetMean

from .graph import PAIRS, ConversionError, RateLayer, RateNetwork

REGULAR_POTENTIAL = 3.0
"""Mean potential of the regular neurons of a hidden layer (threshold - leak)."""
READOUT_RANGE = 1.2
"""Largest mean potential of a readout at the start (threshold - leak); the ADC of the chip reads -1.1 to 2.5."""
RARELY = 0.01
"""Largest share of samples in which an input is active that gives way to a regular one."""


@dataclass(eq=False)
class Population:
    """A hidden layer of rates as a population of spiking neurons.

    Attributes:
        rates: The layer of rates, normalised so that activations are in 0..1.
        gain: Mean potential per unit of the normalised input `[N]` (threshold - leak).
        onset: Mean potential at the normalised input 0 `[N]`.
        slope: Drive per unit of the activation `[N]`.
        offset: Drive at the activation 0 `[N]`.
        regular_drive: Mean drive of a regular neuron.
    """

    rates: RateLayer
    gain: Tensor
    onset: Tensor
    slope: Tensor
    offset: Tensor
    regular_drive: float


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a calibration reads of a batch.

    Attributes:
        drives: Drive of the neurons of each hidden layer `[B, N]`, without regular ones.
        regular_drives: Mean drive of the regular neurons of each hidden layer; 0 without any.
        readout: Mean membrane of the readout `[B, classes]`.
        hidden_spikes: Number of spikes of all hidden neurons per sample.
    """

    drives: list[Tensor]
    regular_drives: list[float]
    readout: Tensor
    hidden_spikes: float


class Realisation:
    """A network of rates with its spiking network; `write` sets the weights from the coefficients.

    Args:
        rates: Layers with weights alone, normalised to activations in 0..1; hidden ones spike, the last one is linear.
        x: Calibration samples in 0..1 `[B, ...]`. Inputs that are hardly ever active in them give way to regular ones,
            so that the fan-in of the first layer need not grow.
        encoder: Code of the inputs.
        settings: Settings of the spiking network; `hidden` is that of the layers.
        regular: Number of regular inputs, and of regular neurons of each hidden layer that drives another one.

    Attributes:
        net: Spiking network.
        encoder: Code of the inputs, with regular ones.
        config: Settings of the spiking network.
        populations: Hidden populations.
        readout_gain: Membrane of the readout per unit of the last layer, through its excitatory and its inhibitory
            synapses `[2, classes]`: on a chip the two kinds differ in strength.
        offsets: Offset of each class (threshold - leak).
        readout_scale: Unit of the last layer per membrane of the readout.

    Raises:
        ConversionError: A layer cannot be realised; the text names it.
    """

    def __init__(
        self, rates: RateNetwork, x: Tensor, encoder: Encoder, settings: NetworkConfig, regular: int = 8
    ) -> None:
        self.rates = rates
        *hidden, last = _realisable(rates)
        self.last = last
        self.regular = regular
        self.features = rates.inputs
        self.encoder = _with_regular_inputs(encoder, rates.input_rates(x), regular)
        inputs = self.encoder.units(self.features)
        sizes = [layer.targets + self._regular_neurons(index, len(hidden)) for index, layer in enumerate(hidden)]
        self.config = replace(settings, hidden=sizes)
        self.net = self.config.build(inputs, last.targets, 0)
        self.input_slope, self.regular_input = self._input_drives(rates.input_rates(x))
        self.populations = [self._population(layer) for layer in hidden]
        self.readout_gain = torch.ones(2, last.targets)
        self.offsets = torch.zeros(last.targets)
        self.readout_scale = 1.0
        self._set_masks()

    def loss(self) -> OffsetMean:
        """Return the loss that reads the answer: mean of the readout and offsets, scaled to the last layer's unit."""
        return OffsetMean(
            readout_scale=self.readout_scale * self.last.scale, offsets=[float(offset) for offset in self.offsets]
        )

    def _regular_neurons(self, index: int, hidden: int) -> int:
        """Return the number of regular neurons of a hidden layer: none before the readout, which has offsets."""
        return self.regular if index < hidden - 1 else 0

    def _input_drives(self, x: Tensor) -> tuple[float, float]:
        """Return the drive of an input per unit of intensity, over the samples, and that of a regular input."""
        drives = self._drives(self.encoder(x).to_grid(self.net.dt, self.net.steps), 0)
        regular = self._regular_columns(0)
        data = drives[:, self._data_columns(0)]
        values = x[:, self._data_columns(0)]
        if not bool(values.any()):
            raise ConversionError("all calibration samples are 0, so that no input fires; give other samples")
        slope = float((data * values).sum() / values.square().sum())
        regular_drive = float(drives[:, regular].mean())
        if not (slope > 0 and regular_drive > 0):
            window = self.net.steps * self.net.dt
            raise ConversionError(
                f"encoder: no input spike reaches a neuron within the window of {window:.3g} s (network.steps="
                f"{self.net.steps}); give more steps, or a shorter code"
            )
        return slope, regular_drive

    def _drives(self, spikes: Tensor, layer: int) -> Tensor:
        """Return the drives `[B, N]` that spikes `[T, B, N]` exert on a layer."""
        areas = self.net.psp(self.net.layers[layer]).sum(0)
        return torch.einsum("t,tbn->bn", areas / self.net.steps, spikes.to(areas))

    def _regular_columns(self, layer: int) -> Tensor:
        """Return the indices of the regular sources of a layer."""
        if layer == 0:
            return torch.tensor(self.encoder.regular)
        size = self.populations[layer - 1].rates.targets
        return torch.arange(size, self.net.layers[layer - 1].neurons.size)

    def _data_columns(self, layer: int) -> Tensor:
        """Return the indices of the sources of a layer that carry activations."""
        count = self.features if layer == 0 else self.populations[layer - 1].rates.targets
        is_data = torch.ones(count, dtype=torch.bool)
        is_data[[index for index in self._regular_columns(layer).tolist() if index < count]] = False
        return is_data.nonzero()[:, 0]

    def _population(self, rates: RateLayer) -> Population:
        """Return a hidden population with the coefficients of an ideal neuron."""
        ones = torch.ones(rates.targets)
        population = Population(rates, ones.clone(), 0 * ones, ones.clone(), 0 * ones, 1.0)
        self.excite(population, 2.0, 0.0)
        return population

    def excite(self, population: Population, gain: float, onset: float) -> None:
        """Give all neurons of a population one gain and onset, and the slopes of an ideal leaky neuron.

        Args:
            population: Population whose coefficients are set.
            gain: Mean potential per unit of the normalised input (threshold - leak).
            onset: Mean potential at the normalised input 0 (threshold - leak).
        """
        population.gain.fill_(gain)
        population.onset.fill_(onset)
        population.slope.fill_(self._ideal_drive(gain + onset))
        population.offset.fill_(0.0)
        population.regular_drive = self._ideal_drive(REGULAR_POTENTIAL)

    def _ideal_drive(self, potential: float) -> float:
        """Return the drive of an ideal leaky neuron, `1 / (t_ref + tau ln(U / (U - 1)))` spikes per second.

        A potential U below the threshold, which an ideal neuron does not answer, counts as that of one spike.
        """
        net = self.net
        neurons = net.layers[0].neurons
        window = net.steps * net.dt
        spikes = 1.0
        if potential > 1:
            hold = 2e-6 if self.config.refractory is None else self.config.refractory
            spikes = max(1.0, window / (hold + neurons.tau_mem * math.log(potential / (potential - 1))))
        every_step = torch.ones(net.steps, 1, 1)
        return float(self._drives(every_step, len(net.layers) - 1)) * spikes / net.steps

    def _set_masks(self) -> None:
        """Remove the synapses that the layers of rates do not have."""
        for index, layer in enumerate((*(p.rates for p in self.populations), self.last)):
            if layer.mask is None:
                continue
            linear = self.net.layers[index].linear
            mask = torch.zeros(linear.outputs, linear.inputs, dtype=torch.bool)
            columns = self._data_columns(index)
            mask[: layer.targets, columns] = layer.mask[:, columns]
            mask[:, self._regular_columns(index)] = True
            linear.mask = mask

    @torch.no_grad()
    def write(self) -> dict[str, float]:
        """Set the weights of the spiking network; return by projection the share that the device clips."""
        limits = self.net.weight_limits()
        shares = {}
        for index, (projection, limit) in enumerate(zip(self.net.projections, limits, strict=True)):
            weight = self.readout_weights() if index == len(self.populations) else self._hidden_weights(index)
            target = projection.synapses.weight
            target.copy_(weight.to(target))
            exists = weight != 0
            is_clipped = weight.abs() > (math.inf if limit is None else limit * (1 + 1e-6))
            shares[projection.name] = float(is_clipped.sum() / exists.sum().clamp(min=1))
        return shares

    def sources(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return slope and offset of the sources of a layer that carry activations, `[J]` each."""
        if layer == 0:
            slope = torch.full((self.features,), self.input_slope)
            return slope, torch.zeros_like(slope)
        population = self.populations[layer - 1]
        return population.slope, population.offset

    def _hidden_weights(self, index: int) -> Tensor:
        population = self.populations[index]
        rates = population.rates
        linear = self.net.layers[index].linear
        slope, offset = self.sources(index)
        columns = self._data_columns(index)
        per_drive = rates.weight.float() / slope
        base = -per_drive @ offset + (0.0 if rates.bias is None else rates.bias)
        weight = torch.zeros(linear.outputs, linear.inputs)
        weight[: rates.targets, columns] = (population.gain[:, None] * per_drive)[:, columns]
        regular = self._regular_columns(index)
        drive = self.regular_input if index == 0 else self.populations[index - 1].regular_drive
        potential = torch.full((linear.outputs,), REGULAR_POTENTIAL)
        potential[: rates.targets] = population.onset + population.gain * base
        weight[:, regular] = (potential / (drive * len(regular)))[:, None]
        return weight

    def readout_weights(self) -> Tensor:
        """Return the weights of the readout `[classes, N]`; what all classes have in common is left out."""
        slope, _ = self.sources(len(self.populations))
        weight = self.last.weight.float() / slope
        weight = weight - weight.mean(0)
        excitatory, inhibitory = self.readout_gain[:, :, None]
        return torch.where(weight > 0, excitatory, inhibitory) * weight

    def measure(self, x: Tensor, batch_size: int = 500) -> Measurement:
        """Run samples in 0..1 `[B, ...]` and return drives and readouts."""
        batches = []
        readouts = []
        spikes = 0.0
        values = self.rates.input_rates(x)
        with torch.no_grad():
            for first in range(0, len(x), batch_size):
                activity = self.net(self.encoder(values[first : first + batch_size]))
                batches.append([self._of_layer(index, layer) for index, layer in enumerate(activity.hidden)])
                readouts.append(activity.readout.mean(0))
                spikes += activity.hidden_spikes()
        of_all = [torch.cat(layer) for layer in zip(*batches, strict=True)]
        sizes = [population.rates.targets for population in self.populations]
        return Measurement(
            [drives[:, :size] for drives, size in zip(of_all, sizes, strict=True)],
            [
                float(drives[:, size:].mean()) if drives.shape[1] > size else 0.0
                for drives, size in zip(of_all, sizes, strict=True)
            ],
            torch.cat(readouts),
            spikes / len(x),
        )

    def _of_layer(self, index: int, layer: LayerActivity) -> Tensor:
        """Return the drives of all neurons of a hidden layer `[B, N]`."""
        assert layer.spikes is not None  # hidden populations spike
        return self._drives(layer.spikes, index + 1)

    def answers(self, measurement: Measurement) -> Tensor:
        """Return the outputs of the last layer `[B, classes]`, up to what all classes of a sample have in common."""
        return self.readout_scale * self.last.scale * (measurement.readout + self.offsets)


def _realisable(rates: RateNetwork) -> tuple[RateLayer, ...]:
    """Return the layers, after a check that spiking neurons can be them.

    Raises:
        ConversionError: A hidden layer has no threshold, or the inputs have signs.
    """
    layers = rates.rate_layers
    if rates.input_map == PAIRS:
        raise ConversionError("input_map=pairs: inputs in 0..1 have no negative parts; leave signed_inputs out")
    for layer in layers[:-1]:
        if layer.activation == "linear":
            raise ConversionError(f"{layer.name} is linear between others; call merge_linear")
    if layers[-1].activation != "linear":
        raise ConversionError(f"{layers[-1].name} is the output, with a ReLU; a readout is linear: remove the ReLU")
    if len(layers) < 2:
        raise ConversionError(
            f"{layers[-1].name} is the only layer: without a hidden layer nothing fires; put a Linear with ReLU in "
            "front, or train a readout on the device (network.hidden=[])"
        )
    if layers[-1].targets < 2:
        raise ConversionError(f"{layers[-1].name} has one output; classes are compared, give it an output for each")
    return layers


def _with_regular_inputs(encoder: Encoder, x: Tensor, count: int) -> RegularEncoder:
    """Return an encoder with regular inputs: first those that are hardly ever active in `[B, F]`, then new ones.

    Raises:
        ConversionError: The encoder has no regular inputs.
    """
    if not isinstance(encoder, RegularEncoder):
        raise ConversionError(
            f"encoder {type(encoder).__name__} has no regular inputs for biases; take RateEncoder, PoissonEncoder or "
            "FirstSpikeEncoder"
        )
    active = (x > 0).float().mean(0)
    order = active.argsort(stable=True)
    silent = order[active[order] <= RARELY][:count].tolist()
    added = range(x.shape[1], x.shape[1] + count - len(silent))
    return replace(encoder, jitter=0.0, regular=[*silent, *added])
