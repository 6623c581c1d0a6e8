"""Workloads of the benchmark: the published network, 256-246-10, on batches of 16x16 MNIST, and a recurrent one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from hxtrain.backends import Backend, Spikes, Stimulus
from hxtrain.commands.construction import torch_device
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
CHANNELS = 70
"""Inputs of the recurrent network."""
EVENTS = 750
"""Input events of each sample of the recurrent network."""
STEPS = 100
"""Time steps of the recurrent network."""
RECURRENT_GAIN = 1.2
"""Gain of the initial weights of the recurrent network, half of it for recurrent ones: about 300 hidden spikes."""


class Workload:
    """Images as input events, and networks on devices.

    Args:
        stack: Exit stack that closes the devices.
        samples: Number of images, from the start of the training data.
        device_name: Name of the torch device of images and networks.
    """

    classes = 10

    def __init__(self, stack: ExitStack, samples: int, device_name: str = "cpu") -> None:
        self._stack = stack
        self.torch_device = torch_device(device_name)
        self.settings: dict[str, Any] = {"init_mean": INIT_MEAN}
        spikes, labels = self._data(samples)
        self.spikes = spikes
        self.labels = labels

    def _data(self, samples: int) -> tuple[Spikes, Tensor]:
        """Return input events and labels."""
        data = load_dataset("mnist").train
        images = intensities(data.images[:samples].to(self.torch_device))
        return LatencyEncoder()(images), data.labels[:samples].to(self.torch_device)

    def network(self, backend: Backend | None, **settings: Any) -> Network:
        """Return a new network with some other settings, attached to a device (None for software)."""
        net = (
            NetworkConfig(**{**self.settings, **settings})
            .build(self.spikes.units, self.classes, seed=0)
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


class RecurrentWorkload(Workload):
    """Random events with the numbers of a spoken digit, and recurrent networks, 70-186-20 with 100 steps.

    The network is the one published for the chip (Cramer et al. 2022); a spoken digit of 70 channels has about 750
    events.

    Args:
        stack: Exit stack that closes the devices.
        samples: Number of samples.
        device_name: Name of the torch device of events and networks.
    """

    classes = 20

    def __init__(self, stack: ExitStack, samples: int, device_name: str = "cpu") -> None:
        super().__init__(stack, samples, device_name)
        self.settings = {
            "hidden": [186],
            "recurrent": True,
            "steps": STEPS,
            "init_gain": RECURRENT_GAIN,
            "init_gain_recurrent": RECURRENT_GAIN / 2,
        }

    def _data(self, samples: int) -> tuple[Spikes, Tensor]:
        generator = torch.Generator().manual_seed(0)
        counts = samples * EVENTS
        sample = torch.arange(samples).repeat_interleave(EVENTS)
        unit = torch.randint(CHANNELS, (counts,), generator=generator)
        time = torch.rand(counts, generator=generator) * STEPS * NetworkConfig().dt
        spikes = Spikes.from_events(sample, unit, time, samples, CHANNELS)
        labels = torch.randint(self.classes, (samples,), generator=generator)
        return spikes.to(self.torch_device), labels.to(self.torch_device)
