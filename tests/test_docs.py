"""Pages: links lead somewhere, and the names that they mention exist."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from pkgutil import resolve_name

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "hxtrain", "backends", "emulator", "experiments")
MADE = {"_build", "_generated"}
"""Folders that the build of the site makes."""
PAGES = [*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))]
PAGES = [page for page in PAGES if not MADE & set(page.parts)]
HISTORY = [page for page in PAGES if page.name == "CHANGELOG.md" or page.parent.name == "decisions"]
"""Pages that name what has been."""
CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+:)([^)\s#]*)(?:#([^)\s]+))?\)")
MODULE = re.compile(r"\bhxtrain(?:\.[A-Za-z_]\w*)+")
FACE = re.compile(r"\bhx\.([A-Za-z_]\w*)")
FILE = re.compile(r"(?<![\w/.-])(?:docs|hxtrain|backends|emulator|experiments|tests)/[\w/.-]*\w")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as web views of repositories make them."""
    texts = HEADING.findall(CODE.sub("", page.read_text()))
    return {re.sub(r"[^\w -]", "", text.lower()).strip().replace(" ", "-") for text in texts}


def exists(name: str) -> bool:
    """Return whether a dotted name is a module, an attribute or a group of entry points."""
    try:
        resolve_name(name)
    except (ImportError, AttributeError):
        return bool(metadata.entry_points(group=name))
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for file, anchor in LINK.findall(CODE.sub("", page.read_text())):
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(f"{file}#{anchor}")
    assert broken == []


def test_names_in_pages_exist() -> None:
    missing = []
    for page in PAGES:
        text = page.read_text()
        files = [name for name in FILE.findall(text) if not MADE & set(Path(name).parts)]
        files = [name for name in files if not any((ROOT / name).parent.glob((ROOT / name).name + "*"))]
        names = MODULE.findall(text) + [f"hxtrain.{name}" for name in FACE.findall(text)]
        if page not in HISTORY:
            missing += [f"{page.name}: {name}" for name in [*files, *filter(lambda name: not exists(name), names)]]
    assert missing == []
