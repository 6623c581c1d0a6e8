"""The documentation site is complete: settings, rules, warnings and errors have their texts; its check finds faults."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from _site import check, options, rules

from hxtrain.backends import BACKENDS, Registry
from hxtrain.experiments.schema import SCHEMAS, groups, nodes, register, schema
from hxtrain.experiments.settings import settings
from hxtrain.rules import RULES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FOLDERS = ("hxtrain", "backends", "emulator", "experiments")
FRAGMENT = 12
"""Smallest length of a part of a text that identifies it."""
LOGS = {"warn", "warning"}
"""Functions that show a warning."""
INTERNAL = {"NotApplicableError", "ConformanceError", "WireError", "InterruptedRunError"}
"""Errors that others turn into texts before a user meets them."""


@pytest.fixture(autouse=True)
def components_of_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out components that other tests have registered or resolved in this process."""
    monkeypatch.setattr(
        Registry,
        "reachable",
        lambda self: sorted(name for name, point in self.points().items() if point.value.startswith("hxtrain.")),
    )


@pytest.mark.parametrize("command", SCHEMAS)
def test_every_setting_of_a_command_is_described(command: str) -> None:
    register(command)
    missing = [name for name, setting in settings(schema(command)).items() if len(setting.text) < 8]
    assert missing == []


def test_every_option_of_a_group_has_a_sentence_and_described_settings() -> None:
    register()
    faults = []
    for group in {group for command in SCHEMAS for group in groups(command)}:
        for option, kind in nodes(group).items():
            faults += [f"{group}={option}"] * (not inspect.getdoc(kind))
            faults += [row.name for row in options.rows(kind, f"{group}={option}.") if len(row.text) < 8]
    assert faults == []


@pytest.mark.parametrize("name", sorted(BACKENDS.reachable()))
def test_every_setting_of_a_device_is_described(name: str) -> None:
    kind = BACKENDS.load(name)
    texts = options.argument_texts(kind)
    assert [argument for argument in inspect.signature(kind).parameters if not texts.get(argument)] == []


def test_the_reference_lists_settings_with_default_and_unit() -> None:
    pages = options.pages()
    assert "| `network.tau_mem` | a number | `6e-06` | s | " in pages["options/network.md"]
    assert "| `loss.label_smoothing` | a number | `0` |" in pages["options/loss.md"]
    assert "| `backend.settings.chip` |" in pages["options/devices.md"]
    assert "`chip.preset`" in pages["options/chips-and-data.md"]
    index = pages["options/all.md"]
    assert "| `network.tau_mem` | `6e-06` | [`network=lif`](#options-network-lif)" in index
    assert index.count("\n| `") > 400
    names = [name.removesuffix(".md") for name in pages if name.startswith("options/")]
    assert [name for name in names if f"_generated/{name}\n" not in pages["parts/options.md"]] == []


def test_every_rule_is_in_the_index() -> None:
    index = (DOCS / "rule-index.md").read_text("utf-8")
    assert [name for name in RULES.reachable() if f"_generated/parts/rule-{name}.md" not in index] == []
    parts = rules.pages(DOCS)
    assert "test accuracy (%) | 94.73" in parts["parts/rule-backprop.md"]
    assert "`rule.tau_plus`" in parts["parts/rule-stdp.md"]


def test_chapters_name_their_kernel_as_notebooks_do() -> None:
    """Without the name for display, jupytext makes no notebook of a chapter."""
    chapters = sorted((DOCS / "tutorial").glob("0*.md"))
    assert len(chapters) == 8
    heads = [chapter.read_text("utf-8").split("---\n")[1] for chapter in chapters]
    assert [
        head for head in heads if not re.search(r"^kernelspec:\n  display_name: \S+.*\n  name: python3$", head, re.M)
    ] == []


def literal(node: ast.expr) -> str:
    """Return the text of an expression; what is filled in is a line break, which no text has."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(part) if isinstance(part, ast.Constant) else "\n" for part in node.values)
    if isinstance(node, ast.BinOp):
        return literal(node.left) + literal(node.right)
    return "\n"


@cache
def trees() -> Mapping[Path, ast.Module]:
    """Return the syntax trees of the package."""
    paths = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return {path: ast.parse(path.read_text("utf-8")) for path in paths}


def warnings_in_code() -> Iterator[tuple[str, str]]:
    """Yield place and text of each warning: of calls that show one, of lists of warnings, of functions named so."""
    for path, tree in trees().items():
        for node in ast.walk(tree):
            nodes_of = []
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value).rpartition(".")[2]
                is_list = node.func.attr == "append" and owner in ("warnings", "notes")
                nodes_of = node.args if node.func.attr in LOGS or is_list else []
            elif isinstance(node, ast.FunctionDef) and re.search(r"warnings?$", node.name):
                results = (part for part in ast.walk(node) if isinstance(part, ast.Return | ast.Yield) and part.value)
                nodes_of = [text for result in results for text in ast.walk(result) if isinstance(text, ast.JoinedStr)]
            for text in map(literal, nodes_of):
                if " " in text and max(map(len, re.split(r"\n|%\S", text))) >= FRAGMENT:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def test_every_warning_is_in_troubleshooting() -> None:
    page = (DOCS / "troubleshooting.md").read_text("utf-8")
    entries = [re.split(r"\.\.\.", quoted) for quoted in re.findall(r"`([^`]+)`", page)]
    patterns = [part.strip() for parts in entries for part in parts if len(part.strip()) >= FRAGMENT]
    warnings = list(warnings_in_code())
    assert len(warnings) > 30
    flat = [(place, re.sub(r"\n|%[sd.\d]+f?", " ", text)) for place, text in warnings]
    missing = [f"{place}: {text}" for place, text in flat if not any(pattern in text for pattern in patterns)]
    assert missing == []


def test_errors_of_the_command_line_in_troubleshooting_exist() -> None:
    page = (DOCS / "troubleshooting.md").read_text("utf-8")
    rows = page.partition("## Errors of the command line")[2].partition("Some words never arrive")[0].splitlines()
    texts = [text for row in rows if row.startswith("| `") for text in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    assert len(texts) > 15
    nodes = (node for tree in trees().values() for node in ast.walk(tree))
    code = "\n".join(literal(node) for node in nodes if isinstance(node, ast.Constant | ast.JoinedStr))
    parts = [part.strip(" :;,") for text in texts for part in text.split("...")]
    assert [part for part in parts if part not in code] == []


def test_every_error_is_in_troubleshooting() -> None:
    page = (DOCS / "troubleshooting.md").read_text("utf-8")
    code = "\n".join(path.read_text("utf-8") for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    errors = set(re.findall(r"^class ([A-Z]\w*Error)\(", code, re.MULTILINE)) - INTERNAL
    assert [name for name in sorted(errors) if f"`{name}`" not in page] == []


def test_the_check_of_a_site_finds_faults(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<a href="page.html#here">x</a> <a href="https://example.org">y</a><h1 id="top">z</h1>'
    )
    (tmp_path / "page.html").write_text('<h1 id="here">x</h1><a href="index.html#top">y</a><a href="#here">z</a>')
    assert list(check.problems(tmp_path)) == []
    (tmp_path / "other.html").write_text(
        '<script src="https://cdn.example.org/x.js"></script><a href="none.html">x</a><a href="page.html#none">y</a>'
    )
    assert list(check.problems(tmp_path)) == [
        "other.html: loads https://cdn.example.org/x.js, which is not part of the site",
        "other.html: there is no none.html",
        "other.html: page.html#none has no such anchor",
    ]
