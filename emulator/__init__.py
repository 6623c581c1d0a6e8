"""The physics of an analog neuromorphic chip: integer weights and events in, ADC codes and events out."""

from hxtrain.emulator.engines.cpu import InterruptedRunError

from .chip import IMPERFECTIONS, Chip, Decalibration, draw_silicon, uniform_targets
from .dynamics import ON_CHIP_DELAY, SYNAPTIC_DRIVE
from .faults import FAULTS, DeadNeurons, Fault, FiringNeurons, StuckBits, make_faults
from .fitted import FittedChip
from .layout import (
    CADC_INTERVAL,
    CIRCUITS,
    ROWS_PER_CIRCUIT,
    TIMESTAMP_RESOLUTION,
    WEIGHT_MAX,
    Group,
    Layout,
    Wiring,
)
from .machine import EmulatedChip, RawRecording
from .preset import FABRICATED, IDEAL, Preset
from .trials import Events

__all__ = [
    "CADC_INTERVAL", "CIRCUITS", "FABRICATED", "FAULTS", "IDEAL", "IMPERFECTIONS", "ON_CHIP_DELAY",
    "ROWS_PER_CIRCUIT", "SYNAPTIC_DRIVE", "TIMESTAMP_RESOLUTION", "WEIGHT_MAX", "Chip", "DeadNeurons",
    "Decalibration", "EmulatedChip", "Events", "Fault", "FiringNeurons", "FittedChip", "Group",
    "InterruptedRunError", "Layout", "Preset", "RawRecording", "StuckBits", "Wiring", "draw_silicon", "make_faults",
    "uniform_targets",
]  # fmt: skip
