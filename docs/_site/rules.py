"""Facts of the learning rules for the rule index: needs, settings, commands, plots and measured results."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from hxtrain.rules import RULES

from .options import rows, table

RESULTS = {"results/mismatch.md": "all tasks", "results/rules_mnist16.md": "16x16 MNIST"}
"""Pages with a row for each run of a rule, and what their runs are about."""


def pages(docs: Path) -> Mapping[str, str]:
    """Return the part of each rule, by file below `_generated`.

    Args:
        docs: Folder of the documentation, with the pages that `hxtrain report` wrote.
    """
    gallery = _sections((docs / "rules.md").read_text(encoding="utf-8"))
    measured = {page: (docs / page).read_text(encoding="utf-8").splitlines() for page in RESULTS}
    parts = {name: _part(name, gallery[name], measured) for name in RULES.reachable()}
    return {f"parts/rule-{name}.md": "\n".join(lines) + "\n" for name, lines in parts.items()}


def _sections(text: str) -> Mapping[str, str]:
    """Return the sections of a page by their headings."""
    headed = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    return dict(zip(headed[1::2], headed[2::2], strict=True))


def _part(name: str, section: str, measured: Mapping[str, list[str]]) -> Iterator[str]:
    kind = RULES.load(name)
    needs = ", ".join(sorted(need.value for need in kind.needs))
    yield f"- **Needs**: {needs}."
    yield f"- **Gives**: {'the change of each weight, from what its synapse sees' if kind.is_local else 'a gradient'}."
    optimizer = kind.optimizer or ("sgd" if kind.is_local else "adam")
    yield f"- **Optimiser**: `{optimizer}` by default."
    yield f"- **Solves**: {kind.solves}."
    yield ""
    commands = re.findall(r"^hxtrain .*$", section, re.MULTILINE)
    if name == "rstdp":
        commands.append("hxtrain play                          # Pong, docs/play.md")
    yield from ("```bash", *commands, "```", "")
    yield from _settings(kind)
    yield from _measured(name, measured)
    images = re.findall(r"^!\[.*?\]\((.*?)\)$", section, re.MULTILINE)
    yield from (f"```{{image}} /{image}\n:width: 560px\n:alt: {name}\n```\n" for image in images)


def _settings(kind: type) -> Iterator[str]:
    entries = list(rows(kind, "rule."))
    if entries:
        yield from (":::{dropdown} Constants", "", *table(entries), ":::", "")
    else:
        yield from ("It has no constants.", "")


def _measured(name: str, pages: Mapping[str, list[str]]) -> Iterator[str]:
    for page, subject in RESULTS.items():
        lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in pages[page] if line.startswith("|")]
        header = lines[0]
        last = header.index("change")
        cells = [line for line in lines if line[0] == name]
        if cells:
            yield from (f"Measured on emulated chips, {subject} ([runs](/{page})):", "")
            yield from (f"| {' | '.join(line[1:last])} |" for line in (header, ["---"] * len(header), *cells))
            yield ""
