"""Paths and texts of the command line: read as typed, printed so that they can be pasted from any folder."""

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as searched
from hypothesis import strategies as st
from omegaconf import OmegaConf

from hxtrain.experiments.schema import schema
from hxtrain.experiments.settings import settings
from hxtrain.experiments.words import parsed, pasted, quote, readable, swept

KNOWN = {name: settings(schema(name)) for name in ("train", "evaluate", "conformance")}
NAMES = [
    "plan (v2)", "Größe", "lr=0.1", "a,b", "[x]", "{x}", "a & b", "#1", "it's", 'say "so"', "~user", "50%", "a;b|c",
    "$x", "${x}", "null", "true", "1e5", "0010", "back\\slash", "end\\", "漢字", "hidden=[10],seed=1", "-x", "+x",
]  # fmt: skip


def value(word: str) -> object:
    """Return the value that a word sets, as OmegaConf resolves it."""
    override = parsed(word)
    assert override is not None, word
    config = OmegaConf.create({"value": None})
    OmegaConf.update(config, "value", override.value())
    return config.value


@searched(max_examples=200, deadline=None)
@given(st.text(alphabet="ab1 ()[]{},=&#'\"~%\\$:./+-!@ü漢*|;", min_size=1, max_size=10))
def test_quoted_text_is_read_as_it_is(text: str) -> None:
    assert value(f"key={quote(text)}") == text


@pytest.mark.parametrize("key", ["checkpoint", "data_folder"])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("${x}", "null")])
def test_a_path_is_read_as_typed(key: str, name: str) -> None:
    (word,) = readable([f"{key}={name}/checkpoint.pt"], KNOWN["evaluate"])
    assert value(word) == f"{name}/checkpoint.pt"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("~user", "${x}")])
@pytest.mark.parametrize("key", ["trainer.initial", "distillation.teacher", "data.folder", "hydra.run.dir"])
def test_a_printed_path_is_that_path_from_any_folder(key: str, name: str, tmp_path: Path) -> None:
    command = pasted("hxtrain", ["--config-dir", "conf", f"{key}={quote(name)}", "seed=1"], tmp_path)
    words = readable(shlex.split(command)[1:], KNOWN["train"])
    assert words[:2] == ["--config-dir", str(tmp_path / "conf")]
    assert value(words[2]) == str(tmp_path / name)
    assert words[3] == "seed=1"


@pytest.mark.parametrize(
    ("command", "word", "expected"),
    [
        ("train", "trainer.initial=null", "trainer.initial=null"),
        ("train", "hydra.run.dir=out/${now:%Y}", "hydra.run.dir=out/${now:%Y}"),
        ("train", "trainer.initial='a b'", "trainer.initial='a b'"),
        ("train", "distillation.teacher=[a.pt,b.pt]", "distillation.teacher=[a.pt,b.pt]"),
        ("train", "chip.changes.gain_cv=0.1", "++chip.changes.gain_cv=0.1"),
        ("train", "backend.faults={timeout:0.1}", "++backend.faults={timeout:0.1}"),
        ("conformance", "exclude.rest=it's slow, (really)", "++exclude.rest=it's slow, (really)"),
        ("train", "network.hidden=[10]", "network.hidden=[10]"),
        ("evaluate", "match=*mnist16*[!n]calibrated", 'match="*mnist16*[!n]calibrated"'),
    ],
)
def test_words_in_the_syntax_of_hydra_stay(command: str, word: str, expected: str) -> None:
    assert readable([word], KNOWN[command]) == [expected]


def test_a_choice_of_paths_is_one_in_a_sweep_unless_a_path_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--multirun", "checkpoint=a,b"]
    assert readable(words, KNOWN["evaluate"]) == words
    assert value(readable(words[1:], KNOWN["evaluate"])[0]) == "a,b"
    (tmp_path / "a,b").mkdir()
    assert value(readable(words, KNOWN["evaluate"])[1]) == "a,b"


@pytest.mark.parametrize(
    ("word", "start"), [("loss=mine:Loss", "cd "), ("loss=other:Loss", "hxtrain "), ("seed=1", "hx")]
)
def test_a_command_with_a_module_of_a_folder_begins_there(tmp_path: Path, word: str, start: str) -> None:
    (tmp_path / "mine.py").touch()
    assert pasted("hxtrain", [word], tmp_path).startswith(start)


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (["sweep=masks_digits", "mask.fan_in=6", "seed=1"], {"mask.fan_in=6": "mask.fan_in=choice(6)"}),
        (["-m", "mask=random,snip", "mask.fan_in=6"], {"mask.fan_in=6": "mask.fan_in=choice(6)"}),
        (["sweep=masks_digits", "mask=ntt", "mask.fan_in=6"], {}),  # every run has the same mask
        (["-m", "mask=random,snip", "mask.fan_in=6,16", "trainer.epochs=2"], {}),
        (["mask=random", "mask.fan_in=6"], {}),
    ],
)
def test_a_setting_of_a_swept_group_is_a_choice_of_one(words: list[str], changed: dict[str, str]) -> None:
    assert swept(words) == [changed.get(word, word) for word in words]
