"""The structured configs of the command line: the options of a group are dataclasses of components."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from pkgutil import resolve_name
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from hxtrain.ann.models import CNNConfig, MLPConfig
from hxtrain.datasets.augment import Augmentation
from hxtrain.datasets.encoders import LatencyEncoder, LinearLatencyEncoder
from hxtrain.execution.config import NetworkConfig
from hxtrain.objectives import Burst, MaxOverTime, MeanOverTime, UpperActivity, WeightDecay
from hxtrain.objectives.distillation import Distillation
from hxtrain.objectives.regularizers import ReadoutAmplitude
from hxtrain.training.config import AnnTrainerConfig, TrainerConfig

from .files import options as options
from .hydra_parser import accept_late_texts

OPTIONS: dict[str, dict[str, type]] = {
    "network": {"lif": NetworkConfig},
    "encoder": {"latency": LatencyEncoder, "linear_latency": LinearLatencyEncoder},
    "loss": {"max_over_time": MaxOverTime, "mean_over_time": MeanOverTime},
    "augment": {"none": Augmentation},
    "distillation": {"none": Distillation},
    "trainer": {"default": TrainerConfig, "ann": AnnTrainerConfig},
    "model": {"mlp": MLPConfig, "cnn": CNNConfig},
}
REGULARIZERS = {
    "burst": Burst,
    "upper_activity": UpperActivity,
    "readout_amplitude": ReadoutAmplitude,
    "weight_decay": WeightDecay,
}
PAIRED = ("backend", "chip")
"""Groups that a comparison has twice: `other_backend` and `other_chip` have the same options."""


TRAINING = {"encoder": MISSING, "regularizer": {}}
"""Settings that a training command takes only from its groups."""
SCHEMAS: dict[str, tuple[str, dict[str, Any]]] = {
    "train": ("hxtrain.commands.train:RunConfig", TRAINING),
    "ann": ("hxtrain.commands.ann:AnnConfig", {"model": MISSING}),
    "evaluate": ("hxtrain.commands.evaluate:EvaluateConfig", {}),
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
}
"""The dataclass of each command's settings, by the name of its YAML file, and changes of its defaults."""


def schema(command: str) -> type:
    """Return the dataclass of a command's settings; only this command's study is imported."""
    kind: type = resolve_name(SCHEMAS[command][0])
    return kind


def register(*commands: str) -> None:
    """Register structured configs with Hydra, for all commands by default, and adapt Hydra to this Python."""
    accept_late_texts()
    store = ConfigStore.instance()
    for command in commands or SCHEMAS:
        store.store(name="run_schema" if command == "train" else f"{command}_schema", node=_node(command))
    if not commands or "conformance" in commands:
        kind = resolve_name("hxtrain.commands.conformance:ToleranceSettings")
        store.store(group="tolerances", name="device", node=kind)
        for name, tolerances in resolve_name("hxtrain.backends.conformance:TOLERANCES").items():
            store.store(group="tolerances", name=name, node=kind(**asdict(tolerances)))
    for group in PAIRED:
        for name in options(group):
            store.store(group=f"other_{group}", name=name, node={"defaults": [{f"/{group}@_here_": name}]})
    for group, nodes in OPTIONS.items():
        for name, node in nodes.items():
            store.store(group=group, name=name, node=node)
    for name, regularizer in REGULARIZERS.items():
        store.store(group="regularizer", name=name, node=regularizer, package=f"regularizer.{name}")


def _node(command: str) -> Any:
    values = dict(SCHEMAS[command][1])
    if command == "report":
        values["series"] = [resolve_name("hxtrain.commands.report:Series")("runs")]
    return schema(command)(**values)


@cache
def groups(command: str) -> Mapping[str, Any]:
    """Return the groups that a command has, with the default option of each (a list, a name, or None)."""
    text = (files("hxtrain.experiments.conf") / f"{command}.yaml").read_text(encoding="utf-8")
    entries: Any = OmegaConf.to_container(OmegaConf.create(text))
    defaults = [entry for entry in entries["defaults"] if isinstance(entry, dict)]
    return {group: option for entry in defaults for group, option in entry.items()}


def choices(command: str, group: str) -> list[str]:
    """Return the options of one of a command's groups."""
    if group == "experiment" and command == "ann":
        return [f"ann/{name}" for name in options("experiment/ann")]
    if group == "tolerances":
        return sorted(["device", *resolve_name("hxtrain.backends.conformance:TOLERANCES")])
    if group == "regularizer":
        return sorted(REGULARIZERS)
    if group in OPTIONS:
        hint = {"trainer": "ann" if command == "ann" else "default"}.get(group)
        return sorted(name for name in OPTIONS[group] if hint in (None, name))
    return options(group.removeprefix("other_"))
