"""The whole validation: selection of checks, and their record."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import List  # noqa: UP035 - OmegaConf resolves it on every Python

from hxtrain.backends.files import path_part
from hxtrain.runs.metrics import write_json
from hxtrain.runs.versions import versions

from .behaviour import dynamics_checks, merge_checks, noise_checks, weight_checks
from .check import Check
from .hygiene import hygiene_checks
from .laboratory import Laboratory, Report
from .spreads import cadc_checks, population_checks, ratio_checks
from .targets import target_checks


@dataclass
class ValidateConfig:
    """Settings of a validation.

    Attributes:
        chips: Serial numbers of the emulated chips; the published spreads are from four chips.
        short: Whether to run only the checks that take a few seconds, on one chip.
        seed: Seed of the temporal noise.
    """

    chips: List[str] = field(default_factory=lambda: ["W66F3", "W62F0", "W63F1", "W64F2"])  # noqa: UP006
    short: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.chips or len(set(self.chips)) != len(self.chips):
            raise ValueError(f"chips={list(self.chips)} must name different chips, at least one")
        for name in self.chips:
            path_part(name, "chips")


def validate(config: ValidateConfig, folder: Path, command: str, report: Report) -> list[Check]:
    """Run all checks, and write `validation.json` into `folder`.

    Args:
        config: All settings.
        folder: Folder of `validation.json`.
        command: Command that started the validation, for the record.
        report: Called with a line of text before each measurement.
    """
    with tempfile.TemporaryDirectory() as scratch:
        lab = Laboratory(config.seed, Path(scratch), report)
        if config.short:
            checks = cadc_checks(lab, config.chips[:1]) + dynamics_checks(lab, config.chips[0]) + hygiene_checks(lab)
        else:
            checks = all_checks(lab, config.chips)
    write_json(
        folder / "validation.json",
        {
            "passed": all(check.passed for check in checks),
            "checks": [{**check._asdict(), "value": float(check.value), "passed": check.passed} for check in checks],
            "chips": lab.identities,
            "settings": asdict(config),
            "command": command,
            "versions": versions(),
        },
    )
    return checks


def all_checks(lab: Laboratory, chips: list[str]) -> list[Check]:
    """Return all checks."""
    raw = {chip: lab.single(chip, "neurons at common codes", stages=["cadc", "reference"]) for chip in chips}
    calibrated = {chip: lab.single(chip, "calibrated") for chip in chips}
    repetition = Laboratory(lab.seed + 1, lab.folder, lab.report)  # an independent measurement, with other noise
    overwritten = repetition.single(chips[0], "calibration overwritten by common codes", stages=["cadc", "reference"])
    return [
        *cadc_checks(lab, chips),
        *ratio_checks(raw, calibrated, overwritten),
        *population_checks(raw),
        *dynamics_checks(lab, chips[0]),
        *weight_checks(lab, chips[0], calibrated[chips[0]]),
        *target_checks(lab, chips[0]),
        *noise_checks(calibrated[chips[0]]),
        *merge_checks(lab, chips[0], calibrated[chips[0]]),
        *hygiene_checks(lab),
    ]
