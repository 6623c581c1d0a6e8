"""Texts on the fields of a dataclass, from its docstring."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from inspect import cleandoc


@cache
def attribute_texts(kind: type) -> Mapping[str, str]:
    """Return the description of each field, from the docstrings of a dataclass and its bases."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = re.split(r"^Attributes:\n", cleandoc(base.__dict__.get("__doc__") or ""), flags=re.MULTILINE)
        for entry in re.split(r"\n(?=    \w)", "\n" + section[1].split("\n\n")[0])[1:] if len(section) > 1 else []:
            names, text = entry.split(":", 1)
            texts |= dict.fromkeys(re.split(r",\s*", names.strip()), " ".join(text.split()))
    return texts
