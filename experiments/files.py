"""The YAML files of the package."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from omegaconf import OmegaConf

RULE = "override /rule"
"""Entry of an experiment's defaults that makes it one of a rule."""


def options(group: str) -> list[str]:
    """Return the options of a group of YAML files."""
    folder = files("hxtrain.experiments.conf").joinpath(*group.split("/"))
    file_names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    return sorted(name.removesuffix(".yaml") for name in file_names if name.endswith(".yaml"))


def varied_by(sweep: str) -> list[str]:
    """Return the groups and settings that a named sweep varies; none if the package has no such sweep."""
    if sweep not in options("sweep"):
        return []
    file = files("hxtrain.experiments.conf") / "sweep" / f"{sweep}.yaml"
    params = OmegaConf.select(OmegaConf.create(file.read_text(encoding="utf-8")), "hydra.sweeper.params")
    return [str(key) for key in params or ()]


def experiments_of_rules() -> dict[str, str]:
    """Return the learning rule of each experiment that names one, by the experiment's name."""
    rules = {name: _rule(name) for name in options("experiment")}
    return {name: rule for name, rule in rules.items() if rule is not None}


def _rule(experiment: str) -> str | None:
    """Return the learning rule that an experiment names; None if it names none."""
    file = files("hxtrain.experiments.conf") / "experiment" / f"{experiment}.yaml"
    content: Any = OmegaConf.to_container(OmegaConf.create(file.read_text(encoding="utf-8")))
    names = [str(entry[RULE]) for entry in content.get("defaults", []) if isinstance(entry, dict) and RULE in entry]
    return names[-1] if names else None
