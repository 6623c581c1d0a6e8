"""What a run is identified by: the settings that change a step, its components, data and device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hxtrain.ann.models import MODELS
from hxtrain.ann.teachers import teacher_settings
from hxtrain.backends import Registry, free_settings
from hxtrain.datasets import Dataset
from hxtrain.datasets.encoders import ENCODERS
from hxtrain.datasets.sequences import SEQUENCES, SingleTask
from hxtrain.environments import ENVIRONMENTS
from hxtrain.execution import Device
from hxtrain.execution.config import SOFTWARE
from hxtrain.gradients import GRADIENTS
from hxtrain.masks import MASKS
from hxtrain.network import NETWORKS
from hxtrain.objectives import LOSSES, PENALTIES
from hxtrain.rules import CONSTRAINTS, OPTIMIZERS, RULES
from hxtrain.training.config import FREE_TO_CHANGE as FREE_LOOP_SETTINGS
from hxtrain.training.config import CourseConfig

from .settings import RunConfig

REGISTRIES: Mapping[str, Registry[Any]] = {
    "network": NETWORKS,
    "encoder": ENCODERS,
    "loss": LOSSES,
    "regularizer": PENALTIES,
    "gradient": GRADIENTS,
    "rule": RULES,
    "optimizer": OPTIMIZERS,
    "constraint": CONSTRAINTS,
    "mask": MASKS,
    "tasks": SEQUENCES,
    "environment": ENVIRONMENTS,
    "model": MODELS,
}
"""Registry of each part of which there are several kinds, in the settings of any command that trains."""


FREE_TO_CHANGE = {
    *(f"trainer.{name}" for name in FREE_LOOP_SETTINGS),
    "data.folder",  # the content hash stands for the files
    "data.settings.memory",
    "data.download",
    "backend.retries",
    "backend.max_runs",
    "backend.run_timeout",
    "backend.record",
    "parallel.chips",
    "parallel.addresses",
    "live",
    "view.host",
    "view.port",
    "view.token",
    "view.serve",
}
"""Settings that may differ in a resumed run, since they do not change a step (with a cosine, the epochs do)."""


def free_to_change(backend: str) -> set[str]:
    """Return `FREE_TO_CHANGE` with the settings of a backend that change no recording; its identity is still checked.

    An entry of the identity with the name of such a setting, as the address of a chip server, is free as well.
    """
    groups = ("backend.settings", "identity")
    return FREE_TO_CHANGE | {f"{group}.{name}" for group in groups for name in free_settings(backend)}


def identified_settings(config: RunConfig, identity: Mapping[str, str], data: Dataset) -> dict[str, Any]:
    """Return the flat plain values that identify a run; a resumed run must have the same."""
    return {**run_settings(config), **device_entries(config.backend.name, identity), "data.sha256": data.sha256}


def device_entries(backend: str, identity: Mapping[str, str]) -> dict[str, str]:
    """Return the entries `identity.NAME` of a device that is identified, without those that are free to change."""
    free = free_to_change(backend)
    return {f"identity.{key}": value for key, value in identity.items() if f"identity.{key}" not in free}


def run_settings(config: RunConfig) -> dict[str, Any]:
    """Return all settings that change a step, flat; a teacher is identified by its content."""
    settings = step_settings(config, config.trainer)
    flat = {key: value for key, value in settings.items() if not key.startswith("distillation.")}
    return flat | teacher_settings(config.distillation)


def step_settings(config: Any, trainer: CourseConfig) -> dict[str, Any]:
    """Return the settings of a config (a dataclass) that are not free to change, flat, with its components."""
    settings = flatten(asdict(config))
    free = free_to_change(settings.get("backend.name", ""))
    is_sequence = getattr(config, "tasks", SingleTask()) != SingleTask()
    free -= {"trainer.epochs"} if trainer.schedule == "cosine" or is_sequence else set()
    values = {key: value for key, value in settings.items() if key not in free and key.split(".")[0] != "tracker"}
    return {**values, **component_names(config)}


def component_names(config: Any) -> dict[str, Any]:
    """Return the registered names of the components of a config: `loss.kind`; of several, `regularizer.kinds`."""
    names: dict[str, Any] = {}
    for group, registry in REGISTRIES.items():
        value = getattr(config, group, None)
        if isinstance(value, dict):
            names[f"{group}.kinds"] = [registry.name_of(type(part)) for part in value.values()]
        elif value is not None:
            names[f"{group}.kind"] = registry.name_of(type(value))
    return names


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as `group.name` keys with plain values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def device_identity(device: Device | None) -> dict[str, str]:
    """Return the identity of the device that runs the network."""
    if device is None:
        return {"backend": SOFTWARE, "chip": "none", "chip_hash": "none"}
    return dict(device.backend.identity)


def joined(identities: list[dict[str, str]]) -> dict[str, str]:
    """Return the properties of all devices; properties that differ are joined with `|`."""
    return {
        key: identities[0][key]
        if len({identity.get(key) for identity in identities}) == 1
        else "|".join(str(identity.get(key)) for identity in identities)
        for key in identities[0]
    }
