"""The structured configs of the command line: the options of a group are dataclasses of components."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from functools import cache
from importlib.resources import files
from pkgutil import resolve_name
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hxtrain.backends import Registry, UnknownComponentError
from hxtrain.datasets.augment import EventAugmentation, ImageAugmentation
from hxtrain.objectives.distillation import Distillation
from hxtrain.runs.saved import RESERVED
from hxtrain.training.config import AnnTrainerConfig, PlayerConfig, TrainerConfig

from .files import options as file_options
from .hydra_parser import accept_late_texts
from .resolvers import register_resolvers

REGISTRIES = {
    "network": "hxtrain.network:NETWORKS",
    "encoder": "hxtrain.datasets.encoders:ENCODERS",
    "loss": "hxtrain.objectives:LOSSES",
    "regularizer": "hxtrain.objectives:PENALTIES",
    "gradient": "hxtrain.gradients:GRADIENTS",
    "rule": "hxtrain.rules:RULES",
    "optimizer": "hxtrain.rules:OPTIMIZERS",
    "constraint": "hxtrain.rules:CONSTRAINTS",
    "tracker": "hxtrain.trackers:TRACKERS",
    "mask": "hxtrain.masks:MASKS",
    "model": "hxtrain.ann.models:MODELS",
    "environment": "hxtrain.environments:ENVIRONMENTS",
    "tasks": "hxtrain.datasets.sequences:SEQUENCES",
}
"""Groups whose options are registered components, with the place of their registry."""
SEVERAL = {"regularizer", "constraint", "tracker"}
"""Groups of which a run has any number of options, each with its settings under its name."""
NAMED: Mapping[str, str] = {"data": "hxtrain.datasets:DATASETS", "backend": "hxtrain.backends:BACKENDS"}
"""Groups whose options set `name` to the name of a registered function, with the place of their registry."""
VALUES: Mapping[str, str] = {
    "network.surrogate": "hxtrain.neurons:SURROGATES",
    "data.name": "hxtrain.datasets:DATASETS",
    "backend.name": "hxtrain.backends:BACKENDS",
}
"""Settings whose value names a registered function, with the place of their registry."""
FIXED: Mapping[str, Mapping[str, type]] = {
    "augment": {"none": ImageAugmentation, "events": EventAugmentation},
    "distillation": {"none": Distillation},
    "trainer": {"default": TrainerConfig, "ann": AnnTrainerConfig, "player": PlayerConfig},
}
"""Groups with a fixed set of options."""
OWN_EXPERIMENTS = ("ann", "convert", "play")
"""Commands whose experiments are in a folder with their name."""
TRAINERS: Mapping[str, str] = {"ann": "ann", "play": "player"}
"""Option of the group `trainer` of commands other than those that train on data."""
TRAINING: Mapping[str, Any] = {
    **dict.fromkeys(
        ("network", "encoder", "loss", "gradient", "rule", "optimizer", "augment", "mask", "tasks"), MISSING
    ),
    "regularizer": {},
    "constraint": {},
}
"""Settings that a training command takes only from its groups."""
SCHEMAS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "train": ("hxtrain.commands.settings:RunConfig", TRAINING),
    "ann": ("hxtrain.commands.ann:AnnConfig", {"model": MISSING}),
    "play": (
        "hxtrain.commands.play:PlayConfig",
        {**dict.fromkeys(("environment", "network", "rule", "optimizer"), MISSING), "constraint": {}},
    ),
    "evaluate": ("hxtrain.commands.evaluate:EvaluateConfig", {}),
    "convert": ("hxtrain.commands.convert:ConvertConfig", dict.fromkeys(("network", "encoder"), MISSING)),
    "prune": ("hxtrain.commands.prune:PruneConfig", {"mask": MISSING}),
    "compare": ("hxtrain.commands.compare:CompareConfig", {}),
    "transfer": ("hxtrain.commands.transfer:TransferConfig", {**TRAINING, "chips": ["A", "B"]}),
    "sensitivity": ("hxtrain.commands.sensitivity:SensitivityConfig", {**TRAINING, "imperfections": ["leak"]}),
    "bench": ("hxtrain.experiments.benchmark.config:BenchConfig", {}),
    "report": ("hxtrain.commands.report.config:ReportConfig", {"folders": ["???"]}),
    "validate": ("hxtrain.commands.validate.run:ValidateConfig", {}),
    "calibrate": ("hxtrain.commands.calibrate:CalibrateConfig", {}),
    "fit": ("hxtrain.commands.fit:FitConfig", {}),
    "conformance": ("hxtrain.commands.conformance:ConformanceConfig", {}),
    "serve": ("hxtrain.commands.serve:ServeConfig", {}),
    "pool": ("hxtrain.commands.pool:PoolConfig", {}),
}
"""The dataclass of each command's settings, by the name of its YAML file, and changes of its defaults."""


def schema(command: str) -> type:
    """Return the dataclass of a command's settings; only this command's study is imported."""
    kind: type = resolve_name(SCHEMAS[command][0])
    return kind


