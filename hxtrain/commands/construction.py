"""From settings to objects: the network, its weights, and the device that it is attached to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch

from hxtrain.datasets import Dataset
from hxtrain.execution import Device, device_of
from hxtrain.execution.config import SOFTWARE, BackendConfig, ChipConfig
from hxtrain.execution.plan import PLAN_COLUMNS
from hxtrain.network import Network
from hxtrain.objectives.losses import check_output
from hxtrain.runs.progress import Progress
from hxtrain.training.sequence import output_count

from .settings import RunConfig


def build_network(config: RunConfig, data: Dataset) -> Network:
    """Return the network for a data set.

    Raises:
        ValueError: The encoder, or the distortion, does not take samples of this kind; or the loss or a penalty reads
            another kind of output than the network has.
    """
    source = data.source(data.train, config.encoder, config.augment)
    outputs = output_count(config.loss, config.tasks, data)
    net = config.network.build(source.units, outputs, config.seed)
    net.gradient = config.gradient if config.rule.gradient_kind is None else config.rule.gradient_kind()
    check_output(net, config.loss, *config.regularizer.values())
    return net


@contextlib.contextmanager
def opened(backend: BackendConfig, chip: ChipConfig) -> Iterator[Device | None]:
    """Open a device; None in software."""
    device_backend = backend.create(chip)
    if device_backend is None:
        yield None
        return
    with Device(
        device_backend,
        backend.retries,
        trial_time=backend.trial_time,
        forced_reset=backend.forced_reset,
        max_runs=backend.max_runs,
        run_timeout=backend.run_timeout,
    ) as device:
        yield device


@contextlib.contextmanager
def attached(backend: BackendConfig, chip: ChipConfig, net: Network) -> Iterator[Device | None]:
    """Open a device and attach the network to it; None in software.

    Raises:
        PlacementError: The network does not fit the device.
        ValueError: An option of the network needs a device.
    """
    with opened(backend, chip) as device:
        if device is None:
            net.check_software()
        else:
            net.attach(device)
        yield device


def torch_device(name: str) -> torch.device:
    """Return an available torch device.

    Raises:
        ValueError: The name is unknown, or the device is not available.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        text = str(error).splitlines()[0]
        raise ValueError(
            f"trainer.torch_device={name!r} cannot be used: {text}; use cpu, or install its torch"
        ) from None
    return device


def introduce(progress: Progress, net: Network, data: Dataset, identity: Mapping[str, str]) -> None:
    """Report the network, its data and its device, and print the plan."""
    introduce_network(progress, net, f"on {data.title}", identity)


def introduce_network(progress: Progress, net: Network, task: str, identity: Mapping[str, str]) -> None:
    """Report the network, its task (such as `on digits 8x8`) and its device, and print the plan."""
    sizes = [net.layers[0].linear.inputs, *(layer.neurons.size for layer in net.layers)]
    chip = f", chip {identity['chip']} ({identity.get('preset', 'no preset')}, {identity['chip_hash']})"
    progress.say(
        f"network {'-'.join(map(str, sizes))} {task}, "
        f"backend {identity['backend']}{chip if identity['backend'] != SOFTWARE else ''}"
    )
    device = device_of(net)
    if device is not None and device.plan is not None:
        progress.table("placement", PLAN_COLUMNS, device.plan.rows())
        for text in device.warnings:
            progress.note(text)
