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
    "optimizer": {"optimizer.kind": "adam", "optimizer.betas": [0.9, 0.999], "optimizer.eps": 1e-8},
}
"""Settings that the first versions did not have, since there was no choice, by group."""
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


def _canonical(registry: Registry[Any], value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_canonical(registry, name) for name in value]
    try:
        return registry.canonical(value)
    except UnknownComponentError:
        return value
