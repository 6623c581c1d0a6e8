"""Conversion of trained artificial neural networks: layers of rates, passes, spikes in software, and measurements."""

from .codes import ConstantCode, InputCode, PoissonCode, RegularCode
from .first_spikes import FirstSpikes, first_spikes
from .graph import ConversionError, Layer, MaxLayer, RateLayer, RateNetwork, ScalingLayer
from .measured import MeasuredConfig
from .nir_graph import from_nir
from .normalisation import DataNorm, normalise_by_data, normalise_by_model, rescaled, spike_norm
from .on_device import Conversion, convert
from .pipeline import PassConfig, PassReport, Probe, apply_passes, passes, table
from .rewrites import (
    absolute_inputs,
    average_pooling,
    encode_bias,
    fold_batch_norm,
    merge_linear,
    rectified_inputs,
    remove_bias,
    signed_inputs,
    signed_neurons,
)
from .simulation import Simulation, SpikingActivity, simulate
from .softlif import LIFCurve, SoftLIF
from .sources import from_sequential

__all__ = [
    "ConstantCode",
    "Conversion",
    "ConversionError",
    "DataNorm",
    "FirstSpikes",
    "InputCode",
    "LIFCurve",
    "Layer",
    "MaxLayer",
    "MeasuredConfig",
    "PassConfig",
    "PassReport",
    "PoissonCode",
    "Probe",
    "RateLayer",
    "RateNetwork",
    "RegularCode",
    "ScalingLayer",
    "Simulation",
    "SoftLIF",
    "SpikingActivity",
    "absolute_inputs",
    "apply_passes",
    "average_pooling",
    "convert",
    "encode_bias",
    "first_spikes",
    "fold_batch_norm",
    "from_nir",
    "from_sequential",
    "merge_linear",
    "normalise_by_data",
    "normalise_by_model",
    "passes",
    "rectified_inputs",
    "remove_bias",
    "rescaled",
    "signed_inputs",
    "signed_neurons",
    "simulate",
    "spike_norm",
    "table",
]
