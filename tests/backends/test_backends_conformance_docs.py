"""docs/write-a-backend.md is true: its files are a backend that passes, by the plug-in as an author uses it."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from hxtrain.backends.conformance import CHECKS, TOLERANCES, Tolerances, asks
from hxtrain.commands.conformance import another_process_knows_the_device, training_lowers_a_loss

OF_HOST = (training_lowers_a_loss, another_process_knows_the_device)
PAGE = (Path(__file__).parents[2] / "docs" / "write-a-backend.md").read_text("utf-8")
FILES = dict(re.findall(r"^```\w+ file=(\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
WRONG = """
import pytest
from hxtrain.backends.conformance import Tolerances
from mychip import MyChip

class Transposed(MyChip):
    def run(self, weights, stimulus):
        square = {n: w.t() if w.shape[0] == w.shape[1] else w for n, w in weights.items()}
        return super().run(square, stimulus)

@pytest.mark.hxtrain_backend(Transposed, tolerances=Tolerances(), exclude={"events_add_up": "too busy"}, chip="B")
def test_wrong(conformance_check):
    conformance_check()

@pytest.mark.hxtrain_backend("reference")
def test_named(conformance_check):
    conformance_check()
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mychip")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / "test_wrong.py").write_text(WRONG)
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "--strict-markers", "."]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_the_page_has_a_backend_of_less_than_100_lines():
    assert set(FILES) == {"mychip.py", "pyproject.toml", "test_mychip.py"}
    assert len(FILES["mychip.py"].splitlines()) < 100


def test_the_backend_of_the_page_passes_its_tests(outcome):
    passed = set(re.findall(r"^PASSED test_mychip.py::test_conformance\[(\w+)\]", outcome, re.MULTILINE))
    assert set(CHECKS) - passed == {
        "large_weights_are_whole",
        "more_than_the_memory_holds",
        "recurrent_events_arrive",
        "close_trials_are_honoured",
        "sources_share_inputs",
        "runs_given_together_are_alike",
    }
    assert "FAILED test_mychip.py" not in outcome
    assert "the device has no recurrence" in outcome


def test_the_plug_in_fails_and_skips_with_the_reason(outcome):
    failed = re.findall(r"^FAILED (\w+).py::(\w+)\[(\w+)\] - (.*)", outcome, re.MULTILINE)
    assert [names[:3] for names in failed] >= [("test_wrong", "test_wrong", "weights_arrive_in_their_place")]
    assert {file for file, *_ in failed} == {"test_wrong"}
    assert "Weights are `[post, pre]`: neither transposed nor permuted" in outcome
    assert "too busy" in outcome
    assert outcome.count("PASSED test_wrong.py::test_named") == len(CHECKS) - 5


def test_the_page_installs(tmp_path):
    """In a folder with all its files and an earlier run, as an author has it."""
    folder, site = tmp_path / "mychip", tmp_path / "site"
    (folder / "outputs").mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    quick = ["--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check", "-q"]
    install = [sys.executable, "-m", "pip", "install", *quick, "--target", str(site), "."]
    process = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False)
    if "No module named pip" in process.stderr:
        pytest.skip("this environment has no pip")
    assert process.returncode == 0, process.stdout + process.stderr
    code = "from hxtrain.backends import create_backend; print(create_backend('mychip', chip='B').identity['chip'])"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=site, capture_output=True, text=True, check=False, env=environment
    )
    assert process.stdout.strip() == "B", process.stderr
    (site / "mychip.py").unlink()
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=site, capture_output=True, text=True, check=False, env=environment
    )
    (line,) = (line for line in process.stderr.splitlines() if line.startswith("hxtrain.backends.registry."))
    assert "backend='mychip' cannot be imported: its entry point 'mychip:MyChip' of the package mychip" in line
    assert "No module named 'mychip'" in line


def test_every_check_is_in_the_page():
    for name, check in {**CHECKS, **{check.__name__: check for check in OF_HOST}}.items():
        assert f"| `{name}` | {asks(check)} |" in PAGE


@pytest.mark.parametrize("name", [field.name for field in fields(Tolerances)])
def test_tolerances_of_the_page_are_those_of_the_code(name):
    row = re.search(rf"^\| `{name}` \|(.+?)\|(.+?)\|(.+?)\|", PAGE, re.MULTILINE)
    assert [float(value) for value in row.groups()] == [getattr(tolerances, name) for tolerances in TOLERANCES.values()]
