"""Readers of the files of runs, which check everything: a file may be damaged, of another version, or hostile.

`read_result` is for `result.json` and `evaluation.json`, `read_records` for `metrics.jsonl`, `read_settings` for
`config.yaml`, `required` and `component` for the content of checkpoints, `take_weights` for weights of any origin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from hxtrain.backends import Registry, UnknownComponentError
from hxtrain.finite import first_not_finite

from .checkpoint import CheckpointError
from .names import current_names
from .plain import LARGEST_FILE, check_plain, parse_json
from .plain_yaml import check_yaml

SHARES = ("test_accuracy", "train_accuracy")
"""Entries of a result that lie in 0..1."""
GROUPS = ("settings", "trained_settings")
"""Entries of a result that are mappings."""

RESERVED = ("kind", "kinds", "sha256")
"""Names in a group of settings that are not fields of its component."""

Component = TypeVar("Component")
Module = TypeVar("Module", bound=nn.Module)


def read_result(file: Path, kinds: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the content of a `result.json` or `evaluation.json`.

    Args:
        file: Path of the file.
        kinds: Required entries with their types, see `required`.

    Raises:
        CheckpointError: The file is damaged, or is no result.
    """
    try:
        values = parse_json(_text(file))
        if not isinstance(values, dict):
            raise ValueError(f"it holds a {type(values).__name__}, no mapping")
        _check_result(values)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged ({error}); delete it and finish the run again") from error
    return required(file, values, kinds or {})


def read_records(file: Path) -> list[dict[str, Any]]:
    """Return the records of a `metrics.jsonl`, one per epoch.

    Raises:
        CheckpointError: The file is damaged, or holds no records.
    """
    try:
        records = [parse_json(line) for line in _text(file).splitlines()]
        if not all(isinstance(record, dict) for record in records):
            raise ValueError("a line is no mapping")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged ({error}); resume the run, which writes it again") from error
    return records


def read_settings(file: Path) -> dict[str, Any]:
    """Return the content of a run's `config.yaml`; interpolations are not resolved.

    Raises:
        CheckpointError: The file is damaged, or is no mapping of settings.
    """
    try:
        text = _text(file).decode()
        check_yaml(text)
        values: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
        check_plain(values)
        if not isinstance(values, dict):
            raise ValueError(f"it holds a {type(values).__name__}, no mapping")
        return values
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{file} is not a run's config.yaml ({reason}); name the settings instead") from error


def _text(file: Path) -> bytes:
    with open(file, "rb") as stream:
        text = stream.read(LARGEST_FILE + 1)
    if len(text) > LARGEST_FILE:
        raise ValueError(f"it is longer than {LARGEST_FILE} bytes")
    return text


def _check_result(values: Mapping[str, Any]) -> None:
    for name in SHARES:
        value = values.get(name)
        if isinstance(value, int | float) and not 0 <= value <= 1:
            raise ValueError(f"{name}={value} is outside of 0..1")
    for name in GROUPS:
        if not isinstance(values.get(name, {}), dict):
            raise ValueError(f"{name} is a {type(values[name]).__name__}, expected a mapping")


