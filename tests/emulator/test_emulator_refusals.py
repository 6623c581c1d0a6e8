"""Calls that the emulated chip refuses, and what it says."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from emulator_bench import READOUT, SPIKING, events, integers, one_group, run_once

from hxtrain.emulator import IDEAL, Chip, EmulatedChip, Events, Layout, Wiring, get_preset

LAYOUT = one_group(replace(READOUT, size=2), inputs=3)


def run(*weights: torch.Tensor) -> object:
    return run_once(IDEAL, LAYOUT, list(weights), events((0, 0, 0.0)))


UNORDERED = Events(torch.tensor([1, 0]), torch.tensor([0, 0]), torch.tensor([0.0, 0.0]))
REFUSALS: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "preset": (
        lambda: get_preset("perfect"),
        ValueError,
        "perfect.*choose one of ideal, calibrated, uncalibrated",
    ),
    "substeps": (
        lambda: EmulatedChip(Chip("x", IDEAL), substeps=0),
        ValueError,
        "substeps=0 must be in 1..64",
    ),
    "device": (
        lambda: EmulatedChip(Chip("x", IDEAL), device="cuda"),
        ValueError,
        "not on device='cuda'; use engine='stepwise'",
    ),
    "not configured": (
        lambda: EmulatedChip(Chip("x", IDEAL)).run([], events(), 1),
        RuntimeError,
        r"call configure\(layout, samples\)",
    ),
    "circuits": (
        lambda: one_group(replace(READOUT, size=257, circuits=2)),
        ValueError,
        "514 neuron circuits, the chip has 512; .* by 2 in all",
    ),
    "rows": (
        lambda: Layout(100, (READOUT,), (Wiring(0, 100, 29),)),
        ValueError,
        "wiring 0 uses signed inputs 29..128 of group 0, whose neurons have 128; merge more",
    ),
    "negative row": (lambda: Layout(9, (READOUT,), (Wiring(0, 9, -1),)), ValueError, r"signed inputs -1\.\.7"),
    "sources": (
        lambda: Layout(9, (READOUT,), (Wiring(0, 1, 0),)),
        ValueError,
        "wiring 0 has 1 sources, its source has 9 units",
    ),
    "target": (lambda: Layout(9, (READOUT,), (Wiring(1, 9, 0),)), ValueError, "targets group 1, there are 1"),
    "source": (lambda: Layout(9, (READOUT,), (Wiring(0, 9, 0, source=4),)), ValueError, "comes from group 4"),
    "same wiring twice": (
        lambda: Layout(9, (READOUT,), (Wiring(0, 9, 0), Wiring(0, 9, 9))),
        ValueError,
        "wirings 0 and 1 join the same source and target; merge them",
    ),
    "shared rows": (
        lambda: Layout(9, (SPIKING, READOUT), (Wiring(1, 9, 0), Wiring(1, SPIKING.size, 8, source=0))),
        ValueError,
        "wirings 0 and 1 share signed inputs 8..8 of group 1; set first_row=9 on the second",
    ),
    "samples": (
        lambda: EmulatedChip(Chip("x", IDEAL)).configure(LAYOUT, 5000),
        ValueError,
        "samples=5000 times substeps=4 must be in 1..16384",
    ),
    "unknown input": (
        lambda: run_once(IDEAL, LAYOUT, [integers([0, 0, 0], [0, 0, 0])], events((0, 3, 0.0))),
        ValueError,
        r"events.unit spans 3..3, the layout has 3 inputs",
    ),
    "order of trials": (
        lambda: run_once(IDEAL, LAYOUT, [integers([0, 0, 0], [0, 0, 0])], UNORDERED, batch=2),
        ValueError,
        r"events.sample must be ascending and within 0..1",
    ),
    "time": (
        lambda: run_once(IDEAL, LAYOUT, [integers([0, 0, 0], [0, 0, 0])], events((0, 0, -1e-6))),
        ValueError,
        "events.time must not be negative",
    ),
    "one matrix too few": (run, ValueError, "got 0 weight matrices for 1 wirings"),
    "shape": (
        lambda: run(integers([1, 2], [3, 4])),
        ValueError,
        r"weights 0 have shape \(2, 2\), expected \(2, 3\)",
    ),
    "floats": (lambda: run(torch.zeros(2, 3)), ValueError, "weights 0 are torch.float32, expected integers"),
    "range": (
        lambda: run(integers([0, 0, 64], [0, 0, 0])),
        ValueError,
        "weights 0 reach 64, the synapses hold up to 63",
    ),
    "lowest int8": (lambda: run(integers([0, -128, 0], [0, 0, 0])), ValueError, "weights 0 reach 128"),
    "negative range": (lambda: run(integers([0, -64, 0], [0, 0, 0])), ValueError, "weights 0 reach 64"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusal(case: str) -> None:
    call, error, text = REFUSALS[case]
    with pytest.raises(error, match=text):
        call()


def test_largest_weights_and_last_rows_are_accepted() -> None:
    layout = Layout(100, (replace(SPIKING, size=256, circuits=2),), (Wiring(0, 100, 156),))
    assert layout.circuits_used == 512
    weights = [torch.full((256, 100), -63, dtype=torch.int8)]
    assert run_once(IDEAL, layout, weights, events((0, 99, 0.0)), samples=5).codes.shape == (1, 5, 256)
