"""A chip without a calibration: its identity needs no calibration, and its calibration reports progress."""

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from hxtrain.backends import Circuit, Population, Projection, create_backend
from hxtrain.backends.work import Work, listening, tell
from hxtrain.emulator.calibration import STAGES, Calibration, shipped_chips, store
from hxtrain.runs.progress import device_work_shown

CIRCUIT = Circuit(
    2,
    (Population("neurons", 2, 1, 80.0, 150.0, 80.0, 6e-6, 6e-6, 2e-6),),
    (Projection("input->neurons", "input", "neurons", 2),),
    4,
    1.7e-6,
)


@pytest.fixture
def calibrated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of the chips that were calibrated, by a procedure that takes no time."""
    names: list[str] = []

    def quick(chip: Any, targets: Any, report: Callable[[str], None]) -> tuple[Calibration, list[Any]]:
        names.append(chip.name)
        for stage in [*STAGES, "check"]:
            report(stage)
        source = store.shipped_for(type(chip)("W66F3", chip.preset), targets)
        assert source is not None
        success = {name: np.ones(512, bool) for name in source.success}
        die = chip.silicon.digest[:16]
        return Calibration(chip.name, die, targets, source.codes, success, tuple(STAGES), 0, "2026-01-01"), []

    monkeypatch.setattr(store, "calibrate", quick)
    monkeypatch.setenv("HXTRAIN_CACHE", str(tmp_path))
    return names


@pytest.mark.parametrize("chip", ["Q11A1", "Q11A1+W66F3", "w66f3"])
def test_the_identity_of_a_new_chip_calibrates_nothing(calibrated: list[str], chip: str) -> None:
    identities = []
    for _ in range(2):  # the second iteration uses the cached codes
        with create_backend("emulator", chip=chip) as backend:
            identities.append(dict(backend.identity))
            assert len(calibrated) == (len(identities) > 1)
            backend.configure(CIRCUIT)
            identities.append(dict(backend.identity))
    assert identities[0] == identities[2]
    assert identities[1] == identities[3]
    assert identities[0]["chip_hash"] != identities[1]["chip_hash"]
    assert identities[0]["calibration"] == "made when a circuit is configured"
    assert (
        identities[0]["chip_hash"] != create_backend("emulator", chip=chip, preset="uncalibrated").identity["chip_hash"]
    )
    assert len(calibrated) == 1


@pytest.mark.parametrize("chip", shipped_chips())
def test_the_identity_of_a_chip_of_the_package_stays_the_same(calibrated: list[str], chip: str) -> None:
    with create_backend("emulator", chip=chip) as backend:
        identity = dict(backend.identity)
        backend.configure(CIRCUIT)
        assert dict(backend.identity) == identity
        assert backend.warnings == tuple(text for text in backend.warnings if "did you mean" not in text)
    assert calibrated == []


def test_a_calibration_tells_how_far_it_is(calibrated: list[str]) -> None:
    reports: list[Work] = []
    with listening(reports.append), create_backend("emulator", chip="Q11A1") as backend:
        backend.configure(CIRCUIT)
        backend.configure(CIRCUIT)
    assert [work.n_done for work in reports] == list(range(len(STAGES) + 2))
    assert {work.stages for work in reports} == {len(STAGES) + 1}
    assert reports[0].task.startswith("calibrating chip Q11A1, which is none of those that come with the package,")
    assert (reports[0].stage, reports[-1].stage) == (next(iter(STAGES)), "")


def test_without_a_listener_the_log_warns_once(calibrated: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), create_backend("emulator", chip="Q11A1") as backend:
        backend.configure(CIRCUIT)
    assert [record.message.split(",")[0] for record in caplog.records] == ["calibrating chip Q11A1"]


@pytest.mark.parametrize("terminal", [False, True])
def test_commands_show_a_line_and_on_a_terminal_a_bar(terminal: bool) -> None:
    console = Console(force_terminal=terminal, record=True, width=100, file=open("/dev/null", "w"))  # noqa: SIM115
    with device_work_shown(console):
        for n_done in range(3):
            tell(Work("calibrating chip [/b]", "leak" if n_done < 2 else "", n_done, 2))
    text = console.export_text()
    console.file.close()
    assert text.count("calibrating chip [/b]") == 1


@pytest.mark.parametrize(
    ("name", "meant"), [("w66f3", "W66F3"), ("W66F2", "W66F3"), ("W62FO", "W62F0"), ("w65f4", "W65F4")]
)
def test_a_name_close_to_a_chip_of_the_package_is_asked_about(calibrated: list[str], name: str, meant: str) -> None:
    reports: list[Work] = []
    with listening(reports.append), create_backend("emulator", chip=name) as backend:
        assert any(f"did you mean chip={meant}?" in text for text in backend.warnings)
        backend.configure(CIRCUIT)
        assert any(f"did you mean chip={meant}?" in text for text in backend.warnings)
    assert f"did you mean chip={meant}?" in reports[0].task


@pytest.mark.parametrize("name", ["W99F1", "A", "chip1", "W66F3"])
def test_other_names_are_not(name: str) -> None:
    assert create_backend("emulator", chip=name, preset="uncalibrated").warnings == ()


def test_a_command_without_such_work_writes_nothing() -> None:
    console = Console(record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with device_work_shown(console):
        pass
    assert console.export_text() == ""
    console.file.close()


def population_of(size: int) -> Circuit:
    return replace(CIRCUIT, populations=(replace(CIRCUIT.populations[0], size=size),))


def circuits_of(backend: Any) -> set[int]:
    return {*backend.emulated._program.neurons[0].circuits[0].tolist()}


def test_neurons_avoid_circuits_that_missed_a_target() -> None:
    circuits = []
    failures = []
    for avoided in (False, True):
        with create_backend("emulator", avoid_failures=avoided) as backend:
            backend.configure(population_of(200))
            circuits.append(circuits_of(backend))
            failures.append({int(neuron) for neuron in re.findall(r"neurons\[(\d+)\]", " ".join(backend.warnings))})
    plain, avoiding = circuits
    assert plain == {*range(200)}
    assert len(avoiding) == 200
    assert failures[0]
    assert failures[0] <= plain - avoiding
    assert failures[1] == set()
    assert avoiding - plain <= {*range(200, 220)}
    text = r"512 neuron circuits, the chip has \d+ that are not avoided; .* or set chip.avoid_failures=false"
    with create_backend("emulator", avoid_failures=True) as backend, pytest.raises(ValueError, match=text):
        backend.configure(population_of(512))


def test_a_chip_without_calibration_avoids_nothing() -> None:
    with create_backend("emulator", preset="uncalibrated", avoid_failures=True) as backend:
        backend.configure(CIRCUIT)
        assert circuits_of(backend) == {0, 1}
