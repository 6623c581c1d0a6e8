"""What the site adds to Sphinx: pages that are made of the installed package, and formulas without JavaScript."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from . import api, mathml, options, rules, tree


def write_pages(application: Sphinx) -> None:
    """Write the generated pages and parts of pages below `_generated`."""
    folder = Path(application.srcdir) / "_generated"
    docs = Path(application.srcdir)
    pages = {**options.pages(), **api.pages(), **rules.pages(docs), **tree.pages(docs.parent)}
    written = {folder / name for name in pages}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path not in written:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # an unchanged page is not built again
            path.write_text(text, encoding="utf-8")


def announce(application: Sphinx, document: str, content: list[str]) -> None:
    """Print a line before a chapter is executed, which may take a minute; Sphinx itself is quiet."""
    if document.startswith("tutorial/0") and application.config.nb_execution_mode != "off":
        print(f"  {document}", flush=True)


def add(application: Sphinx) -> dict[str, Any]:
    """Connect the pages of the site with Sphinx."""
    application.connect("builder-inited", write_pages)
    application.connect("source-read", tree.redirect_links)
    application.connect("source-read", announce)
    application.connect("autodoc-process-signature", api.clean_signature)
    application.connect("autodoc-process-docstring", api.hide_colons, priority=1)
    application.connect("autodoc-process-docstring", api.show_colons, priority=999)
    mathml.add(application)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
