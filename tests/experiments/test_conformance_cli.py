"""`hxtrain-conformance`, called as by an author of a backend."""

import json
from dataclasses import asdict

import pytest
from commands import call, launch

from hxtrain.backends.conformance import CHECKS, IDEAL
from hxtrain.commands.conformance import ConformanceConfig

SLOPPY = """
from hxtrain.backends import create_backend
from hxtrain.backends.reference import ReferenceBackend

class Sloppy(ReferenceBackend):
    def __init__(self, offset: int = 0):
        super().__init__()
        self.offset = offset

    def run(self, weights, stimulus):
        recording = super().run(weights, stimulus)
        for codes in recording.traces.values():
            codes += self.offset
        return recording
"""


UNSTABLE = """
    @property
    def identity(self):
        return {**super().identity, "chip_hash": str(hash("chip"))}
"""


@pytest.fixture
def sloppy(tmp_path, monkeypatch):
    """Write a package with a backend that is discovered like an installed one; return the options that use it."""
    (tmp_path / "sloppy.py").write_text(SLOPPY)
    meta = tmp_path / "sloppy-0.1.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: sloppy\nVersion: 0.1\n")
    (meta / "entry_points.txt").write_text("[hxtrain.backends]\nsloppy = sloppy:Sloppy\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return ["backend=reference", "backend.name=sloppy", "tolerances=ideal", "hydra.run.dir=run"]


def test_all_checks_and_training_on_the_reference_device(tmp_path):
    process = call("hxtrain-conformance", "backend=reference", "hydra.run.dir=run", cwd=tmp_path)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "55 pass, 5 not applicable" in process.stdout
    record = json.loads((tmp_path / "run/conformance.json").read_text())
    assert record["passed"]
    assert record["identity"] == {"backend": "reference", "chip": "ideal", "chip_hash": "none"}
    assert record["settings"]["tolerances"] == asdict(IDEAL)
    assert [check["name"] for check in record["checks"]] == [
        *CHECKS,
        "training_lowers_a_loss",
        "another_process_knows_the_device",
    ]
    assert record["command"].startswith("hxtrain-conformance backend=reference")


def test_a_wrong_device_of_another_package_fails(sloppy, tmp_path):
    options = [
        *("+backend.settings.offset=5", "checks=[rest_is_the_leak,weights_of_zero_are_quiet,run_needs_a_circuit]"),
        "+exclude.weights_of_zero_are_quiet=the offset is known",
    ]
    process = launch("hxtrain-conformance", *sloppy, *options, cwd=tmp_path)
    assert process.returncode == 1, process.stderr
    checks = json.loads((tmp_path / "run/conformance.json").read_text())["checks"]
    assert {check["name"]: check["verdict"] for check in checks} == {
        "run_needs_a_circuit": "pass",
        "rest_is_the_leak": "fail",
        "weights_of_zero_are_quiet": "excluded",
    }
    assert "rest within 1.0 of the leak" in checks[1]["text"]
    assert "the offset is known" in process.stdout


def test_a_hash_that_changes_from_process_to_process_fails(sloppy, tmp_path):
    (tmp_path / "sloppy.py").write_text(SLOPPY + UNSTABLE)
    options = ["checks=[another_process_knows_the_device]"]
    process = launch("hxtrain-conformance", *sloppy, *options, cwd=tmp_path)
    assert process.returncode == 1, process.stderr
    (check,) = json.loads((tmp_path / "run/conformance.json").read_text())["checks"]
    assert check["text"].startswith("in another process the identity has chip_hash=")


def test_a_device_in_a_module_of_the_user_is_the_same_in_another_process(tmp_path):
    (tmp_path / "my_chip.py").write_text(SLOPPY)
    options = ["checks=[run_needs_a_circuit,another_process_knows_the_device]", "hydra.run.dir=run"]
    process = launch("hxtrain-conformance", "backend=my_chip:Sloppy", *options, cwd=tmp_path)
    assert process.returncode == 0, process.stdout + process.stderr
    checks = json.loads((tmp_path / "run/conformance.json").read_text())["checks"]
    assert [check["verdict"] for check in checks] == ["pass", "pass"]


def test_software_is_refused(tmp_path):
    process = call("hxtrain-conformance", "backend=software", "hydra.run.dir=run", cwd=tmp_path)
    assert "backend=software is no device; name one to be checked" in process.stderr
    assert process.returncode == 3
    assert "Traceback" not in process.stderr


def test_names_and_reasons_are_checked_before_the_device_is_opened():
    with pytest.raises(ValueError, match="checks rest are not known; there are: capabilities_are_plausible"):
        ConformanceConfig(checks=["rest"])
    with pytest.raises(ValueError, match="exclude: training_lowers_a_loss needs a reason"):
        ConformanceConfig(exclude={"training_lowers_a_loss": ""})
