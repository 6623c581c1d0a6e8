"""Interpolations of the YAML files beyond Hydra's own."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from omegaconf import OmegaConf

from hxtrain.backends import UnknownComponentError

from .files import experiments_of_rules

LONGEST = 150
"""Largest length of the name of a run's folder in a sweep; file systems allow 255 bytes."""
LONG = ("_mnist16",)
"""Ends of the names of experiments that take more than a minute."""


def register_resolvers() -> None:
    """Register the resolvers with OmegaConf."""
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)
    OmegaConf.register_new_resolver("optimizer_of", optimizer_of, replace=True)
    OmegaConf.register_new_resolver("augment_of", augment_of, replace=True)
    OmegaConf.register_new_resolver("gallery", gallery, replace=True)
    OmegaConf.register_new_resolver("experiments_of_rules", experiments_of_rules, replace=True)


def run_folder(sweep: str, settings: str) -> str:
    """Return the name of a run's folder in a sweep: its settings, in letters that every shell and file system accepts.

    A shortened name ends in a hash of the settings. An existing folder with the unchanged settings as its name, from an
    earlier version, is used again.

    Args:
        sweep: Folder of the sweep.
        settings: Settings of the run, such as `network.hidden=[10],seed=1` (Hydra's `override_dirname`).
    """
    if _exists(Path(sweep) / settings):
        return settings
    plain = settings.replace("=", "-").replace(",", "__")
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", plain).strip("-.")
    if name == plain and len(name) <= LONGEST:
        return name
    return f"{name[:LONGEST].rstrip('-.')}-{sha256(settings.encode()).hexdigest()[:8]}"


def _exists(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError:  # the name is too long for one
        return False


def optimizer_of(rule: str) -> str:
    """Return the name of the optimiser that goes with a rule; a mistaken name gets one, too, and is refused later."""
    from hxtrain.rules import RULES, optimizer_name  # a command without rules does not import torch

    try:
        return optimizer_name(RULES.load(rule))
    except UnknownComponentError:
        return "adam"


def augment_of(encoder: str) -> str:
    """Return the name of the augmentation that goes with an encoder; a mistaken name gets one, too."""
    from hxtrain.datasets.encoders import ENCODERS, EVENTS

    try:
        return "events" if ENCODERS.load(encoder).TAKES == EVENTS else "none"
    except UnknownComponentError:
        return "none"


def gallery(task: str = "") -> str:
    """Return the experiments of learning rules, as the values of a sweep.

    Args:
        task: End of the names, such as `digits` for `backprop_digits`; empty for all but those of `LONG`.
    """
    names = [name for name in experiments_of_rules() if name.endswith(f"_{task}" if task else "")]
    return ",".join(name for name in names if task or not name.endswith(LONG))
