"""Features of all commands: help, version, output in any encoding, tables of whole words."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import SCRIPTS, call
from rich.console import Console

from hxtrain.console import print_table
from hxtrain.experiments.command import of_system, plain_warnings
from hxtrain.experiments.mistakes import Command
from hxtrain.experiments.overview import overview
from hxtrain.experiments.schema import SCHEMAS, groups, schema
from hxtrain.experiments.settings import settings
from hxtrain.experiments.verbs import VERBS


@pytest.mark.parametrize("command", SCHEMAS)
def test_every_setting_has_a_text(command: str) -> None:
    assert [name for name, setting in settings(schema(command)).items() if not setting.text] == []


@pytest.mark.parametrize("command", SCHEMAS)
def test_help_holds_a_sentence_the_groups_of_the_command_and_every_setting(command: str) -> None:
    text = overview(Command(command))
    assert text.startswith(f"{Command(command).program}: {VERBS[command].summary} ({VERBS[command].page})\n")
    assert all(f"\n  {name}=" in text for name in settings(schema(command)))
    all_groups = {group for name in SCHEMAS for group in groups(name)}
    assert not [group for group in all_groups - set(groups(command)) if f"\n  {group}  " in text]


@pytest.mark.parametrize("script", ["hxtrain", "hxtrain-serve", "hxtrain-info", "hxtrain-data"])
def test_version_is_that_of_hxtrain(script: str, tmp_path: Path) -> None:
    process = call(script, "--version", cwd=tmp_path)
    assert process.returncode == 0
    assert process.stdout.startswith("hxtrain ")


@pytest.mark.parametrize("encoding", ["gbk", "cp932", "ascii", "latin-1"])
def test_output_shows_letters_that_its_encoding_lacks(encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    code = "from hxtrain.console import write_any_letter as w; w(); print('Gr\\xf6\\u0142e')"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert process.stdout.strip().startswith(b"Gr")


def test_a_command_ends_well_where_its_output_is_ascii() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    data = [SCRIPTS / "hxtrain-data", "check"]
    assert subprocess.run(data, capture_output=True, env=environment, check=False).returncode == 0


@pytest.mark.parametrize(("terminal", "width"), [(True, 60), (False, 80)])
def test_a_table_cuts_no_name(terminal: bool, width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    name = "runs_given_together_are_alike_to_the_last_bit"
    print_table(console, "checks", ("check", "text"), [(name, "a long text " * 12)])
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert name in output
    assert "…" not in output
    assert terminal or len([line for line in output.splitlines() if "long" in line]) == 1


def test_a_warning_is_a_line_without_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    import warnings

    with plain_warnings(), warnings.catch_warnings(), contextlib.suppress(UserWarning):
        warnings.simplefilter("always")
        line = warnings.formatwarning("chip=W62F0 has no effect", UserWarning, "app.py", 3)
    assert line == "warning: chip=W62F0 has no effect\n"


REFUSED = [
    (
        OSError(28, "No space left on device", "/x/result.json"),
        "/x/result.json: No space left on device; free some space",
    ),
    (OSError(28, "No space left on device"), "No space left on device; free some space"),
    (OSError(30, "Read-only file system", "/x"), "/x: Read-only file system; name a folder that can be written"),
    (OSError("gone"), "gone"),
]


@pytest.mark.parametrize(("error", "text"), REFUSED)
def test_errors_of_the_system_name_place_and_remedy(error: OSError, text: str) -> None:
    assert of_system(error).startswith(text)
