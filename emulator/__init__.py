"""The physics of one analog neuromorphic chip: integer weights and events in, ADC codes and events out."""

from .chip import Chip, FixedPattern, draw_pattern
from .dynamics import ON_CHIP_DELAY, SYNAPTIC_DRIVE
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
from .machine import EmulatedChip, Events, RawRecording
from .preset import CALIBRATED, IDEAL, PRESETS, UNCALIBRATED, Preset, get_preset

__all__ = [
    "CADC_INTERVAL", "CALIBRATED", "CIRCUITS", "IDEAL", "ON_CHIP_DELAY", "PRESETS", "ROWS_PER_CIRCUIT",
    "SYNAPTIC_DRIVE", "TIMESTAMP_RESOLUTION", "UNCALIBRATED", "WEIGHT_MAX", "Chip", "EmulatedChip", "Events",
    "FixedPattern", "Group", "Layout", "Preset", "RawRecording", "Wiring", "draw_pattern", "get_preset",
]  # fmt: skip
