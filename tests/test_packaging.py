"""The installed distribution is complete: sub-packages, type marker, data, configs, entry points."""

from __future__ import annotations

import importlib
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = [
    "hxtrain",
    "hxtrain.ann",
    "hxtrain.audio",
    "hxtrain.characterisation",
    "hxtrain.commands",
    "hxtrain.commands.report",
    "hxtrain.commands.validate",
    "hxtrain.comparison",
    "hxtrain.conversion",
    "hxtrain.datasets",
    "hxtrain.datasets.augment",
    "hxtrain.datasets.encoders",
    "hxtrain.datasets.events",
    "hxtrain.datasets.files",
    "hxtrain.datasets.tasks",
    "hxtrain.environments",
    "hxtrain.exchange",
    "hxtrain.execution",
    "hxtrain.gradients",
    "hxtrain.masks",
    "hxtrain.network",
    "hxtrain.neurons",
    "hxtrain.neurons.engines",
    "hxtrain.objectives",
    "hxtrain.plots",
    "hxtrain.rules",
    "hxtrain.rules.optimizers",
    "hxtrain.runs",
    "hxtrain.trackers",
    "hxtrain.training",
    "hxtrain.view",
    "hxtrain.backends",
    "hxtrain.backends.brainscales2",
    "hxtrain.backends.conformance",
    "hxtrain.backends.pool",
    "hxtrain.backends.remote",
    "hxtrain.backends.remote.front",
    "hxtrain.backends.replay",
    "hxtrain.emulator",
    "hxtrain.emulator.calibration",
    "hxtrain.emulator.calibration.files",
    "hxtrain.emulator.engines",
    "hxtrain.experiments",
    "hxtrain.experiments.benchmark",
    "hxtrain.experiments.benchmark.peers",
    "hxtrain.experiments.conf",
]
BACKENDS = {"brainscales2", "emulator", "reference", "remote", "replay"}
ENTRY_POINTS = [
    entry
    for entry in metadata.distribution("hxtrain").entry_points
    if entry.group in ("console_scripts", "hxtrain.backends")
]


@pytest.fixture(scope="module")
def setup() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="comes with Python 3.11")
    content: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return content["tool"]["setuptools"]


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_installed(package: str) -> None:
    assert importlib.import_module(package).__name__ == package


def test_every_folder_with_code_is_a_listed_package(setup: dict[str, Any]) -> None:
    """An editable install runs without the entry; a wheel does not."""
    folders = {
        ".".join((package, *code.relative_to(ROOT / folder).parts[:-1]))
        for package, folder in setup["package-dir"].items()
        for code in (ROOT / folder).rglob("*.py")
    }
    assert folders == set(setup["packages"]) == set(PACKAGES)


@pytest.mark.parametrize(
    ("package", "pattern", "minimum"),
    [
        ("hxtrain", "py.typed", 1),
        ("hxtrain.datasets.files", "*.npz", 4),
        ("hxtrain.emulator.calibration.files", "*.npz", 6),
        ("hxtrain.experiments.conf", "*.yaml", 1),
    ],
)
def test_files_are_installed(package: str, pattern: str, minimum: int) -> None:
    names = [file.name for file in resources.files(package).iterdir() if Path(file.name).match(pattern)]
    assert len(names) >= minimum, f"{package} holds {names}, expected {minimum} or more files {pattern}"


def test_backends_are_registered() -> None:
    assert {entry.name for entry in ENTRY_POINTS if entry.group == "hxtrain.backends"} == BACKENDS


@pytest.mark.parametrize("entry", ENTRY_POINTS, ids=lambda entry: entry.name)
def test_entry_point_loads(entry: metadata.EntryPoint) -> None:
    assert callable(entry.load())


def test_versions_agree() -> None:
    version = metadata.version("hxtrain")
    assert importlib.import_module("hxtrain").__version__ == version
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()
