"""Formulas as MathML, which browsers draw without JavaScript and without the network."""

from __future__ import annotations

from typing import Any, cast

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx


def visit_inline(translator: Any, node: nodes.Node) -> None:
    """Write a formula within a line."""
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def visit_block(translator: Any, node: nodes.Node) -> None:
    """Write a formula on lines of its own."""
    translator.body.append(translator.starttag(cast(nodes.Element, node), "div", CLASS="math"))
    translator.body.append(tex2mathml(node.astext(), as_block=True) + "</div>\n")
    raise nodes.SkipNode


def add(application: Sphinx) -> None:
    """Add the renderer `mathml` to Sphinx."""
    application.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
