"""Conversion of a composed config to typed settings, with checks of unknown keys, missing values and numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, ValidationError

from .mistakes import MistakeError, no_hydra_setting, unknown
from .schema import REGISTRIES, SCHEMAS, SEVERAL
from .settings import entries, settings
from .verbs import program

LARGEST_SEED = 2**63 - 1
FINITE = {*REGISTRIES, "augment", "distillation", "trainer", "targets"}
"""Groups with finite numbers only; limits and patience in other groups may be infinite."""

HYDRA_GROUPS = ("env",)
"""Groups of Hydra that its dataclass lacks."""


def typed_settings(config: DictConfig) -> Any:
    """Return the settings as dataclasses, which check the values.

    Raises:
        MistakeError: A key is no setting, or a value is missing or invalid; the text names all such keys.
        ValueError: A dataclass refuses a value.
    """
    kind = OmegaConf.get_type(config)
    if not is_dataclass(kind):
        raise MistakeError(
            "this config has not been composed with the settings' types; if it is the config.yaml of a run, start the "
            "run again with run=FOLDER/config.yaml, in place of --config-dir and --config-name"
        )
    command = _command(kind)
    faults = [*_unknown_keys(config, "", command), *_removed(config, ""), *_missing(config, kind, command)]
    if HydraConfig.initialized():
        faults += _unknown_hydra_keys(HydraConfig.get(), "hydra", command)
    if faults:
        raise MistakeError("; ".join(faults))
    try:
        values = OmegaConf.to_object(config)
    except (InterpolationResolutionError, ValidationError) as error:
        raise MistakeError(f"{error.full_key}: {str(error.msg or error).splitlines()[0]}") from None
    faults = list(_numbers(values, ""))
    if faults:
        raise MistakeError("; ".join(faults))
    return values


def _command(kind: type) -> str:
    return next(name for name, (path, _) in SCHEMAS.items() if path.endswith(f":{kind.__name__}"))


def _nodes(config: DictConfig, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the nested configs, without resolving interpolations."""
    for key in map(str, config):
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
            yield f"{prefix}{key}", node


def _unknown_keys(config: DictConfig, prefix: str, command: str) -> Iterator[str]:
    """Yield a text on every key that is not a setting."""
    kind = OmegaConf.get_type(config)
    if is_dataclass(kind):
        names = {item.name for item in fields(kind)}
        for key in map(str, config):
            if key not in names:
                yield unknown(f"{prefix}{key}", command)
    else:
        yield from _unknown_entries(config, prefix.rstrip("."), command)
    for name, node in _nodes(config, prefix):
        if is_dataclass(kind) or is_dataclass(OmegaConf.get_type(node)):
            yield from _unknown_keys(node, f"{name}.", command)


def _unknown_hydra_keys(config: Any, name: str, command: str) -> Iterator[str]:
    """Yield a text on every key that `+` has added to the settings of Hydra."""
    kind = OmegaConf.get_type(config)
    if not is_dataclass(kind):
        return
    names = {*(item.name for item in fields(kind)), *HYDRA_GROUPS}
    yield from (no_hydra_setting(f"{name}.{key}", names, command) for key in map(str, config) if key not in names)
    for child, node in _nodes(config, f"{name}."):
        yield from _unknown_hydra_keys(node, child, command)


def _unknown_entries(config: DictConfig, name: str, command: str) -> Iterator[str]:
    """Yield a text on every entry of a dictionary that is not allowed."""
    if name in SEVERAL:
        invalid_names = [key for key in map(str, config) if not is_dataclass(OmegaConf.get_type(config, key))]
        yield from (unknown(f"{name}.{key}", command) for key in invalid_names)
        return
    parent = config._get_parent()
    backend = str(parent.get("name", "")) if isinstance(parent, DictConfig) else ""
    names = entries(name, backend)
    unknown_names = [key for key in map(str, config) if names is not None and key not in names]
    yield from (unknown(f"{name}.{key}", command, backend) for key in unknown_names)


def _removed(config: DictConfig, prefix: str) -> Iterator[str]:
    """Yield a text on every setting that `~` has removed."""
    kind = OmegaConf.get_type(config)
    if is_dataclass(kind):
        for item in fields(kind):
            if item.name not in config.keys():  # noqa: SIM118 - a value that is missing is no member
                yield f"{prefix}{item.name} cannot be removed; give it a value, or leave it out"
    for name, node in _nodes(config, prefix):
        yield from _removed(node, f"{name}.")


def _missing(config: DictConfig, kind: type, command: str) -> Iterator[str]:
    for key in sorted(OmegaConf.missing_keys(config)):
        setting = settings(kind).get(key)
        text = f" ({setting.text})" if setting and setting.text else ""
        yield f"{key} is missing; write {program(command)} {key}=...{text}"


def _numbers(config: Any, prefix: str) -> Iterator[str]:
    """Yield a text on every number that is not finite, and on every seed that generators do not accept."""
    for item in fields(config):
        value = getattr(config, item.name)
        name = f"{prefix}{item.name}"
        if is_dataclass(value):
            yield from _numbers(value, f"{name}.")
        elif isinstance(value, dict):
            for key, entry in value.items():
                if is_dataclass(entry):
                    yield from _numbers(entry, f"{name}.{key}.")
        elif isinstance(value, int) and item.name.endswith("seed") and not 0 <= value <= LARGEST_SEED:
            yield f"{name}={value} must be in 0..{LARGEST_SEED}"
        elif isinstance(value, float) and not _allowed(value, name):
            yield f"{name}={value} must be a finite number"


def _allowed(value: float, name: str) -> bool:
    return math.isfinite(value) or (math.isinf(value) and name.split(".")[0] not in FINITE)
