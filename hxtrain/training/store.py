"""A network in a file, with its code and loss: for networks made in Python, which no run's settings describe.

The file has the form of a checkpoint. It holds plain values and tensors: the constants of each module, the weights, and
the settings of gradient, encoder and loss, with the loss's state. It is read without running any code of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hxtrain.backends import Registry, UnknownComponentError
from hxtrain.checks import Constants, require_kind
from hxtrain.datasets.encoders import ENCODERS, Encoder, LatencyEncoder
from hxtrain.gradients import GRADIENTS
from hxtrain.network import LI, LIF, Dropout, LateralInhibition, Linear, Network, Recurrent
from hxtrain.objectives import LOSSES, Loss
from hxtrain.objectives.losses import default_loss
from hxtrain.runs.checkpoint import CheckpointError, save_checkpoint
from hxtrain.runs.plain import check_plain
from hxtrain.runs.saved import module_with_weights, required, typed_component
from hxtrain.runs.versions import versions

KIND = "network"
"""Entry `kind` of the files of this module."""
MODULES: Mapping[str, type[Constants]] = {
    kind.__name__: kind for kind in (Linear, Recurrent, LateralInhibition, LIF, LI, Dropout)
}
"""Modules of a network by the name of their class."""


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
    if type(net) is not Network:
        raise ValueError(f"{type(net).__name__} cannot be stored by name; networks in files are of class Network")
    chosen_loss = loss or default_loss(net)
    state = {
        "kind": KIND,
        "modules": [_described(module) for module in net.stack],
        "constants": {name: getattr(net, name) for name in net.RULES if name != "gradient"},
        "gradient": _component(GRADIENTS, net.gradient),
        "model": net.state_dict(),
        "encoder": _component(ENCODERS, encoder or LatencyEncoder()),
        "loss": _component(LOSSES, chosen_loss),
        "classes": chosen_loss.classes(net.layers[-1].neurons.size),
        "loss_state": chosen_loss.state_dict(),
        "versions": versions(),
    }
    save_checkpoint(path, state)


def _described(module: Any) -> dict[str, Any]:
    """Return a module as the name of its class and its constants.

    Raises:
        ValueError: A constant is no plain value, or the module is of a class that no file can name.
    """
    name = type(module).__name__
    if MODULES.get(name) is not type(module):
        raise ValueError(f"{name} cannot be stored by name; networks in files consist of {', '.join(MODULES)}")
    arguments = signature(type(module)).parameters.keys() - {"mask"}  # a mask is stored with the weights
    constants = {argument: getattr(module, argument) for argument in arguments}
    _require_plain(name, constants)
    return {"class": name, **constants}


def _require_plain(owner: str, values: Mapping[str, Any]) -> None:
    """Raise an error if a setting is no plain value.

    Raises:
        ValueError: A value is a function, such as a surrogate.
    """
    for name, value in values.items():
        try:
            check_plain(value)
        except ValueError:
            raise ValueError(
                f"{owner}: {name}={value!r:.60} cannot be stored; register it under a name "
                "(hxtrain.neurons.SURROGATES) and give the name"
            ) from None


def _component(registry: Registry[Any], component: Any) -> dict[str, Any]:
    """Return a component as its registered name and its settings.

    Raises:
        ValueError: It is not registered, so that no file can name it, or a setting is no plain value.
    """
    name = registry.name_of(type(component))
    if name not in registry:
        raise ValueError(
            f"{registry.key} {type(component).__name__} cannot be stored by name; register it first, in an entry point "
            f"of {registry.group} or with the add() of its registry"
        )
    settings = asdict(component)
    _require_plain(type(component).__name__, settings)
    return {"kind": name, **settings}


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
        gradient = _read(path, GRADIENTS, content["gradient"])
        precision = _precision(content["model"])

        def build() -> Network:
            return Network(*map(_built, content["modules"]), **content["constants"], gradient=gradient).to(precision)

        net = module_with_weights(build, content["model"], path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: its modules make no network ({error}); the file is damaged") from error
    encoder = _read(path, ENCODERS, content["encoder"])
    return StoredNetwork(net, encoder, _loss(path, content["loss"], state))


def _loss(path: Path, settings: Mapping[str, Any], state: Mapping[str, Any]) -> Loss:
    """Return the loss of a file with its state, if it has one.

    Raises:
        CheckpointError: The loss is not registered here, or the state is not one of it.
    """
    loss: Loss = _read(path, LOSSES, settings)
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


def _built(description: Mapping[str, Any]) -> Constants:
    values = dict(description)
    return MODULES[values.pop("class")](**values)


def _read(path: Path, registry: Registry[Any], values: Mapping[str, Any]) -> Any:
    settings = dict(values)
    try:
        kind = registry.load(settings.pop("kind", ""))
    except UnknownComponentError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return typed_component(path, registry.key, kind, settings)
