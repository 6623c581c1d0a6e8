"""What the site adds to Sphinx: pages that are made of the installed package, and formulas without JavaScript.

`options` and `rules` need the package alone; tests read them without Sphinx.
"""

from __future__ import annotations

from typing import Any


def setup(application: Any) -> dict[str, Any]:
    """Add the extension to Sphinx."""
    from .extension import add

    return add(application)