def register(*commands: str) -> None:
    """Register structured configs with Hydra, for all commands by default, and adapt Hydra to this Python."""
    accept_late_texts()
    register_resolvers()
    for command in commands or SCHEMAS:
        _store("run_schema" if command == "train" else f"{command}_schema", _node(command))
    if not commands or "conformance" in commands:
        kind = resolve_name("hxtrain.commands.conformance:ToleranceSettings")
        _store("device", kind, "tolerances")
        for name, tolerances in resolve_name("hxtrain.backends.conformance:TOLERANCES").items():
            _store(name, kind(**asdict(tolerances)), "tolerances")
    for group in {group for command in commands or SCHEMAS for group in groups(command)}:
        for name, kind in nodes(group).items():
            _store(name, kind, group, f"{group}.{place(name)}" if group in SEVERAL else None)
        for name in _generated(group):
            _store(name, {"name": name}, group)
        original = group.removeprefix("other_")
        for name in options(original) if original != group else ():
            _store(name, {"defaults": [{f"/{original}@_here_": name}]}, group)


_stored: dict[tuple[str | None, str], Any] = {}
"""What Hydra has of each group and name; storing the same again takes milliseconds each."""


def _store(name: str, node: Any, group: str | None = None, package: str | None = None) -> None:
    stored = _stored.get((group, name))
    if stored is node or (type(stored) is type(node) and not isinstance(node, type) and stored == node):
        return
    ConfigStore.instance().store(name=name, node=node, group=group, package=package)
    _stored[group, name] = node


def registry(group: str) -> Registry[Any]:
    """Return the registry of a group or of a setting."""
    components: Registry[Any] = resolve_name({**REGISTRIES, **NAMED, **VALUES}[group])
    return components


def nodes(group: str) -> Mapping[str, type]:
    """Return the options of a group that are dataclasses; a component that cannot be used is left out, see `fault`."""
    if group not in REGISTRIES:
        return FIXED.get(group, {})
    components = registry(group)
    return {name: components.load(name) for name in components.reachable() if fault(group, name) is None}


def place(option: str) -> str:
    """Return the name under which an option of `SEVERAL` has its settings: for `my_module:Mine`, it is `Mine`."""
    return option.rpartition(":")[2].rpartition(".")[2]


def fault(group: str, option: str) -> str | None:
    """Return the reason why a registered component cannot be an option; None if it can, or is not registered."""
    if group not in REGISTRIES:
        return None  # the settings of data sets and devices are arguments
    components = registry(group)
    if option not in components.reachable():
        return None
    try:
        kind = components.load(option)
    except UnknownComponentError as error:
        return str(error)
    text = _misfit(kind) if isinstance(kind, type) else None
    return None if text is None else f"{group}={option}: {kind.__name__} {text}"


@cache
def _misfit(kind: type) -> str | None:
    """Return the reason why a class cannot be an option; None if it can."""
    attributes = vars(kind)
    if "__dataclass_fields__" not in attributes and {"__init__", "__annotations__"} & set(attributes):
        return "is no dataclass; write @dataclass above it"
    reserved = [item.name for item in fields(kind) if item.name in RESERVED]
    if reserved:
        return f"has a field {reserved[0]}, which checkpoints need; rename it"
    try:
        OmegaConf.structured(kind)
    except OmegaConfBaseException as error:
        return f"has a field that is no setting: {str(error).splitlines()[0]}"
    return None


def _generated(group: str) -> list[str]:
    """Return the options of a group that set `name`, and that no YAML file describes."""
    if group not in NAMED:
        return []
    return sorted(set(registry(group).reachable()) - set(file_options(group)))


def _node(command: str) -> Any:
    values = dict(SCHEMAS[command][1])
    if command == "report":
        values["series"] = [resolve_name("hxtrain.commands.report:Series")("runs")]
    return schema(command)(**values)


def callbacks(command: str) -> Collection[str]:
    """Return the names of the callbacks in the YAML file of a command."""
    return list(_yaml(command).get("hydra", {}).get("callbacks", {}))


@cache
def _yaml(command: str) -> Any:
    """Return the content of the YAML file of a command, without resolved interpolations."""
    text = (files("hxtrain.experiments.conf") / f"{command}.yaml").read_text(encoding="utf-8")
    return OmegaConf.to_container(OmegaConf.create(text))


@cache
def groups(command: str) -> Mapping[str, Any]:
    """Return the groups that a command has, with the default option of each (a list, a name, or None)."""
    defaults = [entry for entry in _yaml(command)["defaults"] if isinstance(entry, dict)]
    options = {group: option for entry in defaults for group, option in entry.items()}
    resolved: Any = OmegaConf.to_container(OmegaConf.create(options), resolve=True)  # a default may follow from another
    return dict(resolved)


def choices(command: str, group: str) -> list[str]:
    """Return the options of one of a command's groups."""
    if group == "experiment" and command in OWN_EXPERIMENTS:
        return [f"{command}/{name}" for name in options(f"experiment/{command}")]
    if group == "tolerances":
        return sorted(["device", *resolve_name("hxtrain.backends.conformance:TOLERANCES")])
    if group in REGISTRIES:
        return sorted(registry(group).reachable())
    if group in FIXED:
        hint = {"trainer": TRAINERS.get(command, "default")}.get(group)
        return sorted(name for name in FIXED[group] if hint in (None, name))
    return options(group.removeprefix("other_"))


def options(group: str) -> list[str]:
    """Return the options of a group of YAML files, and of registered functions."""
    return sorted([*file_options(group), *_generated(group)])
