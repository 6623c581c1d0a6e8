"""The structured configs of the command line: each group's options are the components' own dataclasses."""

from __future__ import annotations

from dataclasses import asdict
from importlib.resources import files

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from hxtrain.backends.conformance import TOLERANCES
from hxtrain.config import NetworkConfig
from hxtrain.encoders import LatencyEncoder, LinearLatencyEncoder
from hxtrain.losses import MaxOverTime, MeanOverTime
from hxtrain.models import CNNConfig, MLPConfig
from hxtrain.regularizers import Burst, ReadoutAmplitude, UpperActivity, WeightDecay
from hxtrain.studies.ann import AnnConfig
from hxtrain.studies.bench import BenchConfig
from hxtrain.studies.calibrate import CalibrateConfig
from hxtrain.studies.compare import CompareConfig
from hxtrain.studies.conformance import Chosen, ConformanceConfig
from hxtrain.studies.evaluate import EvaluateConfig
from hxtrain.studies.fit import FitConfig
from hxtrain.studies.report import ReportConfig, Series
from hxtrain.studies.sensitivity import SensitivityConfig
from hxtrain.studies.serve import ServeConfig
from hxtrain.studies.transfer import TransferConfig
from hxtrain.studies.validate import ValidateConfig
from hxtrain.training import AnnTrainerConfig, Augmentation, Distillation, RunConfig, TrainerConfig

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
SECOND = ("backend", "chip")
"""Groups of which a comparison has a second one, `other_backend` and `other_chip`, with the same options."""


def register() -> None:
    """Make all structured configs known to Hydra, and Hydra at home on this Python."""
    accept_late_texts()
    store = ConfigStore.instance()
    store.store(name="run_schema", node=RunConfig(encoder=MISSING, regularizer={}))
    store.store(name="ann_schema", node=AnnConfig(model=MISSING))
    store.store(name="evaluate_schema", node=EvaluateConfig)
    store.store(name="compare_schema", node=CompareConfig)
    store.store(name="transfer_schema", node=TransferConfig(encoder=MISSING, regularizer={}, chips=["A", "B"]))
    store.store(
        name="sensitivity_schema", node=SensitivityConfig(encoder=MISSING, regularizer={}, imperfections=["leak"])
    )
    store.store(name="bench_schema", node=BenchConfig)
    store.store(name="report_schema", node=ReportConfig(folders=["???"], series=[Series("runs")]))
    store.store(name="validate_schema", node=ValidateConfig)
    store.store(name="calibrate_schema", node=CalibrateConfig)
    store.store(name="fit_schema", node=FitConfig)
    store.store(name="conformance_schema", node=ConformanceConfig)
    store.store(group="tolerances", name="device", node=Chosen)
    for name, tolerances in TOLERANCES.items():
        store.store(group="tolerances", name=name, node=Chosen(**asdict(tolerances)))
    store.store(name="serve_schema", node=ServeConfig)
    for group in SECOND:
        for name in options(group):
            store.store(group=f"other_{group}", name=name, node={"defaults": [{f"/{group}@_here_": name}]})
    for group, nodes in OPTIONS.items():
        for name, node in nodes.items():
            store.store(group=group, name=name, node=node)
    for name, regularizer in REGULARIZERS.items():
        store.store(group="regularizer", name=name, node=regularizer, package=f"regularizer.{name}")


def options(group: str) -> list[str]:
    """Return the options of a group of YAML files."""
    found = (file.name for file in (files("hxtrain.experiments.conf") / group).iterdir())
    return sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml"))
