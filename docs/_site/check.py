"""Check of a built site: links and anchors lead somewhere, nothing is loaded from elsewhere, the size is limited.

python docs/_site/check.py docs/_build/html
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LIMIT = 20e6
"""Largest size of a site (bytes)."""
LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}
"""Attributes by which a page loads a file."""
FOREIGN_LINKS = {"canonical", "license"}


class Page(HTMLParser):
    """Links, loaded files and anchors of a page.

    Attributes:
        links: Targets of links.
        loaded: Files that a browser loads with the page.
        anchors: Names that links may lead to.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag names."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and values.get("href"):
            self.links.add(values["href"])
        if values.get("rel") not in FOREIGN_LINKS:
            self.loaded |= {values[name] for kind, name in LOADED if kind == tag and values.get(name)}


@cache
def page(path: Path) -> Page:
    """Return what a file of the site names."""
    return Page(path.read_text(encoding="utf-8"))


def problems(site: Path) -> Iterator[str]:
    """Yield what is wrong with a site."""
    for path in sorted(site.rglob("*.html")):
        if "_static" in path.parts:
            continue  # templates of the theme
        for link in sorted(page(path).links | page(path).loaded):
            address = urlsplit(link)
            if address.scheme or address.netloc:
                if link in page(path).loaded and address.scheme != "data":
                    yield f"{path.relative_to(site)}: loads {link}, which is not part of the site"
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            if not target.exists():
                yield f"{path.relative_to(site)}: there is no {link}"
            elif target.suffix == ".html" and unquote(address.fragment) not in {"", *page(target).anchors}:
                yield f"{path.relative_to(site)}: {link} has no such anchor"
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    if size > LIMIT:
        yield f"the site has {size / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f} MB"


def main() -> int:
    """Print what is wrong with a site; returns 1 if there is something."""
    site = Path(sys.argv[1])
    faults = list(problems(site.resolve()))
    print(*faults, sep="\n", end="\n" if faults else "")
    pages = sum(1 for _ in site.rglob("*.html"))
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    print(f"{pages} pages, {size / 1e6:.1f} MB, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
