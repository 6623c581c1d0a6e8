"""Events as users hold them: taken, or refused by name, alike on every device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

import hxtrain as hx
from hxtrain.backends import Spikes, create_backend
from hxtrain.backends.intake import as_tensor

SAMPLE = [1, 0, 2, 0]
UNIT = [3, 0, 2, 3]
TIME = [4.0, 2.0, 0.0, 8.0]
EXPECTED = Spikes.from_events(torch.tensor(SAMPLE), torch.tensor(UNIT), torch.tensor(TIME), 3, 4)
UNSIGNED = [np.uint8, np.uint16, np.uint32, np.uint64]


def equal(spikes: Spikes, expected: Spikes) -> bool:
    parts = ("sample", "unit", "time")
    return all(torch.equal(getattr(spikes, part), getattr(expected, part)) for part in parts) and (
        spikes.samples,
        spikes.units,
    ) == (expected.samples, expected.units)


def read_only(values: Any) -> Any:
    array = np.asarray(values)
    array.flags.writeable = False
    return array


FORMS: Mapping[str, Callable[[Any], Any]] = {
    "list": lambda x: x,
    "tuple": tuple,
    "numpy": np.array,
    "reversed view": lambda x: np.array(x[::-1])[::-1],
    "every second": lambda x: np.repeat(x, 2)[::2],
    "strided tensor": lambda x: torch.tensor(x).repeat_interleave(2)[::2],
    "other byte order": lambda x: np.array(x).astype(">f4"),
    "read-only": read_only,
    "field of a structured array": lambda x: np.array([(v, 0) for v in x], [("v", np.float32), ("p", "?")])["v"],
    "sparse": lambda x: torch.tensor(x).to_sparse(),
    "float16": lambda x: np.array(x, np.float16),
    "float64": lambda x: torch.tensor(x, dtype=torch.float64),
    **{kind.__name__: lambda x, kind=kind: np.array(x, kind) for kind in UNSIGNED},
    "torch.uint16": lambda x: torch.tensor(x, dtype=torch.uint16),
    "int8": lambda x: torch.tensor(x, dtype=torch.int8),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("build", [Spikes, Spikes.from_events])
def test_events_of_any_form_are_the_same_events(build: Callable[..., Spikes], form: Callable[[Any], Any]) -> None:
    spikes = build(form(SAMPLE), form(UNIT), form(TIME), 3, np.int64(4))
    assert equal(spikes, EXPECTED)
    assert (spikes.sample.dtype, spikes.unit.dtype, spikes.time.dtype) == (torch.int64, torch.int64, torch.float32)


def test_a_mixture_of_equal_and_late_events_stays() -> None:
    spikes = Spikes([0, 0, 0], [1, 1, 1], [1e-6, 1e-6, 9.0], 1, 2)
    assert spikes.time.tolist() == pytest.approx([1e-6, 1e-6, 9.0])
    assert spikes.to_grid(1e-6, 3).sum() == 2


def test_no_events_are_no_problem() -> None:
    assert len(Spikes([], [], [], 2, 3)) == len(Spikes([], [], [], 0, 0)) == 0


@pytest.mark.parametrize("time", [np.array(TIME) * 1e6, torch.tensor(TIME).mul(1e6).to(torch.int64)])
def test_times_have_a_unit(time: Any) -> None:
    spikes = Spikes.from_events(SAMPLE, UNIT, time, 3, 4, time_unit=1e-6)
    assert spikes.time.tolist() == pytest.approx(EXPECTED.time.tolist())


BAD: Mapping[str, tuple[dict[str, Any], type[Exception], str]] = {
    "fractional unit": ({"unit": [0.5, 0, 0, 0]}, ValueError, r"spikes.unit has the value 0.5, expected whole numbers"),
    "fractional sample": ({"sample": [0.0, 1.9, 0, 0]}, ValueError, r"spikes.sample has the value 1.9"),
    "unit that is no number": ({"unit": [0, np.nan, 0, 0]}, ValueError, r"spikes.unit has the value nan"),
    "unit out of range": ({"unit": np.array([0, 9, 0, 0], np.uint16)}, ValueError, r"spikes.unit spans 0..9, allowed"),
    "no units": ({"units": 0}, ValueError, r"spikes.unit spans 0..3, allowed none, since spikes.units=0"),
    "two dimensions": ({"time": torch.zeros(4, 2)}, ValueError, r"spikes.time has shape \[4, 2\], expected \[E\]"),
    "no dimension": ({"time": 3.0}, ValueError, r"spikes.time has shape \[\], expected \[E\]"),
    "negative": ({"time": [0, -1e-9, 0, 0]}, ValueError, r"spikes.time must be finite and >= 0 s, smallest is -1e-09"),
    "infinite": ({"time": [0, np.inf, 0, 0]}, ValueError, r"must be finite .* largest inf"),
    "beyond float32": ({"time": np.array([0, 1e300, 0, 0])}, ValueError, r"must be finite .* largest inf"),
    "nan": ({"time": [0, np.nan, 0, 0]}, ValueError, r"spikes.time must be finite"),
    "boolean times": ({"time": [True, False, True, True]}, TypeError, r"spikes.time has dtype torch.bool"),
    "complex": ({"time": torch.zeros(4, dtype=torch.complex64)}, TypeError, r"spikes.time has dtype torch.complex64"),
    "words": ({"unit": ["a", "b", "c", "d"]}, TypeError, r"spikes.unit is list of dtype <U1; pass numbers"),
    "ragged": ({"unit": [[1], [1, 2]]}, ValueError, r"spikes.unit is no array of numbers"),
    "dates": (
        {"time": np.zeros(4, "timedelta64[us]")},
        TypeError,
        r"spikes.time is ndarray of dtype timedelta64\[us\]",
    ),
    "structured": ({"sample": np.zeros(4, [("x", int), ("t", int)])}, TypeError, r"structured .* x, t; .*recordings"),
    "gradient": (
        {"time": torch.zeros(4, requires_grad=True)},
        ValueError,
        r"spikes.time requires a gradient, .*detach",
    ),
    "meta": ({"time": torch.zeros(4, device="meta")}, ValueError, r"spikes.time is on the device meta"),
    "lengths": ({"unit": [0]}, ValueError, r"sample, unit and time need one length, got \[1, 4\]"),
    "number of samples": ({"samples": 3.0}, ValueError, r"spikes.samples=3.0 must be a whole number >= 0"),
    "number of units": ({"units": -1}, ValueError, r"spikes.units=-1 must be a whole number >= 0"),
}


@pytest.mark.parametrize(("change", "error", "text"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("build", [Spikes, Spikes.from_events])
def test_what_cannot_be_meant_is_refused(
    build: Callable[..., Spikes], change: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        build(**{"sample": SAMPLE, "unit": UNIT, "time": TIME, "samples": 3, "units": 4, **change})


@pytest.mark.parametrize("unit", [0, -1.0, float("nan"), float("inf"), "us"])
def test_a_unit_of_time_is_checked(unit: Any) -> None:
    with pytest.raises(ValueError, match=r"time_unit=.* must be a positive, finite number"):
        Spikes.from_events(SAMPLE, UNIT, TIME, 3, 4, time_unit=unit)


@pytest.mark.parametrize(
    ("grid", "text"),
    [
        (torch.full((3, 1, 2), 0.5), r"a grid of spikes has the value 0.5, expected whole numbers"),
        (torch.full((3, 1, 2), torch.nan), r"has the value nan"),
        (torch.full((3, 1, 2), -1), r"a grid of spikes spans -1..-1"),
        (torch.full((3, 1, 2), 1e30), r"a grid of spikes spans "),
        (torch.zeros(3, 2), r"a grid of spikes has shape \[3, 2\], expected \[T, B, N\]"),
    ],
)
def test_a_grid_holds_numbers_of_spikes(grid: torch.Tensor, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Spikes.from_grid(grid, 1e-6)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, np.float64])
def test_grids_of_any_type_are_taken(kind: type) -> None:
    grid = np.zeros((3, 1, 2), kind)
    grid[1, 0, 1] = 1
    assert len(Spikes.from_grid(grid, 1e-6)) == 1
    with pytest.raises(ValueError, match=r"dt=0 must be a positive"):
        Spikes.from_grid(grid, 0)


def test_times_are_one_per_input() -> None:
    assert len(Spikes.from_times([[1, np.inf], [np.nan, 2]], time_unit=1e-6)) == 2
    with pytest.raises(ValueError, match=r"spikes.time has shape \[2\], expected \[B, N\]"):
        Spikes.from_times([1.0, 2.0])


def test_recordings_name_their_inputs_by_fields() -> None:
    camera = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)])
    recordings = [np.array([(3, 1, 12, True), (0, 0, 5, False)], camera), np.zeros(0, camera)]
    spikes = Spikes.from_recordings(recordings, {"p": 2, "y": 2, "x": 4})
    assert (spikes.samples, spikes.units, spikes.unit.tolist()) == (2, 16, [15, 0])
    assert spikes.time.tolist() == pytest.approx([12e-6, 5e-6])
    audio = Spikes.from_recordings([{"times": [0.5], "units": [7]}], {"units": 700}, time_unit=1e-3, time="times")
    assert (audio.units, audio.unit.tolist(), audio.time.tolist()) == (700, [7], pytest.approx([5e-4]))
    assert len(Spikes.from_recordings([], {"x": 4})) == 0
    with pytest.raises(ValueError, match=r"recordings\[0\] has no field 't'; it has times, units"):
        Spikes.from_recordings([{"times": [0.5], "units": [7]}], {"units": 700})
    with pytest.raises(ValueError, match=r"recordings\[0\]\['x'\] spans 0..3, allowed 0..2"):
        Spikes.from_recordings(recordings, {"x": 3})


@pytest.mark.parametrize(
    "chosen", [[2, 0, 0], np.array([2, 0, 0]), torch.tensor([-1, 0, -3]), slice(1, 3), [False, True, True], []]
)
def test_minibatches_are_chosen_like_those_of_tensors(chosen: Any) -> None:
    grid = EXPECTED.to_grid(1.0, 9)
    index = chosen if isinstance(chosen, slice) else as_tensor(chosen, "chosen")
    index = index.long() if not isinstance(index, slice) and not index.numel() else index
    assert torch.equal(EXPECTED[chosen].to_grid(1.0, 9), grid[:, index])


def test_choices_of_samples_are_checked() -> None:
    with pytest.raises(IndexError, match=r"samples 1..3 of 3, allowed 0..2"):
        EXPECTED[[1, 3]]
    with pytest.raises(IndexError, match=r"a mask of 2 samples cannot choose of 3"):
        EXPECTED[torch.tensor([True, False])]
    for single in (0, 1.5, [[0]], [0.5]):
        with pytest.raises(TypeError, match=r"choose samples by a slice, indices or a mask \[B\]"):
            EXPECTED[single]


def test_batches_of_other_inputs_are_not_joined() -> None:
    with pytest.raises(ValueError, match=r"one number of units, got \[4, 5\]"):
        Spikes.cat([EXPECTED, Spikes([], [], [], 1, 5)])
    with pytest.raises(ValueError, match=r"one number of units, got none"):
        Spikes.cat([])


@pytest.mark.parametrize("late", [1e-3, 1.7e9, 1.7e15, 3e38])
def test_late_events_are_left_out_by_every_device(late: float) -> None:
    early, with_late = (Spikes([0] * len(times), range(len(times)), times, 1, 8) for times in ([0.0], [0.0, late]))
    assert torch.equal(with_late.to_grid(1.7e-6, 20), early.to_grid(1.7e-6, 20))
    net = hx.Network(hx.Linear(8, 6, mean=0.3), hx.LIF(6), hx.Linear(6, 3), hx.LI(3))
    for name in (None, "reference", "emulator"):
        expected, actual = (readout(net, name, spikes) for spikes in (early, with_late))
        assert torch.equal(actual, expected), name


def readout(net: hx.Network, backend: str | None, spikes: Spikes) -> torch.Tensor:
    with torch.no_grad():
        if backend is None:
            net.attach(None)
            return net(spikes).readout
        with hx.Device(create_backend(backend)) as device:
            net.attach(device)
            return net(spikes).readout


def test_the_plain_constructor_orders_events_as_devices_need_them() -> None:
    spikes = Spikes(torch.tensor([1, 0]), torch.tensor([0, 1]), torch.tensor([1e-6, 2e-6]), 2, 8)
    assert spikes.sample.tolist() == [0, 1]
    net = hx.Network(hx.Linear(8, 6), hx.LIF(6), hx.Linear(6, 3), hx.LI(3))
    assert readout(net, "emulator", spikes).shape == readout(net, None, spikes).shape
