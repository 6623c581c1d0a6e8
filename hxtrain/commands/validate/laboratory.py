"""Devices of a validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hxtrain.backends import Backend, DeviceError, Targets, supports
from hxtrain.characterisation import Measured, bench_circuit, characterise
from hxtrain.execution.config import BackendConfig, ChipConfig

Report = Callable[[str], None]


class Laboratory:
    """Opens devices on demand, and records their identities.

    Args:
        seed: Seed of the temporal noise.
        folder: Folder of calibrations.
        report: Called with a line of text before each measurement.

    Attributes:
        identities: Identities of all opened devices.
    """

    def __init__(self, seed: int, folder: Path, report: Report) -> None:
        self.seed = seed
        self.folder = folder
        self.report = report
        self.identities: list[dict[str, str]] = []

    def open(self, chip: str, preset: str = "calibrated", **settings: Any) -> Backend:
        """Return an open emulated chip."""
        backend = BackendConfig("emulator").create(replace(ChipConfig(chip, preset, self.seed), **settings))
        assert backend is not None
        backend.open()
        self.identities.append(dict(backend.identity))
        return backend

    def calibrated(
        self, chip: str, targets: Targets | None = None, stages: list[str] | None = None, **settings: Any
    ) -> Backend:
        """Return an open chip that is calibrated for targets, in all or some stages."""
        file = self.folder / f"{chip}-{len(self.identities)}.npz"
        raw_chip = self.open(chip, "uncalibrated")
        if not supports(raw_chip, "calibration"):
            raise DeviceError("the emulator backend is not Calibratable; this is a bug")
        raw_chip.calibrate(targets or Targets(), file, stages, self.seed)
        raw_chip.close()
        return self.open(chip, "calibrated", calibration=str(file), **settings)

    def single(self, chip: str, label: str, stages: list[str] | None = None) -> Measured:
        """Characterise all 512 circuits of a chip, each as a neuron."""
        self.report(f"chip {chip}, {label}: characterising 512 circuits")
        backend = self.open(chip) if stages is None else self.calibrated(chip, stages=stages)
        circuit = bench_circuit(backend.capabilities.neuron_circuits, 1, backend)
        try:
            return characterise(backend, circuit, self.seed).measured
        finally:
            backend.close()
