"""The file of measured neuron parameters."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hxtrain.backends import NeuronParameters, ParameterFileError, create_backend


def parameters(neurons: int = 6, merged: int = 2) -> NeuronParameters:
    rng = np.random.default_rng(0)
    return NeuronParameters(
        device={"backend": "emulator", "chip": "A1", "chip_hash": "0123"},
        merged=merged,
        leak=80 + rng.normal(size=neurons),
        reset=78 + rng.normal(size=neurons),
        threshold=np.array([150.0, np.inf, 149.0, 151.0, 148.0, 152.0])[:neurons],
        tau_mem=6e-6 * (1 + 0.1 * rng.normal(size=neurons)),
        tau_syn=6e-6 * (1 + 0.1 * rng.normal(size=(merged, 2, neurons))),
        strength=1 + 0.05 * rng.normal(size=(128 * merged, 2, neurons)),
        membrane_noise=0.8,
        rails=(25.0, 228.0),
        notes=("neuron 1 never fired",),
    )


def test_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    saved = parameters()
    saved.save(file)
    loaded = NeuronParameters.load(file)
    assert loaded.hash == saved.hash
    assert loaded.notes == saved.notes
    assert loaded.rails == saved.rails
    assert np.array_equal(loaded.strength, saved.strength)
    assert np.isinf(loaded.threshold[1])
    assert replace(saved, leak=saved.leak + 1e-9).hash != saved.hash


def test_damaged_files_are_refused_with_their_name(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    with pytest.raises(ParameterFileError, match=r"there is no .*a.npz; make it with hxtrain fit"):
        NeuronParameters.load(file)
    parameters().save(file)
    whole = file.read_bytes()
    for damaged in (b"", b"text", whole[: len(whole) // 2], whole[:400] + b"\0" * 200 + whole[600:]):
        file.write_bytes(damaged)
        with pytest.raises(ParameterFileError, match=r"a.npz does not hold neuron parameters"):
            NeuronParameters.load(file)


def test_another_format_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, header=np.array('{"format": "other"}'))
    with pytest.raises(ParameterFileError, match=r"not of the format 'hxtrain neuron parameters 1'"):
        NeuronParameters.load(file)


def test_shapes_must_fit_together() -> None:
    with pytest.raises(ParameterFileError, match=r"tau_mem has shape \(3,\), expected \(6,\)"):
        replace(parameters(), tau_mem=np.ones(3))


def with_first(name: str, value: float) -> np.ndarray:
    values = np.array(getattr(parameters(), name))
    values.flat[0] = value
    return values


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e300])
@pytest.mark.parametrize("name", ["leak", "reset", "threshold", "tau_mem", "tau_syn", "strength"])
def test_arrays_hold_numbers_in_their_range(name: str, value: float) -> None:
    with pytest.raises(ParameterFileError, match=rf"{name} of 1 entries, such as .*, is not in "):
        replace(parameters(), **{name: with_first(name, value)})


def test_neurons_must_be_there() -> None:
    with pytest.raises(ParameterFileError, match="leak is of no neurons"):
        parameters(neurons=0)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"tau_syn": with_first("tau_syn", 0.0)}, "tau_syn of 1 entries, such as 0, is not in 1e-09..1"),
        ({"tau_mem": with_first("tau_mem", -6e-6)}, "tau_mem of 1 entries"),
        ({"leak": with_first("leak", np.inf)}, "leak of 1 entries, such as inf"),
        ({"leak": [80.0] * 6}, "leak must be an array of floats"),
        ({"leak": np.array(80.0)}, "leak must be an array of floats"),
        ({"tau_mem": np.ones(6, complex)}, "tau_mem must be an array of floats"),
        ({"membrane_noise": np.nan}, "membrane_noise=nan must be a finite number >= 0"),
        ({"trace_noise": -1.0}, "trace_noise=-1"),
        ({"spike_jitter": 1e300}, "spike_jitter=1e[+]300 s must be a finite number >= 0 and <= 1"),
        ({"saturation": 0.0}, "saturation=0 must be a finite number > 0, or None"),
        ({"rails": (228.0, 25.0)}, "rails=.* must be two ascending numbers"),
        ({"rails": (25.0, np.nan)}, "rails=.* must be two ascending numbers"),
        ({"merged": 0}, "merged=0 must be a whole number >= 1"),
        ({"device": ["chip"]}, "device=.* must map names to texts"),
    ],
)
def test_what_is_out_of_range_is_named(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ParameterFileError, match=text):
        replace(parameters(), **changes)  # type: ignore[arg-type]


def test_a_fitted_chip_refuses_another_circuit(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    parameters().save(file)
    backend = create_backend("emulator", parameters=file)
    assert dict(backend.identity)["chip"] == "A1-fit"
    assert dict(backend.identity)["preset"] == "fitted"
    with pytest.raises(ValueError, match=r"excludes `parameters`"):
        create_backend("emulator", parameters=file, calibration=file)
