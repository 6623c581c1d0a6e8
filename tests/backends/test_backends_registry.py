"""Devices by name."""

import subprocess
import sys
from dataclasses import fields
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from hxtrain.backends import (
    GROUP,
    UnknownBackendError,
    accepted_settings,
    available_backends,
    create_backend,
    free_settings,
    required_settings,
)
from hxtrain.backends.chip_settings import EmulatorSettings
from hxtrain.backends.emulated import EmulatorBackend
from hxtrain.backends.reference import ReferenceBackend
from hxtrain.execution.config import ChipConfig

PLUGIN = """
from functools import wraps

from hxtrain.backends import BackendWrapper
from hxtrain.backends.reference import ReferenceBackend

class FakeChip(ReferenceBackend):
    def __init__(self, host, port=7):
        super().__init__()
        self.address = (host, port)

class Front(BackendWrapper):
    FREE_SETTINGS = frozenset({"host"})

    def __init__(self, host, gain=2):
        super().__init__(FakeChip(host))
        self.gain = gain

class Tuned(Front):
    def __init__(self, host, gain=3):
        super().__init__(host, gain)

@wraps(Tuned)
def logged(*arguments, **settings):
    return Tuned(*arguments, **settings)

def factory(host):
    return Front(host)

factory.FREE_SETTINGS = frozenset({"host"})

def nothing():
    return 42
"""
MORE = ("nothing", "Front", "Tuned", "logged", "factory")


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mocker: MockerFixture) -> None:
    (tmp_path / "fake_chip_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        EntryPoint("fakechip", "fake_chip_plugin:FakeChip", GROUP),
        EntryPoint("absent", "no_such_package:Chip", GROUP),
        *(EntryPoint(name.lower(), f"fake_chip_plugin:{name}", GROUP) for name in MORE),
    ]
    mocker.patch("hxtrain.backends.registry.installed", return_value=points)


def test_built_in_devices_are_registered() -> None:
    points = available_backends()
    assert {"emulator", "reference"} <= set(points)
    assert points["emulator"].load() is EmulatorBackend
    assert points["reference"].load() is ReferenceBackend


def test_looking_up_names_imports_no_device(tmp_path: Path) -> None:
    code = (
        "import sys; from hxtrain.backends import available_backends; names = available_backends();"
        "print(sorted({'hxtrain.emulator', 'hxtrain.backends.emulated', 'numba'} & set(sys.modules)), *names)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert process.stdout.split()[0] == "[]"
    assert "emulator" in process.stdout


def test_the_keywords_of_the_emulated_chip_are_the_fields_of_its_settings() -> None:
    assert accepted_settings("emulator") == {item.name for item in fields(EmulatorSettings)}
    assert required_settings("emulator") == set()
    assert repr(EmulatorBackend("W60F0", "ideal")) == repr(create_backend("emulator", chip="W60F0", preset="ideal"))


def test_a_chip_of_the_command_line_is_taken_whole_by_the_emulated_chip() -> None:
    name, *options = [item.name for item in fields(ChipConfig)]
    assert name == "name"
    assert set(options) < accepted_settings("emulator")


def test_settings_reach_the_device() -> None:
    backend = create_backend("emulator", chip="W60F0", preset="uncalibrated", seed=3, substeps=8, engine="readable")
    assert isinstance(backend, EmulatorBackend)
    emulated = backend.emulated
    assert (emulated.chip.name, emulated.seed, emulated.substeps, emulated.engine.name) == (
        "W60F0",
        3,
        8,
        "readable",
    )


@pytest.mark.parametrize(
    ("setting", "name"),
    [("fast", "cpu"), ("readable", "readable"), ("compiled", "cpu"), ("stepwise", "readable")],
)
def test_engines_have_their_names_and_those_of_older_versions(setting: str, name: str) -> None:
    backend = create_backend("emulator", engine=setting)
    assert isinstance(backend, EmulatorBackend)
    assert backend.emulated.engine.name == name


@pytest.mark.parametrize(
    ("name", "settings", "error", "text"),
    [
        (
            "loihi",
            {},
            UnknownBackendError,
            r"backend='loihi' is not registered; known: .*emulator.*reference.*installed",
        ),
        (
            "emulator",
            {"chp": 1, "sed": 2},
            UnknownBackendError,
            r"no setting 'chp', 'sed'; it accepts: .*chip, .*substeps",
        ),
        (
            "reference",
            {"chip": "x"},
            UnknownBackendError,
            r"'reference' has no setting 'chip'; it accepts: weight_max",
        ),
        ("emulator", {"preset": "perfect"}, ValueError, r"preset='perfect' is not known; choose one of"),
        (
            "emulator",
            {"engine": "quick"},
            ValueError,
            r"engine='quick' is not known; choose 'fast' or 'readable'",
        ),
        ("emulator", {"device": "nowhere"}, ValueError, r"device='nowhere' cannot be used: .*; use cpu, or install"),
        ("emulator", {"device": "meta"}, ValueError, r"runs on cpu and cuda, not on device='meta'; use engine='reada"),
        ("emulator", {"substeps": 0}, ValueError, r"substeps=0 must be in 1..64"),
    ],
)
def test_refusals(name: str, settings: dict[str, object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        create_backend(name, **settings)


@pytest.mark.usefixtures("plugin")
def test_a_plugin_is_created_by_its_name() -> None:
    backend = create_backend("fakechip", host="lab")
    assert type(backend).__name__ == "FakeChip"
    assert backend.address == ("lab", 7)  # type: ignore[attr-defined]
    assert sorted(available_backends()) == sorted(["absent", "fakechip", *map(str.lower, MORE)])


@pytest.mark.usefixtures("plugin")
def test_a_plugin_that_gives_no_backend_is_refused() -> None:
    with pytest.raises(UnknownBackendError, match="backend 'nothing' gave a int, not a Backend"):
        create_backend("nothing")


@pytest.mark.usefixtures("plugin")
def test_a_plugin_is_imported_only_when_it_is_used() -> None:
    sys.modules.pop("fake_chip_plugin", None)
    available_backends()
    assert "fake_chip_plugin" not in sys.modules
    with pytest.raises(UnknownBackendError, match=r"'absent' cannot be imported: .*no_such_package"):
        create_backend("absent")


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("name", "names"),
    [("fakechip", set()), *((name, {"host"}) for name in ("front", "tuned", "logged", "factory")), ("unknown", set())],
)
def test_a_device_names_the_settings_that_change_no_recording(name: str, names: set[str]) -> None:
    assert free_settings(name) == names
    if names:
        assert create_backend(name, host="here").identity == ReferenceBackend().identity


def test_a_server_may_move_and_a_chip_may_not() -> None:
    assert {"address", "keys"} <= free_settings("remote") <= accepted_settings("remote")
    assert free_settings("emulator") == free_settings("reference") == frozenset()
