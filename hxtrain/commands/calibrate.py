"""Calibration of a chip from settings to a file, for `hxtrain calibrate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import List, Optional  # noqa: UP035 - OmegaConf resolves these on every Python

from hxtrain.backends import DeviceError, Outcome, Targets, supports
from hxtrain.execution.config import SOFTWARE, BackendConfig, ChipConfig
from hxtrain.plots import chip_figure, style
from hxtrain.runs.metrics import write_json
from hxtrain.runs.versions import versions


@dataclass
class CalibrateConfig:
    """Settings of a calibration.

    Attributes:
        backend: Kind of the device.
        chip: Chip of the device.
        targets: Target values of the parameters.
        file: Output file of the calibration; None for `NAME.npz` in the run directory.
        stages: Stages of the calibration, the remaining ones keep common codes; None for all.
        seed: Seed of the temporal noise in measurements of an emulated chip.
    """

    backend: BackendConfig = field(default_factory=BackendConfig)
    chip: ChipConfig = field(default_factory=ChipConfig)
    targets: Targets = field(default_factory=Targets)
    file: Optional[str] = None  # noqa: UP045
    stages: Optional[List[str]] = None  # noqa: UP006, UP045
    seed: int = 0


def calibrate_chip(
    config: CalibrateConfig, folder: Path, command: str, report: Callable[[str], None]
) -> tuple[Path, list[Outcome]]:
    """Calibrate a chip; write the calibration, `calibration.json`, and a map of the chip, `chip.png`.

    Args:
        config: All settings.
        folder: Run directory.
        command: Command that started the calibration, for the record.
        report: Called with a line of text at each stage.

    Returns:
        File of the calibration, and the outcome of each parameter.

    Raises:
        DeviceError: The backend cannot be calibrated from this host.
        ValueError: A target is out of reach, or a stage is unknown.
    """
    backend = device = config.backend.create(config.chip)
    if device is None or not supports(backend, "calibration"):
        name = SOFTWARE if device is None else config.backend.name
        raise DeviceError(
            f"backend={name} cannot be calibrated from here: a chip is calibrated by its own software, one behind a "
            "server where it is served, and an ideal device needs none. backend=emulator can"
        )
    file = Path(config.file).expanduser() if config.file else folder / f"{config.chip.name}.npz"
    report(f"calibrating chip {config.chip.name} for {_words(config.targets)}")
    with device:
        outcomes = backend.calibrate(config.targets, file, config.stages, config.seed, report)
        identity = dict(device.identity)
        chip = device.circuit_map
    if chip is not None:
        style.save(chip_figure(chip), folder / "chip.png")
    write_json(
        folder / "calibration.json",
        {
            **identity,
            "file": str(file),
            "targets": asdict(config.targets),
            "stages": config.stages,
            "seed": config.seed,
            "outcomes": [outcome._asdict() for outcome in outcomes],
            "command": command,
            "versions": versions(),
        },
    )
    return file, outcomes


def _words(targets: Targets) -> str:
    values = asdict(targets)
    return ", ".join(f"{name}={value:.4g}" for name, value in values.items() if value is not None)


def outcome_rows(outcomes: list[Outcome]) -> list[tuple[str, ...]]:
    """Return the table of a calibration: parameter, target, median, spread, failed circuits."""
    rows = []
    for outcome in outcomes:
        scale, unit = (1e6, "us") if outcome.unit == "s" else (1.0, outcome.unit)
        numbers = (f"{scale * x:.3f} {unit}".strip() for x in (outcome.target, outcome.median, outcome.sd))
        rows.append((outcome.parameter, *numbers, str(outcome.failed)))
    return rows
