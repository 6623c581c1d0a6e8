"""The experiments of rules made small: a few epochs on a calibrated emulated chip bring them far above chance."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from hxtrain.commands.train import run
from hxtrain.experiments.schema import register
from hxtrain.runs.progress import Progress

SMALL = ("trainer.train_samples=600", "trainer.test_samples=300")
TASKS = {
    "eprop_digits": (0.5, "trainer.epochs=8", *SMALL),
    "eventprop_yin_yang": (0.85, "trainer.epochs=2"),
    "rtrl_digits": (0.7, "trainer.epochs=4", *SMALL),
    "sdsp_digits": (0.6, "trainer.epochs=3", *SMALL),
    "spikeprop_xor": (0.9, "trainer.epochs=40"),
    "superspike_digits": (0.6, "trainer.epochs=4", *SMALL),
}
"""Least test accuracy of an experiment, and what makes it small; chance is 0.1, or 1/3 (Yin-Yang) and 1/2 (XOR)."""
register()


@pytest.mark.parametrize("name", TASKS)
def test_a_rule_learns_its_task(name: str, tmp_path: Path) -> None:
    threshold, *changes = TASKS[name]
    with initialize_config_module("hxtrain.experiments.conf", version_base="1.3"):
        words = [f"experiment={name}", "trainer.plots=false", *map(str, changes)]
        config: Any = OmegaConf.to_object(compose("train", words))
    assert run(config, tmp_path, progress=Progress(False))["test_accuracy"] >= threshold
