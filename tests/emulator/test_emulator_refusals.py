"""Calls that the emulated chip refuses, and the messages."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from emulator_bench import (
    READOUT,
    SPIKING,
    US,
    events,
    fabricated,
    ideal,
    integers,
    machine,
    one_group,
    run_once,
    silent,
)

from hxtrain.emulator import (
    FABRICATED,
    Chip,
    Decalibration,
    EmulatedChip,
    Events,
    Layout,
    Wiring,
    make_faults,
)

LAYOUT = one_group(replace(READOUT, size=2), inputs=3)


def run(*weights: torch.Tensor) -> object:
    return run_once(ideal(), LAYOUT, list(weights), events((0, 0, 0.0)))


UNORDERED = Events(torch.tensor([1, 0]), torch.tensor([0, 0]), torch.tensor([0.0, 0.0]))
REFUSALS: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "field of a preset": (
        lambda: FABRICATED.changed(leek_sd=1.0),
        ValueError,
        "a preset has no field leek_sd; it has: cadc_channel_gain_cv, .*, leak_sd, ",
    ),
    "negative spread": (
        lambda: FABRICATED.changed(leak_sd=-1.0),
        ValueError,
        r"preset.leak_sd=-1.0 must be a number that is not negative",
    ),
    "missing spread": (lambda: FABRICATED.changed(leak_sd=None), ValueError, r"preset.leak_sd=None must be a number"),
    "not a number": (lambda: FABRICATED.changed(gain_cv=float("nan")), ValueError, r"preset.gain_cv=nan must be"),
    "correlation": (lambda: FABRICATED.changed(leak_reset_rho=1.2), ValueError, r"leak_reset_rho=1.2 must be in 0..1"),
    "correlation of gains": (lambda: FABRICATED.changed(gain_rho=1.2), ValueError, r"gain_rho=1.2 must be in 0..1"),
    "share": (lambda: FABRICATED.changed(stuck_share=1.2), ValueError, r"stuck_share=1.2 must be in 0..1"),
    "drift time": (
        lambda: FABRICATED.changed(drift_time=0),
        ValueError,
        "drift_time=0 must be positive; set drift_sd=0",
    ),
    "rails": (lambda: FABRICATED.changed(rails=(228, 25)), ValueError, r"rails=\(228.0, 25.0\) must ascend"),
    "imperfection": (
        lambda: Chip("x", FABRICATED, only=("leek",)),
        ValueError,
        r"only=\['leek'\] is not known; choose from leak, threshold, ",
    ),
    "fault": (
        lambda: make_faults({"dead": 0.1}),
        ValueError,
        "faults of the die: dead not known; choose from dead_neurons, firing_neurons, stuck_bits",
    ),
    "misspelt field": (
        lambda: FABRICATED.changed(leek_sd=1),
        ValueError,
        r"`changes`: a preset has no field leek_sd; .*; did you mean leak_sd\?",
    ),
    "field without rails": (lambda: FABRICATED.changed(rails=3), ValueError, r"preset.rails=3 must be two numbers"),
    "misspelt imperfection": (
        lambda: Chip("x", FABRICATED, only=("membrane_nois",)),
        ValueError,
        r"only=\['membrane_nois'\] is not known; .*; did you mean membrane_noise\?",
    ),
    "misspelt fault": (
        lambda: make_faults({"dead_neuron": 0.1}),
        ValueError,
        r"faults of the die: dead_neuron not known; .*; did you mean dead_neurons\?",
    ),
    "negative share": (lambda: make_faults({"stuck_bits": -1}), ValueError, r"fault stuck_bits=-1 must be a share"),
    "share in words": (lambda: make_faults({"stuck_bits": "1"}), ValueError, r"fault stuck_bits='1' must be a share"),
    "share of a fault": (
        lambda: make_faults({"dead_neurons": 1.1}),
        ValueError,
        r"fault dead_neurons=1.1 must be a share in 0..1",
    ),
    "decalibration": (
        lambda: Decalibration(time_constants=1.5),
        ValueError,
        r"decalibration.time_constants=1.5 must be in 0..1",
    ),
    "different noise side by side": (
        lambda: EmulatedChip([ideal(), fabricated()]),
        ValueError,
        "chips side by side need common noise levels, got 2 different ones",
    ),
    "close trials on several chips": (
        lambda: machine([fabricated(), fabricated("W62F0")], replace(LAYOUT, gap=1 * US)),
        ValueError,
        "close trials need a single chip, but each trial runs on one of 2; use a single chip",
    ),
    "negative gap": (
        lambda: replace(LAYOUT, gap=-1e-6),
        ValueError,
        "layout.gap=-1e-06 s must not be negative; record fewer samples or wait longer",
    ),
    "forced reset without a gap": (
        lambda: replace(LAYOUT, forced_reset=True),
        ValueError,
        "forced_reset needs a gap to the next trial",
    ),
    "long gap": (
        lambda: machine(ideal(), replace(LAYOUT, gap=7e-3)),
        ValueError,
        r"samples=20 \(and the gap after them\) times substeps=4 must be in 1..16384",
    ),
    "index of a chip": (
        lambda: machine([fabricated(), fabricated("W62F0")], LAYOUT).run(
            [silent(2, 3)], events(), 2, chip=np.array([0, 2])
        ),
        ValueError,
        r"chip must hold 2 indices in 0..1, got shape \(2,\)",
    ),
    "indices of chips": (
        lambda: machine(ideal(), LAYOUT).run([silent(2, 3)], events(), 2, chip=np.array([0])),
        ValueError,
        r"chip must hold 2 indices in 0..0, got shape \(1,\)",
    ),
    "part of a sub-step": (lambda: EmulatedChip(ideal(), substeps=2.5), TypeError, "substeps=2.5 must be a whole"),  # type: ignore[arg-type]
    "substeps": (
        lambda: EmulatedChip(ideal(), substeps=0),
        ValueError,
        "substeps=0 must be in 1..64",
    ),
    "device": (
        lambda: EmulatedChip(ideal(), device="cuda"),
        ValueError,
        "not on device='cuda'; use engine='gpu'",
    ),
    "not configured": (
        lambda: EmulatedChip(ideal()).run([], events(), 1),
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
        lambda: EmulatedChip(ideal()).configure(LAYOUT, 5000),
        ValueError,
        r"samples=5000 .* times substeps=4 must be in 1..16384; record fewer samples",
    ),
    "unknown input": (
        lambda: run_once(ideal(), LAYOUT, [integers([0, 0, 0], [0, 0, 0])], events((0, 3, 0.0))),
        ValueError,
        r"events.unit spans 3..3, the layout has 3 inputs",
    ),
    "order of trials": (
        lambda: run_once(ideal(), LAYOUT, [integers([0, 0, 0], [0, 0, 0])], UNORDERED, batch=2),
        ValueError,
        r"events.sample must be ascending and within 0..1",
    ),
    "time": (
        lambda: run_once(ideal(), LAYOUT, [integers([0, 0, 0], [0, 0, 0])], events((0, 0, -1e-6))),
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
    with pytest.raises(
        ValueError, match=r"512 neuron circuits, the chip has 510 that are not avoided; .* by 2 in all, or"
    ):
        replace(layout, avoided=frozenset({3, 400}))
    weights = [torch.full((256, 100), -63, dtype=torch.int8)]
    assert run_once(ideal(), layout, weights, events((0, 99, 0.0)), samples=5).codes.shape == (1, 5, 256)
