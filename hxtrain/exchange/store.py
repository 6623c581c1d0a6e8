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

from hxtrain.checks import one_of, require_kind
from hxtrain.datasets.encoders import ENCODERS, Encoder, LatencyEncoder
from hxtrain.network import Network
from hxtrain.objectives import LOSSES, Loss
from hxtrain.objectives.losses import default_loss
from hxtrain.runs.checkpoint import CheckpointError, save_checkpoint
from hxtrain.runs.plain import check_plain
from hxtrain.runs.saved import module_with_weights, required
from hxtrain.runs.versions import versions

from .files import file_path
from .from_nir import read_nir
from .graphs import write_graph
from .plain import TERMINALS, component_values, network_of, network_values, read_component, read_loss
from .to_nir import to_nir
from .weights import save_archive, save_state_dict

KIND = "network"
"""Entry `kind` of the files of this module."""
FORMATS = ("hxtrain", "npz", "state_dict", "nir")
SUFFIXES: Mapping[str, str] = {".npz": "npz", ".nir": "nir"}
"""Format of a path by its end."""


def save_network(
    net: Network,
    path: str | Path,
    encoder: Encoder | None = None,
    loss: Loss | None = None,
    format: str | None = None,
    **options: Any,
) -> None:
    """Write a network into a file; an interruption leaves the old file or the new one.

    An existing file is kept beside the new one, such as `digits.previous.pt`, in place of an earlier one of this name.
    The formats `npz` and `state_dict` hold weights alone, and `nir` the ideal network. If the network is attached to a
    device, these three hold its integer weights with their scales as well.

    Args:
        net: Network with its weights.
        path: Path of the file, such as `digits.pt`.
        encoder: Code of the samples that the network was trained with; None: `LatencyEncoder()`.
        loss: Loss that turns outputs into answers; None: `MaxOverTime()`, for a spiking output `SpikeCount()`.
        format: `hxtrain`, `npz`, `state_dict` or `nir`; None: by the path's end, `.npz` or `.nir`, else `hxtrain`.
        options: Further arguments of `to_nir`, for `nir`.

    Raises:
        ValueError: A constant cannot be stored, such as a surrogate that is a function, a class is unknown here, or
            the format cannot represent the network.
        CheckpointError: The file cannot be written.
    """
    require_kind(net, Network, "net", "save(net, path)")
    path = file_path(path)
    by_suffix = SUFFIXES.get(path.suffix, "hxtrain")
    chosen = by_suffix if format is None else one_of(FORMATS)("format", format)
    if options and chosen != "nir":
        raise ValueError(f"{', '.join(options)}: only format='nir' has these options; leave them out")
    chosen_loss = loss or default_loss(net)
    if chosen == "nir":
        write_graph(to_nir(net, encoder=encoder or LatencyEncoder(), loss=chosen_loss, **options), path)
    elif chosen == "npz":
        save_archive(net, path)
    elif chosen == "state_dict":
        save_state_dict(net, path)
    else:
        _save(net, path, encoder or LatencyEncoder(), chosen_loss)


def _save(net: Network, path: Path, encoder: Encoder, loss: Loss) -> None:
    """Write a network in the format of a checkpoint."""
    state = {
        "kind": KIND,
        **network_values(net),
        "model": net.state_dict(),
        "encoder": component_values(ENCODERS, encoder),
        "loss": component_values(LOSSES, loss),
        "classes": loss.classes(net.layers[-1].neurons.size),
        "loss_state": loss.state_dict(),
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


def stored_network(path: Path) -> StoredNetwork:
    """Return the network of a NIR graph with its code and loss, or the default ones if it does not say them.

    Raises:
        ExchangeError: It cannot be read.
    """
    content = read_nir(path)
    return StoredNetwork(content.net, content.encoder or LatencyEncoder(), content.loss or default_loss(content.net))


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
        check_plain({name: value for name, value in content.items() if name in {*entries, TERMINALS} - {"model"}})
        precision = _precision(content["model"])

        def build() -> Network:
            return network_of(path, content).to(precision)

        net = module_with_weights(build, content["model"], path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: its modules make no network ({error}); the file is damaged") from error
    encoder = read_component(path, ENCODERS, content["encoder"])
    return StoredNetwork(net, encoder, read_loss(path, state))


def _precision(weights: Mapping[str, Any]) -> torch.dtype:
    """Return the type of the weights of a file, in which the network computes."""
    types = {weight.dtype for weight in weights.values() if isinstance(weight, Tensor)}
    return torch.float64 if torch.float64 in types else torch.float32
