"""Names of components in the settings of a run: those of the registries, whatever version wrote the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hxtrain.backends import Registry, UnknownComponentError

KINDS = {
    "network.kind": "networks",
    "encoder.kind": "encoders",
    "loss.kind": "losses",
    "regularizer.kinds": "penalties",
    "gradient.kind": "gradients",
    "rule.kind": "rules",
    "optimizer.kind": "optimizers",
    "constraint.kinds": "constraints",
    "mask.kind": "masks",
    "tasks.kind": "sequences",
    "model.kind": "models",
}
"""Kind of the components, by the setting that names one or several."""
FIRST_VERSIONS: Mapping[str, Mapping[str, Any]] = {
    "network": {
        "network.kind": "lif",
        "network.output": "membranes",
        "network.inhibition": 0.0,
        "network.init_mean_output": 0.0,
    },
    "encoder": {"encoder.kind": "latency"},
    "gradient": {"gradient.kind": "surrogate"},
    "rule": {"rule.kind": "backprop"},
    "constraint": {"constraint.kinds": ["clamp"]},
    "tasks": {"tasks.kind": "none"},
    "optimizer": {"optimizer.kind": "adam", "optimizer.betas": [0.9, 0.999], "optimizer.eps": 1e-8},
}
"""Settings that the first versions did not have, since there was no choice, by group."""
LATER_VERSIONS: Mapping[str, Any] = {
    "chip.avoid_failures": False,
    "data.validation_groups": [],
    "data.validation_random_groups": 0,
    "data.validation_seed": 0,
    "data.shuffled_times": False,
    "encoder.first": 0,
    "encoder.stride": 1,
    "encoder.pooled": False,
    "gradient.refractory": False,
    "mask.kind": "none",
    "model.activation": "relu",
    "model.bias": True,
    "model.gamma": 0.03,
    "model.noise": 0.0,
    "model.tau_mem": 20e-3,
    "model.tau_ref": 2e-3,
    "trainer.activity_l2": 0.0,
    "trainer.choose": "last",
    "trainer.pretraining_epochs": 0,
    "trainer.pretraining_learning_rate": 1e-3,
    "trainer.pretraining_zeros": 0.5,
    "trainer.retrain": False,
}
"""Settings of later versions, with the values that change nothing."""
WITHOUT_EFFECT = "augment."
"""Start of the names of settings that change nothing if they are 0 or false, whatever else their group has."""
LATER_TEXTS: Mapping[str, str] = {
    "ImageAugmentation(": "Augmentation(",
    ", first=0, stride=1, pooled=False": "",
    ", refractory=False)": ")",
    "refractory=None, ": "",
}
"""Parts of the texts that stand for components in runs of `hx.fit`, with what earlier versions have instead."""
RENAMED: Mapping[str, Mapping[str, str]] = {"backend.settings.engine": {"compiled": "fast", "stepwise": "readable"}}
"""Values of settings that have another name today, by setting."""


def current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run with registered names of all components.

    Files of old versions have class names such as `MaxOverTime`, or none. Unknown names are left as they are.
    """
    names = dict(settings)
    for group, values in FIRST_VERSIONS.items():
        if not {f"{group}.kind", f"{group}.kinds"} & set(settings):
            names |= values
    for key, values in RENAMED.items():
        if settings.get(key) in values:
            names[key] = values[settings[key]]
    for key, kind in KINDS.items():
        if key in settings:
            names[key] = _canonical(Registry(kind, key.partition(".")[0]), settings[key])
    return names


def with_later_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of any version for a comparison: with those of later versions, without those that do nothing."""
    values = {**LATER_VERSIONS, **settings}
    return {name: _first_text(value) for name, value in values.items() if value or not name.startswith(WITHOUT_EFFECT)}


def _first_text(value: Any) -> Any:
    """Return the text of a component as an earlier version has it if it means the same; other values as they are."""
    if isinstance(value, str):
        for text, first_text in LATER_TEXTS.items():
            value = value.replace(text, first_text)
    return value


def _canonical(registry: Registry[Any], value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_canonical(registry, name) for name in value]
    try:
        return registry.canonical(value)
    except UnknownComponentError:
        return value
