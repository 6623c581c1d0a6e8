"""A network in a file, with its code and loss: for networks made in Python, which no run's settings describe.

The file has the form of a checkpoint. It holds plain values and tensors: the constants of each module, the weights, and
the settings of gradient, encoder and loss, with the loss's state. It is read without running any code of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hxtrain.checks import require_kind
from hxtrain.datasets.encoders import ENCODERS, Encoder, LatencyEncoder
from hxtrain.network import Network
from hxtrain.objectives import LOSSES, Loss
from hxtrain.objectives.losses import default_loss
from hxtrain.runs.checkpoint import CheckpointError, save_checkpoint
from hxtrain.runs.saved import check_plain, module_with_weights, required
from hxtrain.runs.versions import versions

from .plain import component_values, network_of, network_values, read_component

KIND = "network"
"""Entry `kind` of the files of this module."""


def save_network(net: Network, path: str | Path, encoder: Encoder | None = None, loss: Loss | None = None) -> None:
    """Write a network into a file.

    Args:
        net: Network with its weights; a device it is attached to is not part of the file.
        path: Path of the file, such as `digits.pt`.
        encoder: Code of the samples that the network was trained with; None: `LatencyEncoder()`.
        loss: Loss that turns outputs into answers; None: `MaxOverTime()`, for a spiking output `SpikeCount()`.

    Raises:
        ValueError: A constant cannot be stored, such as a surrogate that is a function, or a class is unknown here.
        CheckpointError: The file cannot be written.
    """
    require_kind(net, Network, "net", "save(net, path)")
    chosen_loss = loss or default_loss(net)
    state = {
        "kind": KIND,
        **network_values(net),
        "model": net.state_dict(),
        "encoder": component_values(ENCODERS, encoder or LatencyEncoder()),
        "loss": component_values(LOSSES, chosen_loss),
        "classes": chosen_loss.classes(net.layers[-1].neurons.size),
        "loss_state": chosen_loss.state_dict(),
        "versions": versions(),
    }
    save_checkpoint(path, state)


class StoredNetwork(NamedTuple):
    """Content of a file of `save_network`.

    Attributes:
        net: Network with its weights, in software.
        encoder: Code of the samples that the network was trained with.
        loss: Loss that turns outputs into answers.
    """

    net: Network
    encoder: Encoder
    loss: Loss


def load_network(path: Path, state: Mapping[str, Any]) -> StoredNetwork:
    """Return the network of a file's content, see `save_network`.

    Args:
        path: Path of the file, for errors.
        state: Content of the file.

    Raises:
        CheckpointError: The content is damaged, or names components that are not registered here.
    """
    entries = {"modules": list, "constants": dict, "gradient": dict, "model": dict, "encoder": dict, "loss": dict}
    content = required(path, state, entries)
    try:
        check_plain({name: value for name, value in content.items() if name in entries and name != "model"})
        precision = _precision(content["model"])

        def build() -> Network:
            return network_of(path, content).to(precision)

        net = module_with_weights(build, content["model"], path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: its modules make no network ({error}); the file is damaged") from error
    encoder = read_component(path, ENCODERS, content["encoder"])
    return StoredNetwork(net, encoder, read_loss(path, state))


def read_loss(path: Path, state: Mapping[str, Any]) -> Loss:
    """Return the loss of a file with its state, if it has one.

    Args:
        path: Path of the file, for errors.
        state: Content of the file: `loss`, and `classes` and `loss_state` if there are.

    Raises:
        CheckpointError: The loss is not registered here, or the state is not one of it.
    """
    loss: Loss = read_component(path, LOSSES, state["loss"])
    if not state.get("loss_state"):
        return loss
    try:
        loss.prepare(state["classes"])
        loss.load_state_dict(state["loss_state"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its state is none of {type(loss).__name__} ({error})") from error
    return loss


def _precision(weights: Mapping[str, Any]) -> torch.dtype:
    """Return the type of the weights of a file, in which the network computes."""
    types = {weight.dtype for weight in weights.values() if isinstance(weight, Tensor)}
    return torch.float64 if torch.float64 in types else torch.float32
