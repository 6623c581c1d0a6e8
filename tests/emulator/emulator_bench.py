"""Common parts of the emulator's tests: layouts, stimuli, and a look at the membrane before the ADC."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hxtrain.emulator import (
    CADC_INTERVAL,
    SYNAPTIC_DRIVE,
    Chip,
    EmulatedChip,
    Events,
    Group,
    Layout,
    Preset,
    RawRecording,
    Wiring,
)
from hxtrain.emulator.rng import sample_keys
from hxtrain.emulator.stepwise import Stepwise

US = 1e-6
SUBSTEP = CADC_INTERVAL / 4
READOUT = Group(
    size=1,
    circuits=1,
    leak=80.0,
    threshold=None,
    reset=80.0,
    tau_mem=6 * US,
    tau_syn=6 * US,
    refractory=2 * US,
)
SPIKING = replace(READOUT, threshold=150.0)


def one_group(group: Group, inputs: int = 1) -> Layout:
    """Return external inputs onto one group."""
    return Layout(inputs, (group,), (Wiring(0, inputs, 0),))


def quiet(preset: Preset) -> Preset:
    """Return the preset without temporal noise; the fixed pattern stays."""
    return replace(preset, membrane_noise=0.0, cadc_noise=0.0, threshold_noise=0.0, spike_jitter=0.0)


def integers(*rows: list[int]) -> Tensor:
    """Return a weight matrix `[targets, sources]`."""
    return torch.tensor(rows, dtype=torch.int8)


def events(*found: tuple[int, int, float]) -> Events:
    """Return events from (sample, unit, time in s), grouped by sample."""
    rows = sorted(found, key=lambda row: row[0])
    sample, unit = (torch.tensor([row[i] for row in rows], dtype=torch.int64) for i in (0, 1))
    return Events(sample, unit, torch.tensor([row[2] for row in rows], dtype=torch.float32))


def run_once(
    preset: Preset,
    layout: Layout,
    weights: list[Tensor],
    stimulus: Events,
    batch: int = 1,
    samples: int = 20,
    clock: int = 0,
    name: str = "W66F3",
    **settings: object,
) -> RawRecording:
    """Configure a chip and run it once."""
    chip = EmulatedChip(Chip(name, preset), **settings)  # type: ignore[arg-type]
    chip.configure(layout, samples)
    return chip.run(weights, stimulus, batch, clock)


def membrane(
    preset: Preset, layout: Layout, weights: list[Tensor], stimulus: Events, batch: int = 1, samples: int = 20
) -> Tensor:
    """Return the membranes before the ADC at every sub-step `[steps, B, N]`, double precision."""
    chip = EmulatedChip(Chip("W66F3", preset), engine="stepwise", dtype=torch.float64)
    chip.configure(layout, samples)
    program = chip._program
    assert program is not None
    external, _ = chip._charges(program, weights)
    engine = Stepwise(program.params, program.scalars, dtype=torch.float64)
    scaled = stimulus.time.double() / SUBSTEP
    charge = engine.external_charge(stimulus.sample, stimulus.unit, scaled, batch, external.double())
    keys = torch.from_numpy(sample_keys(0, np.arange(batch, dtype=np.uint64)).astype(np.int64))
    state, found = engine.start(batch), []
    for k in range(engine.steps):
        found.append(state.v)
        state = state._replace(current=state.current + charge[k])
        state, _ = engine.step(k, state, keys, engine.p.threshold)
    return torch.stack(found)


def psp(time: Tensor, tau_mem: float, tau_syn: float) -> Tensor:
    """Return the analytic potential of one event at t = 0 per weight LSB (LSB)."""
    t = time.double().clamp(min=0)
    if tau_mem == tau_syn:
        return SYNAPTIC_DRIVE * t * torch.exp(-t / tau_mem)
    rate = 1 / tau_syn - 1 / tau_mem
    return SYNAPTIC_DRIVE * (torch.exp(-t / tau_mem) - torch.exp(-t / tau_syn)) / rate


def busy(seed: int, batch: int, inputs: int, samples: int, per_trial: int) -> Events:
    """Return a random stimulus: `per_trial` events of each trial, uniform over inputs and time."""
    rng = torch.Generator().manual_seed(seed)
    count = batch * per_trial
    return Events(
        torch.arange(batch).repeat_interleave(per_trial),
        torch.randint(0, inputs, (count,), generator=rng),
        torch.rand(count, generator=rng) * samples * CADC_INTERVAL,
    )


def random_weights(seed: int, targets: int, sources: int, mean: float, spread: float) -> Tensor:
    """Return random integer weights within the synapses' range."""
    rng = torch.Generator().manual_seed(seed)
    weights = mean + spread * torch.randn(targets, sources, generator=rng)
    return weights.round().clamp(-63, 63).to(torch.int8)
