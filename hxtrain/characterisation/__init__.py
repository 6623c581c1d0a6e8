"""Characterisation: measurements of a device's neurons through the contract alone, and a fitted emulator."""

from .baseline import Baseline, TraceRange, measure_baseline, measure_range
from .bench import Bench, bench_circuit
from .fit import STEPS, Characterisation, characterise, default_circuit, fit_emulator, fitted_model
from .linearity import Linearity, measure_linearity
from .psp import Psps, measure_psp
from .resets import Recovery, Resets, measure_resets
from .response import MembraneModel
from .saturation import measure_saturation
from .shapes import ShapeData, Shapes, fit_shapes, fit_strengths
from .summary import Measured
from .thresholds import Thresholds, measure_thresholds
from .timing import Bursts, measure_bursts, refractory_period, spike_jitter

__all__ = [
    "STEPS",
    "Baseline",
    "Bench",
    "Bursts",
    "Characterisation",
    "Linearity",
    "Measured",
    "MembraneModel",
    "Psps",
    "Recovery",
    "Resets",
    "ShapeData",
    "Shapes",
    "Thresholds",
    "TraceRange",
    "bench_circuit",
    "characterise",
    "default_circuit",
    "fit_emulator",
    "fit_shapes",
    "fit_strengths",
    "fitted_model",
    "measure_baseline",
    "measure_bursts",
    "measure_linearity",
    "measure_psp",
    "measure_range",
    "measure_resets",
    "measure_saturation",
    "measure_thresholds",
    "refractory_period",
    "spike_jitter",
]
