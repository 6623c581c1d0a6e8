"""Every wrong command line ends with one text of hxtrain that names the value and the remedy."""

import contextlib
import io
import os
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from mistakes_table import MISTAKES

from hxtrain.experiments.main import main
from hxtrain.experiments.mistakes import Command, misused_groups

FOREIGN = ("Traceback", "hydra.cc", "omegaconf", "ListConfig", "To append", "mismatched", "search path", "In 'train'")


def outcome(script: str, words: list[str], folder: Path) -> tuple[int, str]:
    """Run a command in this process; return its exit status and its output."""
    output = io.StringIO()
    arguments = sys.argv
    directory = Path.cwd()
    sys.argv = [*script.split(), *words]
    os.chdir(folder)
    try:
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output), pytest.raises(SystemExit) as end:
            sys.exit(main())
    finally:
        sys.argv = arguments
        os.chdir(directory)
        GlobalHydra.instance().clear()
    return int(end.value.code or 0), output.getvalue()


@pytest.mark.parametrize(("script", "words", "texts"), MISTAKES, ids=[" ".join([s, *w]) for s, w, _ in MISTAKES])
def test_a_mistake_is_answered_with_value_and_remedy(
    script: str, words: list[str], texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hxtrain.experiments.train.run", lambda *_: pytest.fail("it trains"))
    status, output = outcome(script, words, tmp_path)
    assert status == 2, output
    assert output.startswith("error: ")
    assert all(text in output for text in texts), output
    assert not any(text in output for text in FOREIGN), output
    assert len(output) < 600


@pytest.mark.parametrize(
    "words",
    [
        ["sweep=published", "experiment=digits,mnist16"],
        ["hydra.mode=MULTIRUN", "data=mnist,digits"],
        ["--multirun", "seed=0,1", "chip=W66F3,W62F0"],
        ["regularizer=[burst]", "chip={preset:ideal}"],
    ],
)
def test_command_lines_that_hydra_takes_pass(words: list[str]) -> None:
    assert misused_groups(Command("train", words)) == []
