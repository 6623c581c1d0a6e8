"""The workload of the benchmark: the published network, 256-246-10, on batches of 16x16 MNIST."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from hxtrain.backends import Backend, Stimulus
from hxtrain.commands.train import torch_device
from hxtrain.datasets import intensities, load_dataset
from hxtrain.datasets.encoders import LatencyEncoder
from hxtrain.execution import Device, device_of
from hxtrain.network import Network, NetworkConfig
from hxtrain.objectives import Burst, MaxOverTime
from hxtrain.rules import train_step

INIT_MEAN = 8e-3
"""Mean of the initial weights: about 40 hidden spikes per image on the chips, as a trained network has."""
RATE = 1e-5
"""Learning rate, small enough to leave the activity unchanged."""


class Workload:
    """Images as input events, and networks on devices.

    Args:
        stack: Exit stack that closes the devices.
        samples: Number of images, from the start of the training data.
        device_name: Name of the torch device of images and networks.
    """

    def __init__(self, stack: ExitStack, samples: int, device_name: str = "cpu") -> None:
        self._stack = stack
        self.torch_device = torch_device(device_name)
        data = load_dataset("mnist").train
        self.spikes = LatencyEncoder()(intensities(data.images[:samples].to(self.torch_device)))
        self.labels = data.labels[:samples].to(self.torch_device)

    def network(self, backend: Backend | None, **settings: Any) -> Network:
        """Return a new network with some other settings, attached to a device (None for software)."""
        net = (
            NetworkConfig(**{"init_mean": INIT_MEAN, **settings})
            .build(self.spikes.units, 10, seed=0)
            .to(self.torch_device)
        )
        if backend is not None:
            net.attach(self._stack.enter_context(Device(backend)))
        return net

    def training(self, net: Network, batch: int) -> Callable[[], object]:
        """Return a function that does a training step on encoded images."""
        loss = MaxOverTime()
        regularizers = [Burst()]
        optimizer = torch.optim.Adam(net.parameters(), lr=RATE, fused=True)
        spikes = self.spikes.split(batch)[0]
        labels = self.labels[:batch]
        return lambda: train_step(net, loss, regularizers, optimizer, spikes, labels)

    def inference(self, net: Network, batch: int) -> Callable[[], object]:
        """Return a function that computes the answers to encoded images."""
        loss = MaxOverTime()
        spikes = self.spikes.split(batch)[0]

        def work() -> object:
            with torch.no_grad():
                return loss.scores(net(spikes).readout).argmax(1)

        return work

    def single_run(self, net: Network, batch: int) -> Callable[[], object]:
        """Return a function that does one run of the network's device, without the host's part."""
        device = device_of(net)
        assert device is not None
        plan = device.plan
        assert plan is not None
        integers, _ = plan.quantise(net.effective_weights())
        spikes = self.spikes.split(batch)[0]
        return lambda: device.backend.run(integers, Stimulus(spikes))
