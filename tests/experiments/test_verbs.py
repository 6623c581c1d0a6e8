"""`hxtrain VERB`: verbs, aliases, help, versions and what they import."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from pkgutil import resolve_name

import pytest

import hxtrain
from hxtrain.experiments import main as dispatcher
from hxtrain.experiments.app import command_line, resume_command
from hxtrain.experiments.main import main, similar
from hxtrain.experiments.mistakes import Command
from hxtrain.experiments.overview import overview
from hxtrain.experiments.schema import SCHEMAS, choices, groups
from hxtrain.experiments.verbs import VERBS, Verb, program

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "hydra", "numpy", "omegaconf", "rich", "matplotlib", "numba")
CALL = """
import sys
sys.argv = {words!r}
from hxtrain.experiments.main import main
try:
    status = main()
except SystemExit as end:
    status = end.code
print(sorted(set({modules!r}) & set(sys.modules)), status or 0, file=sys.stderr)
"""


def imported(words: list[str], modules: tuple[str, ...]) -> str:
    """Return which modules a command line imports, and its status, as text."""
    code = CALL.format(words=words, modules=modules)
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return process.stderr.splitlines()[-1]


@pytest.mark.parametrize("words", [["hxtrain", "--help"], ["hxtrain", "--version"], ["hxtrain", "evalute"]])
def test_the_dispatcher_imports_nothing_heavy(words: list[str]) -> None:
    assert imported(words, HEAVY) == f"[] {2 if words[1] == 'evalute' else 0}"


@pytest.mark.parametrize(
    ("words", "modules"),
    [
        (["hxtrain", "info", "--json"], ("matplotlib", "hydra", "hxtrain.training", "hxtrain.commands")),
        (["hxtrain", "serve", "--help"], ("matplotlib", "numba", "hxtrain.emulator", "hxtrain.commands.train")),
    ],
)
def test_a_verb_imports_only_what_it_needs(words: list[str], modules: tuple[str, ...]) -> None:
    assert imported(words, modules) == "[] 0"


def test_help_has_a_line_of_each_verb_with_a_page_that_exists(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("hxtrain", "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    for name, verb in VERBS.items():
        assert f"  {name:<11}  {verb.summary}" in "\n".join(lines)
        assert (ROOT / verb.page).is_file()
        assert callable(resolve_name(verb.main))
    assert max(map(len, lines)) <= 80


def test_the_page_of_commands_has_an_example_of_every_verb() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    assert [name for name in VERBS if name != "train" and f"\nhxtrain {name} " not in text] == []


@pytest.mark.parametrize("words", [["help"], ["-h"], ["--help"]])
def test_help_has_several_spellings(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("hxtrain", *words) == 0
    assert capsys.readouterr().out.startswith("hxtrain: spiking neural networks, trained")


@pytest.mark.parametrize("words", [["help", "fit"], ["--help", "fit"], ["fit", "--help"], ["fit", "-h"]])
def test_help_of_a_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("hxtrain", *words) == 0
    assert capsys.readouterr().out.startswith("hxtrain fit: measure a device's neurons to emulate it (docs/fit.md)\n")


@pytest.mark.parametrize("verb", SCHEMAS)
def test_help_of_a_verb_shows_groups_with_options_and_defaults(verb: str) -> None:
    text = " ".join(overview(Command(verb)).split())
    for group, default in groups(verb).items():
        defaults = default if isinstance(default, list) else [default]
        options = [f"{name}*" if name in defaults else name for name in choices(verb, group)]
        assert f"{group} " in text
        assert f": {', '.join(options)}" in text
    assert "None" not in text


def call(*argv: str) -> int:
    """Run the command in this process; return its exit status."""
    previous = sys.argv
    sys.argv = list(argv)
    try:
        return main() or 0
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = previous


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Let each verb note the words of its call in place of its work."""
    notes: list[list[str]] = []
    stand_ins = {name: Verb(f"{__name__}:{name}", verb.summary, verb.page) for name, verb in VERBS.items()}
    monkeypatch.setattr(dispatcher, "VERBS", stand_ins)
    monkeypatch.setattr(dispatcher, "resolve_name", lambda path: lambda: notes.append([path.split(":")[1], *sys.argv]))
    return notes


