"""Errors of the library name its parameters; the command line adds the settings."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from hxtrain.experiments.keys import with_keys
from hxtrain.experiments.main import main
from hxtrain.experiments.settings import of_device

NAMES = ["seed", "chip.seed", "backend.trial_time", "network.steps", "network.scale", "augment.scale", "data.size"]
NAMES += [f"other_{name}" for name in NAMES if name.startswith(("chip", "backend"))]

TEXTS = [
    ("steps=117 or trial_time=3", "steps=117 or trial_time=3 (on the command line: network.steps, backend.trial_time)"),
    ("set steps=117, not steps=118", "set steps=117, not steps=118 (on the command line: network.steps)"),
    ("give a `size` of the data", "give a `size` of the data (on the command line: data.size)"),
    ("a smaller scale=2", "a smaller scale=2 (on the command line: network.scale)"),
    ("set network.steps=3", "set network.steps=3"),
    ("steps=3: write network.steps=[3]", "steps=3: write network.steps=[3]"),
    ("seed=-1 is negative", "seed=-1 is negative"),
    ("use fewer steps, of any size", "use fewer steps, of any size"),
    ("layer=3 of 5", "layer=3 of 5"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_settings_are_added_to_the_parameters_of_a_text(text: str, expected: str) -> None:
    assert with_keys(text, NAMES) == expected


def test_a_command_has_only_its_settings() -> None:
    assert with_keys("set steps=3", ["steps", "checkpoint"]) == "set steps=3"


@pytest.mark.parametrize(
    ("backend", "text", "keys"),
    [
        ("emulator", "seed=-1, engine='slow'", "chip.seed, backend.settings.engine"),
        ("remote", "preset='x', `patience`", "backend.settings.preset, backend.settings.patience"),
        ("brainscales2", "calibration=x", "backend.settings.calibration"),
        ("brainscales2", "trial_time=1", "backend.trial_time"),
    ],
)
def test_settings_of_the_device_in_use_are_added(backend: str, text: str, keys: str) -> None:
    names = ["chip.seed", "chip.preset", "chip.calibration", "backend.trial_time", "backend.settings"]
    assert with_keys(text, of_device(names, backend)) == f"{text} (on the command line: {keys})"


SMALL = ["hxtrain", "experiment=digits", "network.hidden=[10]", "backend=reference"]
ERRORS = [
    (["network.dt=1e-6"], "set dt=1.7e-06", "network.dt"),
    (["network.steps=200"], "set steps=117 or less", "network.steps, backend.trial_time"),
    (["network.weight_bits=12"], "set weight_bits=", "network.weight_bits"),
    (["data=folder"], "needs folder=FOLDER", "data.folder"),
    (["data.size=9"], "leave `folder` and `download` out", "data.folder, data.download, data.size"),
    (["backend=emulator", "chip.preset=perfect"], "preset='perfect' is not known", "chip.preset"),
    (["backend=emulator", "chip.only=[leek]"], "only=['leek'] is not known", "chip.only"),
]


@pytest.mark.parametrize(("words", "text", "keys"), ERRORS, ids=[" ".join(words) for words, _, _ in ERRORS])
def test_an_error_of_the_library_ends_with_the_settings(
    words: list[str], text: str, keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [*SMALL, *words])
    output = io.StringIO()
    with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output), pytest.raises(SystemExit) as end:
        main()
    GlobalHydra.instance().clear()
    assert end.value.code == 2
    assert text in output.getvalue()
    assert f"(on the command line: {keys}" in output.getvalue()
