"""The YAML files of the package."""

from __future__ import annotations

from importlib.resources import files


def options(group: str) -> list[str]:
    """Return the options of a group of YAML files."""
    folder = files("hxtrain.experiments.conf").joinpath(*group.split("/"))
    file_names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    return sorted(name.removesuffix(".yaml") for name in file_names if name.endswith(".yaml"))