CALLS = [
    (["hxtrain"], ["train", "hxtrain"]),
    (["/bin/hxtrain", "experiment=digits"], ["train", "/bin/hxtrain", "experiment=digits"]),
    (["hxtrain", "--multirun", "seed=0,1"], ["train", "hxtrain", "--multirun", "seed=0,1"]),
    (["hxtrain", "--config-dir", "conf"], ["train", "hxtrain", "--config-dir", "conf"]),
    (["hxtrain", "experiment=digits", "--help"], ["train", "hxtrain", "experiment=digits", "--help"]),
    (["hxtrain", "train", "seed=1"], ["train", "hxtrain train", "seed=1"]),
    (["/a b/hxtrain", "evaluate", "-m", "checkpoint=x"], ["evaluate", "/a b/hxtrain evaluate", "-m", "checkpoint=x"]),
    (["hxtrain", "serve", "keys", "DIR"], ["serve", "hxtrain serve", "keys", "DIR"]),
    (["hxtrain", "data", "check"], ["data", "hxtrain data", "check"]),
    (["/bin/hxtrain-evaluate", "--cfg", "job"], ["evaluate", "/bin/hxtrain-evaluate", "--cfg", "job"]),
    (["hxtrain-fit.exe", "file=x"], ["fit", "hxtrain-fit.exe", "file=x"]),
    (["hxtrain-serve", "status"], ["serve", "hxtrain-serve", "status"]),
]


@pytest.mark.parametrize(("argv", "expected"), CALLS, ids=[" ".join(argv) for argv, _ in CALLS])
def test_words_reach_their_verb(argv: list[str], expected: list[str], calls: list[list[str]]) -> None:
    call(*argv)
    assert calls == [expected]


@pytest.mark.parametrize(
    ("word", "verbs"),
    [
        ("evalute", ["evaluate"]),
        ("eval", ["evaluate"]),
        ("benchmark", ["bench"]),
        ("calibration", ["calibrate"]),
        ("digits", []),
        ("chip", []),
        ("run/config.yaml", []),
        ("seed=1", []),
        ("", []),
    ],
)
def test_a_word_close_to_a_verb_is_recognised(word: str, verbs: list[str]) -> None:
    assert similar(word) == [f"hxtrain {verb}" for verb in verbs]


def test_the_verbs_of_earlier_versions_have_an_alias_of_one_entry_point() -> None:
    points = metadata.distribution("hxtrain").entry_points.select(group="console_scripts")
    scripts = {point.name: point.value for point in points}
    without_alias = {"train", "play", "convert", "prune", "view", "pool", "nir"}
    assert scripts.keys() == {"hxtrain", *(f"hxtrain-{verb}" for verb in VERBS.keys() - without_alias)}
    assert set(scripts.values()) == {"hxtrain.experiments.main:main"}


@dataclass
class Lines:
    """Command lines that a verb reports."""

    typed: str = ""
    resumed: str = ""


@pytest.mark.parametrize(
    ("argv", "typed"),
    [
        (["/x/hxtrain", "bench", "suite=scale", "hydra.run.dir=a b"], "hxtrain bench suite=scale 'hydra.run.dir=a b'"),
        (["/x/hxtrain-bench", "suite=scale", "hydra.run.dir=a b"], "hxtrain-bench suite=scale 'hydra.run.dir=a b'"),
    ],
)
def test_the_record_has_the_words_as_typed_and_the_remedy_has_the_verb(
    argv: list[str], typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = Lines()

    def note(config: object) -> None:
        lines.typed = command_line()
        lines.resumed = resume_command()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hxtrain.experiments.bench._bench", note)
    assert call(*argv) == 0
    assert lines.typed == typed
    assert lines.resumed == f"hxtrain bench suite=scale 'hydra.run.dir={tmp_path}/a b'"


def test_the_program_of_the_default_verb_is_bare() -> None:
    assert [program("train"), program("evaluate")] == ["hxtrain", "hxtrain evaluate"]


def test_a_closed_pipe_is_no_error() -> None:
    code = "from hxtrain.experiments.main import show; show('x\\n' * 10**6)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_names_of_the_package_are_listed_and_come_from_their_homes() -> None:
    assert dir(hxtrain) == sorted(hxtrain.__all__)
    for name in hxtrain.__all__:
        assert getattr(hxtrain, name) is not None
    assert set(hxtrain._HOMES) == set(hxtrain.__all__) - {"__version__", "load", *hxtrain._ALIASES}
    for name, home in hxtrain._HOMES.items():
        assert getattr(hxtrain, name) is resolve_name(f"hxtrain.{home}:{name}")
        assert f" {name}" in (ROOT / "hxtrain" / "__init__.py").read_text().partition("_HOMES = ")[0]


def test_modules_of_the_package_are_attributes_and_unknown_names_fail() -> None:
    code = "import hxtrain; print(hxtrain.network.layers.LIF is hxtrain.LIF, hasattr(hxtrain, 'nothing'))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.split() == ["True", "False"]
    with pytest.raises(AttributeError, match="module 'hxtrain' has no attribute 'Netwrk'"):
        hxtrain.Netwrk  # noqa: B018
