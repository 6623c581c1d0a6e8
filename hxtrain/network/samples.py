"""One sample of a pass: its spikes, and each membrane as measured and as modelled.

Shape letters: `T` time steps, `N` neurons, `E` spikes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from hxtrain.backends import INPUT, Spikes
from hxtrain.checks import require_kind, whole
from hxtrain.neurons import Codes, GridEvents, Model, SpikeGrid, UnrecordedMembranes
from hxtrain.neurons.engines import ModelLayer, engine_for, engine_of

from .activity import Activity, LayerActivity
from .network import Network
from .twin import ModelledMembranes

if TYPE_CHECKING:
    from collections.abc import Sequence


class Train(NamedTuple):
    """Spikes of a population in one sample.

    Attributes:
        name: Name of the population, or `input`.
        times: Times of the spikes within the window (s) `[E]`.
        units: Neurons that spike `[E]`.
        size: Number of neurons, silent ones included.
    """

    name: str
    times: Tensor
    units: Tensor
    size: int

    def ranks(self) -> Tensor:
        """Return the place of each neuron in the order of first spikes `[N]`; silent ones are last, by their number."""
        first = torch.full((self.size,), torch.inf, dtype=torch.float64)
        first.scatter_reduce_(0, self.units, self.times, "amin")
        ranks = torch.empty(self.size, dtype=torch.long)
        ranks[torch.argsort(first, stable=True)] = torch.arange(self.size)
        return ranks


class Membranes(NamedTuple):
    """Membranes of a layer in one sample (leak 0, threshold 1); row k is at time `k * dt`.

    Attributes:
        name: Name of the layer.
        measured: Membranes as the device recorded them `[T, N]`; None in software, or if they were not recorded.
        modelled: Membranes of the model for the measured spikes `[T, N]`.
        spiking: Whether the layer spikes.
    """

    name: str
    measured: Tensor | None
    modelled: Tensor
    spiking: bool


class PassSample(NamedTuple):
    """One sample of a pass, on the CPU.

    Attributes:
        trains: Spikes of the input and of each layer that spikes.
        membranes: Membranes of each layer.
        dt: Time between two rows of membranes (s).
        steps: Number of rows `T`.
    """

    trains: list[Train]
    membranes: list[Membranes]
    dt: float
    steps: int

    @property
    def window(self) -> float:
        """Recorded time (s)."""
        return self.dt * self.steps


@torch.no_grad()
def pass_sample(
    net: Network, activity: Activity, sample: int = 0, weights: Sequence[Tensor] | None = None
) -> PassSample:
    """Return one sample of a pass; nothing runs on the device.

    Args:
        net: Network of the pass.
        activity: Result of the pass.
        sample: Index of the sample in the batch.
        weights: Float weights of the pass, in the order of `net.projections`; None: those of the network, as the device
            represents them.

    Raises:
        TypeError: An argument is no network, or no activity.
        ValueError: The sample does not exist, or the activity lacks its input.
    """
    require_kind(net, Network, "net", "give the network, then the activity that it returned")
    require_kind(activity, Activity, "activity", "give what the network returned: activity = net(spikes)")
    sample = whole("sample", sample)
    if activity.inputs is None:
        raise ValueError("activity.inputs is None, so the model has no input; give the activity of net(spikes)")
    if not 0 <= sample < activity.inputs.samples:
        raise ValueError(f"sample={sample} is not in 0..{activity.inputs.samples - 1}, the samples of the pass")
    inputs = _single(activity.inputs.spikes, sample)
    in_software = activity.cost is None
    program = net.program
    matrices = net.by_layer(net.representable_weights() if weights is None else list(weights))
    upstream: GridEvents | SpikeGrid = GridEvents(inputs, net.dt, net.steps)
    trains = [_train(INPUT, inputs, net)]
    membranes = []
    models = program.models if in_software else net.models_of_measured(program)
    for layer, model, onto, outcome in zip(program.layers, models, matrices, activity.layers, strict=True):
        fired = None
        if outcome.fired is not None:
            spikes = _single(outcome.times(net.dt), sample)
            engine = engine_of(spikes.time.device.type)
            fired = engine.bin_spikes(spikes, net.dt, net.steps, outcome.fired.dtype)
            trains.append(_train(layer.name, spikes, net))
        modelled = _modelled(model, [weight.detach() for weight in onto], upstream, fired)
        measured = None if in_software else _measured(outcome, sample)
        membranes.append(Membranes(layer.name, measured, modelled, layer.neurons.spiking))
        upstream = upstream if fired is None else fired
    return PassSample(trains, membranes, net.dt, net.steps)


def _single(spikes: Spikes, sample: int) -> Spikes:
    """Return the events of one sample, as a batch of one."""
    is_chosen = spikes.sample == sample
    time = spikes.time[is_chosen]
    return Spikes.trusted(torch.zeros_like(spikes.sample[is_chosen]), spikes.unit[is_chosen], time, 1, spikes.units)


def _train(name: str, spikes: Spikes, net: Network) -> Train:
    inside = spikes.time < net.dt * net.steps
    return Train(name, spikes.time[inside].cpu().double(), spikes.unit[inside].cpu().long(), spikes.units)


def _modelled(
    model: Model, weights: Sequence[Tensor], upstream: GridEvents | SpikeGrid, fired: SpikeGrid | None
) -> Tensor:
    """Return the membranes of the model for its input and its measured spikes `[T, N]`."""
    weight, *recurrent_weights = weights
    recurrent = recurrent_weights[0] if recurrent_weights else None
    engine = engine_for(weight, model, recurrent)
    layer = ModelLayer(model, weight, recurrent, upstream)
    if fired is not None:
        trace = UnrecordedMembranes(engine, layer, fired).trace()
    else:
        membrane = engine.respond(layer, False, True)[1]
        trace = membrane if isinstance(membrane, Tensor) else membrane.trace()
    return trace[:, 0].cpu()


def _measured(outcome: LayerActivity, sample: int) -> Tensor | None:
    """Return the recorded membranes of a sample `[T, N]`; None if the layer's are those of the model."""
    membrane = outcome.membrane
    if isinstance(membrane, ModelledMembranes):
        return None
    if isinstance(membrane, Codes):
        return Codes(membrane.codes[sample : sample + 1], membrane.unit).trace()[:, 0].cpu()
    return outcome.trace.detach()[:, sample].cpu()
