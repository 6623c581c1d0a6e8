"""The structured configs of the command line: each group's options are the components' own dataclasses."""

from __future__ import annotations

from hydra.core.config_store import ConfigStore

from hxtrain.config import NetworkConfig
from hxtrain.encoders import LatencyEncoder
from hxtrain.losses import MaxOverTime, MeanOverTime
from hxtrain.regularizers import Burst, ReadoutAmplitude, UpperActivity, WeightDecay
from hxtrain.training import EvaluateConfig, RunConfig, TrainerConfig

OPTIONS: dict[str, dict[str, type]] = {
    "network": {"lif": NetworkConfig},
    "encoder": {"latency": LatencyEncoder},
    "loss": {"max_over_time": MaxOverTime, "mean_over_time": MeanOverTime},
    "trainer": {"default": TrainerConfig},
}
REGULARIZERS = {
    "burst": Burst,
    "upper_activity": UpperActivity,
    "readout_amplitude": ReadoutAmplitude,
    "weight_decay": WeightDecay,
}


def register() -> None:
    """Make all structured configs known to Hydra."""
    store = ConfigStore.instance()
    store.store(name="run_schema", node=RunConfig(regularizer={}))
    store.store(name="evaluate_schema", node=EvaluateConfig)
    for group, options in OPTIONS.items():
        for name, node in options.items():
            store.store(group=group, name=name, node=node)
    for name, regularizer in REGULARIZERS.items():
        store.store(group="regularizer", name=name, node=regularizer, package=f"regularizer.{name}")
