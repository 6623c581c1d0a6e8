"""The engine for GPUs equals the others; without a GPU, Triton's interpreter runs a few trials of a few cases."""

import os
from dataclasses import replace

import pytest
import torch
from emulator_bench import SPIKING, calibrated, integers, machine, one_group
from test_emulator_engines import CASES, WEIGHTS, assert_agree, run

from hxtrain.emulator import EmulatedChip, Events, RawRecording

GPU = torch.cuda.is_available()
if not GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
pytest.importorskip("triton", reason="comes with torch for CUDA; the extra `test` has it for Linux")
DEVICE, BATCH, SAMPLES = ("cuda", 12, 16) if GPU else ("cpu", 2, 8)
INTERPRETED = (
    "calibrated, 4 sub-steps",
    "population",
    "skew",
    "linear, no rails",
    "loss of spikes",
    "close trials, odd sub-steps",
    "forced reset",
)
"""Cases that take different paths through the kernel."""


def on_cpu(recording: RawRecording) -> RawRecording:
    return RawRecording(recording.codes.cpu(), Events(*(part.cpu() for part in recording.spikes)), recording.dropped)


@pytest.mark.parametrize("name", CASES if GPU else INTERPRETED)
def test_agrees_with_the_cpu(name: str) -> None:
    fused = run(CASES[name], "gpu", BATCH, samples=SAMPLES, device=DEVICE)
    assert fused.codes.device.type == fused.spikes.time.device.type == DEVICE
    compiled = run(CASES[name], "cpu", BATCH, samples=SAMPLES)
    assert_agree(compiled, on_cpu(fused), batch=BATCH, astray=1 if GPU else 0, samples=SAMPLES)


@pytest.fixture(scope="module")
def everything() -> RawRecording:
    """Return a recording with the membranes of all groups."""
    return run(CASES["calibrated, 4 sub-steps"], "fused", BATCH, samples=SAMPLES, device=DEVICE)


@pytest.mark.parametrize("traced", [(0, 0, 0), (1, 0, 1)])
def test_membranes_of_some_groups_are_those_columns(traced: tuple[int, ...], everything: RawRecording) -> None:
    case = CASES["calibrated, 4 sub-steps"]
    groups = tuple(replace(g, traced=bool(on)) for g, on in zip(case.layout.groups, traced, strict=True))
    layout = replace(case.layout, groups=groups)
    part = run(case._replace(layout=layout), "fused", BATCH, samples=SAMPLES, device=DEVICE)
    columns = torch.cat([torch.full((g.size,), g.traced, device=DEVICE) for g in groups])
    assert torch.equal(part.codes, everything.codes[:, :, columns])
    assert all(torch.equal(*parts) for parts in zip(part.spikes, everything.spikes, strict=True))


def test_charges_are_those_of_the_cpu() -> None:
    for name in ("population", "faults", "synapses off"):
        case = CASES[name]
        results = []
        for engine, device in (("cpu", "cpu"), ("gpu", DEVICE)):
            chip = machine(case.chip, case.layout, engine=engine, device=device)
            assert chip._program is not None
            results.append([charges.cpu() for charges in chip._charges(chip._program, WEIGHTS)])
        assert all(map(torch.equal, *results)), name


def test_no_events_and_no_trials() -> None:
    chip = machine(calibrated(), one_group(SPIKING), 3, engine="gpu", device=DEVICE)
    none = Events(*(torch.zeros(0, dtype=dtype) for dtype in (torch.int64, torch.int64, torch.float32)))
    compiled = machine(calibrated(), one_group(SPIKING), 3)
    recording, expected = (emulated.run([integers([5])], none, 2) for emulated in (chip, compiled))
    assert torch.equal(recording.codes.cpu(), expected.codes)
    assert chip.run([integers([5])], none, 0).codes.shape == (0, 3, 1)


@pytest.mark.skipif(not GPU, reason="needs a GPU")
def test_the_engine_for_cpus_refuses_a_gpu() -> None:
    with pytest.raises(ValueError, match="use engine='gpu'"):
        EmulatedChip(calibrated(), device="cuda")
