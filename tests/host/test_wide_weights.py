"""Devices whose integer weights are wider than 8 bits: nothing wraps on the way to them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hxtrain import LI, LIF, Device, Linear, Network, place
from hxtrain.backends import Recording, Spikes, Stimulus, create_backend
from hxtrain.backends.reference import ReferenceBackend
from hxtrain.commands.result import save_weights

SPIKES = Spikes.from_times(torch.rand(5, 8, generator=torch.Generator().manual_seed(2)) * 3e-5)


def make_net(**settings: int) -> Network:
    torch.manual_seed(1)
    return Network(Linear(8, 6, mean=0.2), LIF(6), Linear(6, 3, gain=2.0), LI(3), **settings)  # type: ignore[arg-type]


class WeightRecorder(ReferenceBackend):
    """Records the weights that it receives."""

    def run(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        self.weights_received = {name: matrix.clone() for name, matrix in weights.items()}
        return super().run(weights, stimulus)


@pytest.mark.parametrize("weight_max", [127, 128, 151, 255, 1023, 32767])
def test_weights_arrive_as_they_were_rounded(weight_max: int, tmp_path: Path) -> None:
    net = make_net()
    backend = WeightRecorder(weight_max)
    with Device(backend) as device, torch.no_grad():
        net.attach(device)
        net.layers[0].linear.weight[0, 0] = 1e3  # is clipped
        net.layers[0].linear.weight[0, 1] = -1e3
        net(SPIKES)
        save_weights(tmp_path / "weights.npz", net)
    file = np.load(tmp_path / "weights.npz")
    for (name, matrix), weight, scale in zip(
        backend.weights_received.items(), net.effective_weights(), device.scales, strict=True
    ):
        expected = (weight.detach().double() * scale).round().clamp(-weight_max, weight_max)
        assert torch.equal(matrix.double(), expected.double()), name
        assert file[name].dtype == (np.int8 if weight_max <= 127 else np.int16)
        assert np.array_equal(file[name], matrix.numpy())
    assert backend.weights_received["input->layer0"][0, :2].tolist() == [weight_max, -weight_max]


@pytest.mark.parametrize("bits", [1, 4, 7])
def test_fewer_bits_of_wide_weights_do_not_wrap(bits: int) -> None:
    net = make_net(weight_bits=bits)
    with torch.no_grad():
        for layer in net.layers:
            layer.linear.weight.mul_(50)
    plan = place(net, create_backend("reference", weight_max=255).capabilities)
    integers, scales = plan.quantise(net.effective_weights())
    for matrix, weight, scale in zip(integers.values(), net.effective_weights(), scales, strict=True):
        assert int(matrix.abs().max()) == 255
        assert bool((matrix * weight.detach() >= 0).all())
        assert float((matrix - (weight.detach() * scale).clamp(-255, 255)).abs().max()) <= 255 / (2**bits - 1) / 2 + 1


def test_membranes_of_a_wide_device_are_those_of_a_narrow_one() -> None:
    """A finer grid of the same weights: the same network to rounding."""
    outputs = []
    for weight_max in (63, 2047):
        net = make_net()
        with Device(create_backend("reference", weight_max=weight_max)) as device, torch.no_grad():
            net.attach(device)
            outputs.append(net(SPIKES).readout)
    assert float((outputs[0] - outputs[1]).abs().max()) < 0.1 * float(outputs[0].abs().max())
