"""Limits of physical chips, as data: the base of devices that are, or imitate, one of them."""

from __future__ import annotations

import math

from .capabilities import Capabilities

BRAINSCALES2 = Capabilities(
    name="brainscales2",
    neuron_circuits=512,
    inputs_per_circuit=128,  # 256 synapse rows, one excitatory and one inhibitory per signed input
    max_merged=64,
    weight_max=63,
    trace_bits=8,
    trace_interval=1.7e-6,
    trace_memory=131072,
    trace_channels=256,
    max_samples=None,
    timestamp_resolution=8e-9,
    synaptic_drive=0.5 * math.e / 6e-6,  # one weight LSB: 0.5 trace units at the peak for tau = 6 us
    leak=80.0,
    threshold=150.0,
    reset=80.0,
    refractory=2e-6,
    tau_range=(0.5e-6, 60e-6),
    speedup=1000.0,
    trial_time=200e-6,
    power=0.2,
    traces=True,
    recurrence=True,
    forced_reset=True,
    deterministic=False,
)
"""BrainScaleS-2 at the operating point of Cramer, Billaudelle et al. (PNAS 2022): 1.7 us between samples,
200 us from trial to trial in training, about 200 mW; 128 KiB for traces, of all 256 columns of a half."""
