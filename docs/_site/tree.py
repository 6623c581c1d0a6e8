"""Pages of the repository outside docs/: the README files of the rooms, the changelog, how to contribute."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from sphinx.application import Sphinx

FOLDER = "_generated/tree"
ROOMS = ("hxtrain", "backends", "emulator", "experiments")
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(\]\()(?!\w+:)([^)\s#]+)((?:#[^)\s]+)?\))")
FENCE = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)


def sources(root: Path) -> list[Path]:
    """Return the pages of the repository that are shown beside docs/."""
    rooms = [page for room in ROOMS for page in sorted((root / room).rglob("README.md"))]
    return [root / "README.md", root / "CHANGELOG.md", root / "CONTRIBUTING.md", *rooms]


def name_of(path: PurePosixPath) -> PurePosixPath:
    """Return the place of a page of the repository in the site, from docs/."""
    return PurePosixPath(FOLDER) / str(path).replace("/", "-").lower()


def pages(root: Path) -> Mapping[str, str]:
    """Return the pages by their place below `_generated`."""
    result = {"parts/more.md": unlisted_pages(root / "docs")}
    for page in sources(root):
        place = PurePosixPath(page.relative_to(root).as_posix())
        text = moved(page.read_text(encoding="utf-8"), place, name_of(place), root)
        result[name_of(place).relative_to("_generated").as_posix()] = text
    return result


def unlisted_pages(docs: Path) -> str:
    """Return a toctree of the pages in docs/ that no toctree of an index page names, so that a new page has a place."""
    indices = [
        page.read_text(encoding="utf-8") for page in sorted(docs.rglob("*.md")) if "_generated" not in page.parts
    ]
    toctrees = "\n".join(tree for text in indices for tree in TOCTREE.findall(text))
    names = {re.split(r"[</]", line.strip().rstrip(">"))[-1] for line in toctrees.splitlines()}
    pages_left = [page.stem for page in sorted(docs.glob("*.md")) if page.stem not in {*names, "index"}]
    if not pages_left:
        return "\n"
    lines = ["```{toctree}", ":maxdepth: 1", ":caption: Other tools", "", *(f"/{name}" for name in pages_left), "```"]
    return "\n".join(lines) + "\n"


def moved(text: str, place: PurePosixPath, target: PurePosixPath, root: Path) -> str:
    """Return a page with its links as they are at another place.

    Args:
        text: Content of the page.
        place: Place of the page in the repository.
        target: Place of the page in the site, from docs/.
        root: Folder of the repository.
    """
    places = {PurePosixPath(page.relative_to(root).as_posix()) for page in sources(root)}

    def replace(match: re.Match[str]) -> str:
        link = PurePosixPath(os.path.normpath(place.parent / match[2]))
        if link in places:
            destination = name_of(link)
        elif link.parts[0] == "docs":
            destination = PurePosixPath(*link.parts[1:])
        else:
            return f"{match[1]}path:{os.path.relpath(root / link, root / 'docs' / target.parent)}{match[3]}"
        return f"{match[1]}{os.path.relpath(destination, target.parent)}{match[3]}"

    return "".join(part if part.startswith("```") else LINK.sub(replace, part) for part in FENCE.split(text))


def redirect_links(application: Sphinx, document: str, content: list[str]) -> None:
    """Lead links that leave docs/ to the copies of these pages."""
    if document.startswith("_generated"):
        return
    root = Path(application.srcdir).parent
    place = PurePosixPath("docs") / f"{document}.md"
    if (root / place).exists() and "](" in content[0] and re.search(r"\]\((?:\.\./)+", content[0]):
        content[0] = moved(content[0], place, PurePosixPath(f"{document}.md"), root)
