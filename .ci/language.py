"""The language of the code, checked: names are nouns, an assignment binds one value, an entry is of one parameter.

    python .ci/language.py [--counts] [FOLDER ...]

A name that a function, a class or a comprehension binds must not be a pronoun, an adverb or a bare participle, see
`BANNED`. A tuple on both sides of an assignment is allowed for a swap and for a pair of two values of one kind. Every
entry of `Args:` and `Attributes:` names one parameter and starts on a line of its own. docs/style.md has the reasons.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

FOLDERS = ("hxtrain", "backends", "emulator", "experiments", "tests", "docs")
WORDS = """
    found own owns behind before after where what who whom whose which some others other kept seen given wanted
    known taken made done needed asked told said heard shown sent got gone come came ran began
    here there now then later earlier once already still else elsewhere again always never
    one two three first_one another any_other each every both all_of these those this that it its them they
    so too also very much many more most few less least enough several such same
    thus hence how why when whether
    """
BANNED = frozenset(WORDS.split())
"""Names that say nothing of what they hold."""
EXEMPTION = "# language: "
"""Comment of a name that files or messages fix, with the reason."""
SECTION = re.compile(r"^\s*(Args|Attributes):\s*$")
HEADING = re.compile(r"^\s*[A-Z][a-z]+:\s*$")
ENTRY = re.compile(r"^(?P<names>\*{0,2}[A-Za-z_]\w*(?:,\s*\*{0,2}[A-Za-z_]\w*)*):(?:\s|$)")
FOLLOWING = re.compile(r"[.;]\s+\*{0,2}(?P<name>[a-z_]\w*):\s")


class Complaint(NamedTuple):
    """A place that breaks a rule: file, line, the rule's name and what stands there."""

    path: Path
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.text}"


def complaints(path: Path) -> Iterator[Complaint]:
    """Return what is wrong in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    lines = path.read_text(encoding="utf-8").splitlines()
    for line, name in bound_names(tree):
        if name.strip("_") in BANNED and EXEMPTION not in lines[line - 1]:
            yield Complaint(path, line, "name", f"`{name}` is no noun; say what it holds")
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and is_packed(node):
            yield Complaint(path, node.lineno, "packed", "several values in one assignment; give each a line")
    for line, text in entries(tree):
        yield Complaint(path, line, "entry", text)


def bound_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Return the names that a module binds, functions, classes, parameters and attributes of `self` among them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            name = "" if isinstance(node, ast.Lambda) else node.name
            yield node.lineno, name
            if not name.startswith("__"):  # Python's own methods have names for their parameters: __eq__(self, other)
                yield from ((argument.lineno, argument.arg) for argument in parameters(node))
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.lineno, node.name
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> list[ast.arg]:
    """Return the parameters of a function."""
    signature = node.args
    rest = [argument for argument in (signature.vararg, signature.kwarg) if argument is not None]
    return [*signature.posonlyargs, *signature.args, *signature.kwonlyargs, *rest]


def is_packed(node: ast.Assign) -> bool:
    """Return whether an assignment binds several values that are neither a swap nor a true pair."""
    if not isinstance(node.value, ast.Tuple):
        return False
    targets = next((target for target in node.targets if isinstance(target, ast.Tuple)), None)
    if targets is None:
        return False
    names = [ast.unparse(element) for element in targets.elts]
    values = [ast.unparse(element) for element in node.value.elts]
    if sorted(names) == sorted(values):
        return False
    return not (len(names) == 2 and shape_of(node.value.elts[0]) == shape_of(node.value.elts[1]))


def shape_of(node: ast.AST) -> str:
    """Return the form of an expression without its names and constants: those of a true pair are alike."""
    text = re.sub(r"(id|attr|arg|value|kind)='[^']*'", r"\1=", ast.dump(node))
    return re.sub(r"Constant\(value=[^)]*\)", "Constant()", text)


def entries(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Return the entries of docstrings that name several parameters, or share a line."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        text = ast.get_docstring(node, clean=True)
        if text is None:
            continue
        start = node.body[0].lineno
        for number, line in sections(text):
            match = ENTRY.match(line)
            if match is None:
                continue
            if "," in match["names"]:
                yield start + number, f"one entry for {match['names']}; write one for each"
            following = FOLLOWING.search(line)
            if following is not None:
                yield start + number, f"`{following['name']}` starts within a line; give it a line"


def sections(text: str) -> Iterator[tuple[int, str]]:
    """Return the lines of `Args:` and `Attributes:` at the indent of entries, with their numbers."""
    indent = None
    for number, line in enumerate(text.splitlines()):
        if SECTION.match(line):
            indent = len(line) - len(line.lstrip()) + 4
        elif indent is not None and line.strip():
            depth = len(line) - len(line.lstrip())
            if depth < indent:
                indent = None
            elif depth == indent:
                yield number, line.strip()


def files(folders: Iterable[Path]) -> Iterator[Path]:
    """Return the Python files of some folders."""
    for folder in folders:
        yield from sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]


def main(arguments: list[str] | None = None) -> int:
    """Print all complaints, or their counts; returns 1 if there are some."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, default=[Path(name) for name in FOLDERS])
    parser.add_argument("--counts", action="store_true", help="print the number of each kind per folder")
    options = parser.parse_args(arguments)
    total = 0
    for folder in options.folders:
        problems = [problem for path in files([folder]) for problem in complaints(path)]
        total += len(problems)
        if options.counts:
            print(f"{folder}:", dict(sorted(Counter(problem.rule for problem in problems).items())))
        else:
            print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
