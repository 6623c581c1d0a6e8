"""`backend.record`, `backend=replay` and `hxtrain info rules`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from commands import call

import hxtrain as hx
from hxtrain.commands.identity import free_to_change
from hxtrain.commands.settings import RunConfig
from hxtrain.execution.config import BackendConfig
from hxtrain.rules import RULES, Need, StreamingRule
from hxtrain.runs.checkpoint import load_checkpoint

TINY = [
    "data=digits",
    "network.hidden=[10]",
    "trainer.train_samples=200",
    "trainer.test_samples=50",
    "trainer.epochs=1",
]
TINY += ["trainer.plots=false", "trainer.progress=false"]


def weights(folder: Path) -> list[torch.Tensor]:
    return list(load_checkpoint(folder / "checkpoint.pt")["model"].values())


def test_a_recorded_run_is_repeated_without_its_device(tmp_path: Path) -> None:
    faults = ["backend=emulator_faulty", "chip.preset=uncalibrated"]
    live = call("hxtrain", *TINY, *faults, "backend.record=archive", "hydra.run.dir=live", cwd=tmp_path)
    assert live.returncode == 0, live.stderr
    words = ["backend=replay", "backend.settings.archive=archive"]
    replay = call("hxtrain", *TINY, *words, "hydra.run.dir=replay", cwd=tmp_path)
    assert replay.returncode == 0, replay.stderr
    assert all(map(torch.equal, weights(tmp_path / "live"), weights(tmp_path / "replay")))
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("live", "replay")]
    assert results[0]["test_accuracy"] == results[1]["test_accuracy"]
    assert "backend.record" not in results[0]["settings"]
    mistake = call("hxtrain", *TINY, *words, "seed=1", "hydra.run.dir=other", cwd=tmp_path)
    assert mistake.returncode == 2
    assert "at clock 0 the stimulus has" in mistake.stderr
    assert "data, seed, settings, rule and initial weights must be those of the recording" in mistake.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["backend=replay"], "backend.settings.archive is missing"),
        (["backend=replay", "backend.settings.archive=nowhere"], "nowhere is no archive of recorded runs"),
        (["backend=software", "backend.record=archive"], "backend.record=archive: software has no recordings"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, words: list[str], text: str) -> None:
    process = call("hxtrain", *TINY, *words, "hydra.run.dir=run", cwd=tmp_path)
    assert process.returncode == 2
    assert text in process.stderr


def test_a_resumed_run_may_be_recorded_elsewhere() -> None:
    assert RunConfig(backend=BackendConfig(record="archive")).backend.record == "archive"
    assert "backend.record" in free_to_change("emulator")
    assert "backend.settings.archive" in free_to_change("replay")


@dataclass
class Late(StreamingRule):
    """Learns late.

    Attributes:
        delay: Time before it learns (s).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.TRAINS, Need.MEMBRANES})
    is_local: ClassVar[bool] = True
    solves: ClassVar[str] = "nothing; it serves tests"
    delay: float = 1e-6

    def begin(self, net: hx.Network, batch: object) -> None: ...

    def observe(self, net: hx.Network, batch: object, window: object) -> None: ...

    def finish(self, net: hx.Network, batch: object, activity: object) -> float:
        return 0.0


def test_rules_are_listed_with_what_they_need_and_solve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for names in (RULES._added, RULES._loaded):
        monkeypatch.setitem(names, "late", Late)
    process = call("hxtrain info", "rules", "--json", cwd=tmp_path)
    rules = json.loads(process.stdout)["rules"]
    assert list(rules) == RULES.names()
    assert all(rule["solves"] and rule["summary"] and rule["needs"] for rule in rules.values())
    assert rules["late"] == {
        "provided_by": f"{__name__}:Late",
        "summary": "Learns late.",
        "local": True,
        "streaming": True,
        "needs": ["membranes", "target spike trains"],
        "solves": "nothing; it serves tests",
        "settings": {
            "window": {"default": 1, "text": rules["late"]["settings"]["window"]["text"]},
            "delay": {"default": 1e-6, "text": "Time before it learns (s)."},
        },
    }
    assert not rules["backprop"]["local"]
    assert not rules["backprop"]["streaming"]
    text = call("hxtrain info", "rules", cwd=tmp_path).stdout
    assert "late" in text
    assert "local" in text
    assert "rule.delay=1e-06  Time before it learns (s)." in text