def required(file: Path, values: Mapping[str, Any], kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Return values after a check that required entries exist and have the right types.

    Args:
        file: Origin of the values, for the error text.
        values: Content of the file.
        kinds: Type, or types, of each required entry.

    Raises:
        CheckpointError: An entry is missing, or has another type.
    """
    missing = sorted(set(kinds) - set(values))
    if missing:
        raise CheckpointError(f"{file} lacks {', '.join(missing)}; give a file that `hxtrain` wrote")
    for name, kind in kinds.items():
        value = values[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise CheckpointError(f"{file}: {name} is a {type(value).__name__}, which it never is; the file is damaged")
    return dict(values)


def checked_state(file: Path, state: Mapping[str, Any], **entries: Any) -> dict[str, Any]:
    """Return a checkpoint's content after a check of the entries of every loop, and of further entries by type.

    Raises:
        CheckpointError: An entry is missing, or has another type.
    """
    kinds = {"settings": dict, "model": dict, "epoch": int, "records": list, **entries}
    content = required(file, state, kinds)
    for name in ("settings", "records"):
        try:
            check_plain(content[name])
        except ValueError as error:
            raise CheckpointError(f"{file}: {name}: {error}; the file is damaged") from error
    return content


def written_by(state: Mapping[str, Any]) -> str:
    """Return the clause of an error text on the version that wrote a checkpoint, and on the current version."""
    versions = state.get("versions")
    writer = versions.get("hxtrain", "unknown") if isinstance(versions, dict) else "unknown"
    return f"it was written by hxtrain {str(writer)[:40]}, this is {version('hxtrain')}"


def component(file: Path, state: Mapping[str, Any], group: str, kind: type[Component]) -> Component:
    """Return a component from the settings `group.name` of a checkpoint.

    Args:
        file: Path of the checkpoint, for errors.
        state: Content of the checkpoint, after `checked_state`.
        group: Group of settings, such as `network`.
        kind: Dataclass of the component.

    Raises:
        CheckpointError: A setting is unknown to this version, or has an invalid value.
    """
    start = f"{group}."
    flat = {key[len(start) :]: value for key, value in state["settings"].items() if key.startswith(start)}
    values = _nested({name: value for name, value in flat.items() if name not in RESERVED})
    fields = kind.__dataclass_fields__  # type: ignore[attr-defined]
    unknown = sorted(start + name for name, value in values.items() if name not in fields and value is not None)
    if unknown:
        raise CheckpointError(
            f"{file} has settings that this version does not know: {', '.join(unknown)} ({written_by(state)}); read "
            "it with the version that wrote it, or train anew"
        )
    return typed_component(file, group, kind, {name: value for name, value in values.items() if name in fields})


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with a dictionary for names such as `settings.n`."""
    values: dict[str, Any] = {}
    for key, value in flat.items():
        *owners, name = key.split(".")
        place = values
        for owner in owners:
            place = place.setdefault(owner, {})
        place[name] = value
    return values


def chosen_kind(
    file: Path,
    state: Mapping[str, Any],
    group: str,
    registry: Registry[type[Component]],
    modules: Collection[str] = (),
) -> type[Component]:
    """Return the class that a checkpoint names, such as the class of its encoder.

    Args:
        file: Path of the checkpoint, for errors.
        state: Content of the checkpoint, after `checked_state`.
        group: Group of settings, such as `encoder`.
        registry: Registered classes.
        modules: Modules that a user trusts, whose classes the checkpoint may name as well.

    Raises:
        CheckpointError: The class is neither registered nor in one of the modules.
    """
    name = current_names(state["settings"]).get(f"{group}.kind")
    try:
        return registry.resolve(name, modules)  # type: ignore[arg-type]
    except UnknownComponentError as error:
        raise CheckpointError(f"{file}: {error} ({written_by(state)})") from error


def typed_component(file: Path, group: str, kind: type[Component], values: Mapping[str, Any]) -> Component:
    """Return a dataclass with values of a file, after the same checks as for values of the command line.

    Raises:
        CheckpointError: A value has another type, is out of range, or is unknown.
    """
    invalid_names = [name for name, value in values.items() if not _literal(value)]
    if invalid_names:
        text = str(values[invalid_names[0]])[:80]
        raise CheckpointError(f"{file}: {group}.{invalid_names[0]}={text!r} is no value; the file is damaged")
    try:
        instance = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), dict(values)))
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{file}: {group}: {reason}") from error
    return instance  # type: ignore[return-value]


def _literal(value: object) -> bool:
    """Return whether a value is literal: it refers to no other value, and its numbers are finite."""
    parts = value if isinstance(value, list | tuple) else value.values() if isinstance(value, dict) else [value]
    return all(
        math.isfinite(part)
        if isinstance(part, float)
        else not (isinstance(part, str) and ("${" in part or part == "???"))
        for part in parts
    )


def take_weights(module: nn.Module, weights: object, file: Path) -> None:
    """Load the weights of a file into a module.

    Raises:
        CheckpointError: The weights belong to another network, have another type, or are not all finite.
    """
    module.load_state_dict(require_shapes(module, weights, file))
    require_finite(module.state_dict(), str(file))


def module_with_weights(build: Callable[[], Module], weights: object, file: Path) -> Module:
    """Return a module with the weights of a file; its memory is allocated only after a check of the sizes.

    Args:
        build: Function that builds the module, with arbitrary weights.
        weights: Tensors by name.
        file: Origin of the weights, for errors.

    Raises:
        CheckpointError: The settings make no module, or one of other sizes; or see `take_weights`.
    """
    try:
        with torch.device("meta"):
            skeleton = build()
    except (ValueError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"{file}: its settings make no network: {str(error).splitlines()[0]}") from error
    require_shapes(skeleton, weights, file)
    module = build()
    take_weights(module, weights, file)
    return module


def require_shapes(module: nn.Module, weights: object, file: Path) -> dict[str, Tensor]:
    """Return the weights of a file after a check that a module has the same, by name, shape and type.

    A file may hold the mask of a projection (`NAME.mask`, in the shape of `NAME.weight`) that the module lacks.

    Raises:
        CheckpointError: The weights belong to another network, or have another type.
    """
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{file} holds no weights by name; give a checkpoint that `hxtrain` wrote")
    expected = module.state_dict()
    shapes = {str(name): tuple(weight.shape) for name, weight in weights.items()}
    expected_shapes = {name: tuple(weight.shape) for name, weight in expected.items()}
    for name, shape in list(expected_shapes.items()):
        mask = f"{name.removesuffix('.weight')}.mask"
        if name.endswith(".weight") and mask in weights and mask not in expected:
            expected[mask] = torch.empty(0, dtype=torch.bool)
            expected_shapes[mask] = shape
    if shapes != expected_shapes:
        raise CheckpointError(
            f"{file} holds weights {shapes}, the network has {expected_shapes}; use the same network settings"
        )
    for name, weight in weights.items():
        if weight.is_complex() or weight.is_floating_point() != expected[name].is_floating_point():
            raise CheckpointError(f"{file}: {name} is of {weight.dtype}, the network has {expected[name].dtype}")
    return weights


def require_finite(weights: Mapping[str, Tensor], origin: str) -> None:
    """Check that all weights are finite.

    Raises:
        CheckpointError: A weight is NaN or infinite; the text names `origin` and the tensor.
    """
    name = first_not_finite(weights.items())
    if name is not None:
        raise CheckpointError(f"{origin}: {name} holds weights that are NaN or infinite; give an intact checkpoint")
