"""Every wrong command line ends with one text of our own that names the value and the remedy."""

import contextlib
import importlib
import io
import os
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from mistakes_table import MISTAKES

from hxtrain.experiments.mistakes import Command, misused_groups

FOREIGN = ("Traceback", "hydra.cc", "omegaconf", "ListConfig", "To append", "mismatched", "search path", "In 'train'")


def outcome(script: str, words: list[str], folder: Path) -> tuple[int, str]:
    """Return the exit status and what a command says, run in this process."""
    module = importlib.import_module(f"hxtrain.experiments.{script.partition('-')[2] or 'train'}")
    err, before = io.StringIO(), (sys.argv, Path.cwd())
    sys.argv = [script, *words]
    os.chdir(folder)
    try:
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(err), pytest.raises(SystemExit) as ended:
            module.main()
    finally:
        sys.argv = before[0]
        os.chdir(before[1])
        GlobalHydra.instance().clear()
    return int(ended.value.code or 0), err.getvalue()


@pytest.mark.parametrize(("script", "words", "texts"), MISTAKES, ids=[" ".join([s, *w]) for s, w, _ in MISTAKES])
def test_a_mistake_is_answered_with_value_and_remedy(
    script: str, words: list[str], texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hxtrain.experiments.train.run", lambda *_: pytest.fail("it trains"))
    status, said = outcome(script, words, tmp_path)
    assert status == 2, said
    assert said.startswith("error: ")
    assert all(text in said for text in texts), said
    assert not any(text in said for text in FOREIGN), said
    assert len(said) < 600


@pytest.mark.parametrize(
    "words",
    [
        ["sweep=published", "experiment=digits,mnist16"],
        ["hydra.mode=MULTIRUN", "data=mnist,digits"],
        ["--multirun", "seed=0,1", "chip=W66F3,W62F0"],
        ["regularizer=[burst]", "chip={preset:ideal}"],
    ],
)
def test_what_hydra_takes_is_not_refused(words: list[str]) -> None:
    assert misused_groups(Command("train", words)) == []
