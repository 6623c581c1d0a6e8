"""The lint of the language: what it refuses, and what it lets pass."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def language():
    spec = importlib.util.spec_from_file_location("hxtrain_language", ROOT / ".ci" / "language.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def rules(language, folder, text):
    path = folder / "module.py"
    path.write_text(text, encoding="utf-8")
    return [problem.rule for problem in language.complaints(path)]


@pytest.mark.parametrize(
    "text",
    [
        "found = 1",
        "def own(): ...",
        "def f(before): ...",
        "class C:\n    def __init__(self):\n        self._kept = 1",
        "[x for other in y]",
        "f = lambda where: 0",
        "import numpy as what",
        "try: ...\nexcept ValueError as seen: ...",
        "for found in rows: ...",
        "with open(p) as there: ...",
    ],
)
def test_names_that_are_no_nouns_are_refused(language, tmp_path, text):
    assert rules(language, tmp_path, text) == ["name"]


@pytest.mark.parametrize(
    "text",
    [
        "where = 1  # language: a key of files",
        "layers = 1",
        "def f(downstream): ...",
        "class C:\n    def __eq__(self, other): ...",
    ],
)
def test_nouns_pass(language, tmp_path, text):
    assert rules(language, tmp_path, text) == []


@pytest.mark.parametrize("text", ["a, b, c = 1, 2, 3", "begin, config = time(), load(path)", "a, b = x, f(y)"])
def test_unlike_values_in_one_assignment_are_refused(language, tmp_path, text):
    assert rules(language, tmp_path, text) == ["packed"]


@pytest.mark.parametrize(
    "text", ["a, b = b, a", "low, high = min(x), max(x)", "a, b = pair()", "a, *rest = x", "x, y = 1, 2"]
)
def test_swaps_pairs_and_unpacking_pass(language, tmp_path, text):
    assert rules(language, tmp_path, text) == []


@pytest.mark.parametrize(
    "entry",
    ["mean, gain: Of the weights.", "spikes: Input events. labels: True classes.", "*args, **kwargs: Are passed on."],
)
def test_entries_for_several_parameters_are_refused(language, tmp_path, entry):
    assert rules(language, tmp_path, f'def f():\n    """Do.\n\n    Args:\n        {entry}\n    """') == ["entry"]


@pytest.mark.parametrize("entry", ["mean: Mean of the weights, see `f`; a float.", "shape: T, B, N."])
def test_entries_for_one_parameter_pass(language, tmp_path, entry):
    assert rules(language, tmp_path, f'def f():\n    """Do.\n\n    Args:\n        {entry}\n    """') == []


def test_the_command_names_place_rule_and_name(language, tmp_path, capsys):
    path = tmp_path / "module.py"
    path.write_text("x = 1\nfound = 2\n", encoding="utf-8")
    assert language.main([str(path)]) == 1
    assert f"{path}:2: name: `found`" in capsys.readouterr().out
    path.write_text("x = 1\n", encoding="utf-8")
    assert language.main([str(path)]) == 0
