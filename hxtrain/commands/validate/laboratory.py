"""Devices that a validation opens as it needs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hxtrain.backends import Backend, Calibratable, DeviceError, Targets
from hxtrain.characterisation import Measured, bench_circuit, characterise
from hxtrain.execution.config import BackendConfig, ChipConfig

Report = Callable[[str], None]


class Laboratory:
    """Opens devices as they are needed.

    Args:
        seed: of the temporal noise.
        folder: for calibrations.
        report: is told what is measured.

    Attributes:
        identities: of all devices that were opened.
    """

    def __init__(self, seed: int, folder: Path, report: Report) -> None:
        self.seed, self.folder, self.report = seed, folder, report
        self.identities: list[dict[str, str]] = []

    def open(self, chip: str, preset: str = "calibrated", **settings: Any) -> Backend:
        """Return an open emulated chip."""
        created = BackendConfig("emulator").create(replace(ChipConfig(chip, preset, self.seed), **settings))
        assert created is not None
        created.open()
        self.identities.append(dict(created.identity))
        return created

    def calibrated(
        self, chip: str, targets: Targets | None = None, stages: list[str] | None = None, **settings: Any
    ) -> Backend:
        """Return an open chip that is calibrated for targets (only in some stages)."""
        file = self.folder / f"{chip}-{len(self.identities)}.npz"
        maker = self.open(chip, "uncalibrated")
        if not isinstance(maker, Calibratable):
            raise DeviceError("the emulator backend is not Calibratable; this is a bug")
        maker.calibrate(targets or Targets(), file, stages, self.seed)
        maker.close()
        return self.open(chip, "calibrated", calibration=str(file), **settings)

    def single(self, chip: str, what: str, stages: list[str] | None = None) -> Measured:
        """Characterise all 512 circuits of a chip, each a neuron."""
        self.report(f"chip {chip}, {what}: characterising 512 circuits")
        backend = self.open(chip) if stages is None else self.calibrated(chip, stages=stages)
        circuit = bench_circuit(backend.capabilities.neuron_circuits, 1, backend)
        try:
            return characterise(backend, circuit, self.seed).measured
        finally:
            backend.close()
