"""Characterisation of a device from settings to files, for `hxtrain fit`."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hxtrain.backends import DeviceError
from hxtrain.characterisation.fit import Characterisation, Report, characterise
from hxtrain.execution import place
from hxtrain.execution.config import SOFTWARE, BackendConfig, ChipConfig
from hxtrain.network import NetworkConfig
from hxtrain.plots import chip_figure, parameter_maps, style
from hxtrain.runs.metrics import write_json
from hxtrain.runs.process import tuned
from hxtrain.runs.versions import versions


@dataclass
class FitConfig:
    """Settings of a characterisation.

    Attributes:
        backend: Kind of the device.
        chip: Chip of the device.
        network: Network in whose placement neurons are characterised.
        inputs: Number of inputs of the network.
        classes: Number of classes of the network.
        file: Output file of the parameters.
        seed: Seed of the order of trials.
    """

    backend: BackendConfig = field(default_factory=BackendConfig)
    chip: ChipConfig = field(default_factory=ChipConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    inputs: int = 256
    classes: int = 10
    file: str = "???"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("inputs", "classes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


def fit_device(config: FitConfig, folder: Path, command: str, report: Report | None = None) -> Characterisation:
    """Characterise a device; write the parameters to `config.file`, and `fit.json` and `chip.png` into `folder`.

    Raises:
        DeviceError: There is no device, or it fails.
        PlacementError: The network does not fit the device.
    """
    file = Path(config.file).expanduser()
    if not file.absolute().parent.is_dir():
        raise ValueError(f"file={config.file}: there is no folder {file.absolute().parent}; make it first")
    backend = config.backend.create(config.chip)
    if backend is None:
        raise DeviceError(f"backend={SOFTWARE} is no device; name one to be characterised")
    net = config.network.build(config.inputs, config.classes, seed=0)
    circuit = place(net, backend.capabilities, max_runs=1).circuit
    start = time.perf_counter()
    with tuned(1), backend:
        characterisation = characterise(backend, circuit, config.seed, report, config.backend.retries)
        backend.configure(circuit)  # after the circuits of the last measurement
        chip = backend.circuit_map
    if chip is not None and chip.places.size:
        maps = parameter_maps(chip, characterisation.parameters)
        style.save(chip_figure(chip, values=maps), folder / "chip.png")
    characterisation.parameters.save(file)
    write_json(
        folder / "fit.json",
        {
            **characterisation.parameters.device,
            "file": str(file.absolute()),
            "hash": characterisation.parameters.hash,
            "parameters": [asdict(row) for row in rows(characterisation)],
            "saturation": characterisation.parameters.saturation,
            "rails": characterisation.parameters.rails,
            "notes": list(characterisation.parameters.notes),
            "trials": characterisation.measured.trials,
            "seconds": time.perf_counter() - start,
            "seed": config.seed,
            "settings": {name: asdict(getattr(config, name)) for name in ("backend", "chip", "network")},
            "command": command,
            "versions": versions(),
        },
    )
    return characterisation


@dataclass(frozen=True)
class Row:
    """Median and spread (standard deviation) of a parameter over the neurons that have an estimate."""

    parameter: str
    unit: str
    median: float | None
    spread: float | None
    missing: int


def rows(characterisation: Characterisation) -> list[Row]:
    """Return one row per parameter; noise levels are single numbers, without spread."""
    p = characterisation.parameters
    m = characterisation.measured
    none = np.zeros(len(p.leak), bool)
    missing = characterisation.missing
    arrays: list[tuple[str, str, Any, Any]] = [
        ("leak", "", p.leak, missing["leak"]),
        ("threshold", "", p.threshold, missing["threshold"]),
        ("threshold - leak", "", p.threshold - p.leak, missing["threshold"] | missing["leak"]),
        ("reset", "", p.reset, missing["reset"]),
        ("tau_mem", "us", 1e6 * p.tau_mem, missing["tau_mem"]),
        ("tau_syn excitatory", "us", 1e6 * p.tau_syn[:, 0], missing["tau_syn"]),
        ("tau_syn inhibitory", "us", 1e6 * p.tau_syn[:, 1], missing["tau_syn"]),
        ("gain excitatory", "", m.shapes.gain[:, 0], missing["strength"]),
        ("gain inhibitory", "", m.shapes.gain[:, 1], missing["strength"]),
        ("refractory period", "us", 1e6 * m.refractory, ~np.isfinite(m.refractory)),
        ("delay of samples", "us", 1e6 * m.shapes.delay, none),
    ]
    scalars = [
        ("membrane noise", "", p.membrane_noise),
        ("sample noise", "", p.trace_noise),
        ("threshold noise", "", p.threshold_noise),
        ("spike jitter", "us", 1e6 * p.spike_jitter),
    ]
    table = [_row(name, unit, values[..., ~absent], int(absent.sum())) for name, unit, values, absent in arrays]
    return table + [Row(name, unit, value, None, 0) for name, unit, value in scalars]


def _row(name: str, unit: str, values: Any, missing: int) -> Row:
    if values.size == 0:
        return Row(name, unit, None, None, missing)
    return Row(name, unit, float(np.median(values)), float(np.std(values)), missing)


def table(characterisation: Characterisation) -> list[tuple[str, ...]]:
    """Return the rows as text: parameter, median, spread, neurons without an estimate."""
    return [
        (row.parameter, _text(row.median, row.unit), _text(row.spread, row.unit), str(row.missing or "-"))
        for row in rows(characterisation)
    ]


def _text(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.3f} {unit}".strip()
