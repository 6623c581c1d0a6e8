"""The YAML files of the package."""

from __future__ import annotations

from importlib.resources import files


def options(group: str) -> list[str]:
    """Return the options of a group of YAML files."""
    file_names = (file.name for file in files("hxtrain.experiments.conf").joinpath(*group.split("/")).iterdir())
    return sorted(name.removesuffix(".yaml") for name in file_names if name.endswith(".yaml"))
