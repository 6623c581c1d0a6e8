"""A network and its components as plain values, and back: what files say besides weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import Any

from hxtrain.backends import Registry, UnknownComponentError
from hxtrain.checks import Constants, count, flag, positive
from hxtrain.gradients import GRADIENTS
from hxtrain.network import LI, LIF, DelayedNetwork, Dropout, LateralInhibition, Linear, Network, Recurrent
from hxtrain.objectives import LOSSES, Loss
from hxtrain.runs.checkpoint import CheckpointError
from hxtrain.runs.plain import check_plain
from hxtrain.runs.saved import typed_component

MODULES: Mapping[str, type[Constants]] = {
    kind.__name__: kind for kind in (Linear, Recurrent, LateralInhibition, LIF, LI, Dropout)
}
"""Modules of a network by the name of their class."""
TERMINALS = "terminals"
"""Entry of a network whose inputs have several terminals with delays; the delays themselves are among its weights."""


def network_values(net: Network) -> dict[str, Any]:
    """Return the modules, constants and gradient of a network, without its weights, delays and masks.

    Raises:
        ValueError: A constant is no plain value, such as a surrogate that is a function, or a class is unknown here.
    """
    if type(net) not in (Network, DelayedNetwork):
        raise ValueError(
            f"{type(net).__name__} cannot be stored by name; networks in files are of class Network or DelayedNetwork: "
            "store a Network of the same modules"
        )
    terminals = {}
    if isinstance(net, DelayedNetwork):
        learned = net.delays.requires_grad
        terminals = {TERMINALS: {"copies": net.copies, "learned": learned, "unit": net.unit}}
    return {
        **terminals,
        "modules": [_described(module) for module in net.stack],
        "constants": {name: getattr(net, name) for name in net.RULES if name != "gradient"},
        "gradient": component_values(GRADIENTS, net.gradient),
    }


def network_of(path: Path, values: Mapping[str, Any], seed: int = 0) -> Network:
    """Return the network of `network_values`, with drawn weights and delays of 0.

    Args:
        path: Path of the file, for errors.
        values: Plain values.
        seed: Seed of the weights.

    Raises:
        CheckpointError: A component is unknown here.
        KeyError, TypeError, ValueError, AttributeError: The values make no network.
    """
    gradient = read_component(path, GRADIENTS, values["gradient"])
    modules = list(map(_built, values["modules"]))
    settings = {**values["constants"], "gradient": gradient, "seed": seed}
    if TERMINALS not in values:
        return Network(*modules, **settings)
    terminals = values[TERMINALS]
    copies = count("copies", terminals["copies"])
    learned = flag("learned", terminals["learned"])
    if not isinstance(modules[0], Linear) or copies > modules[0].inputs:  # a list of any length takes memory
        raise ValueError(f"{copies} terminals for each input are more than the first projection has")
    unit = positive("unit", terminals["unit"])
    return DelayedNetwork(*modules, delays=[0.0] * copies, learned=learned, unit=unit, **settings)


def input_size(net: Network) -> int:
    """Return the number of inputs of a network, each of which may have several terminals."""
    terminals: int = net.layers[0].linear.inputs
    return terminals // net.copies if isinstance(net, DelayedNetwork) else terminals


def component_values(registry: Registry[Any], component: Any) -> dict[str, Any]:
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


def read_component(path: Path, registry: Registry[Any], values: Mapping[str, Any]) -> Any:
    """Return the component of `component_values`.

    Raises:
        CheckpointError: It is not registered here, or its settings are damaged.
    """
    settings = dict(values)
    try:
        kind = registry.load(settings.pop("kind", ""))
    except UnknownComponentError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return typed_component(path, registry.key, kind, settings)


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


def _described(module: Any) -> dict[str, Any]:
    """Return a module as the name of its class and its constants.

    Raises:
        ValueError: A constant is no plain value, or the module is of a class that no file can name.
    """
    name = type(module).__name__
    if MODULES.get(name) is not type(module):
        raise ValueError(f"{name} cannot be stored by name; networks in files consist of {', '.join(MODULES)}")
    arguments = signature(type(module)).parameters.keys() - {"mask"}  # a mask is stored with the weights
    constants = {argument: getattr(module, argument) for argument in sorted(arguments)}
    _require_plain(name, constants)
    return {"class": name, **constants}


def _built(description: Mapping[str, Any]) -> Constants:
    values = dict(description)
    return MODULES[values.pop("class")](**values)


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
