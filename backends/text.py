"""Text of others, as it may be shown and logged: errors, labels and names that came over the network or in a file."""

from __future__ import annotations


def printable(text: str, longest: int | None = None) -> str:
    """Return text whose characters can all be shown; control characters become escapes.

    Newlines and marks that reverse the direction of writing count as control characters, as in `str.isprintable`.

    Args:
        text: any text.
        longest: number of characters after which it is cut; None for all.
    """
    cut = text if longest is None or len(text) <= longest else text[: longest - 3] + "..."
    if cut.isprintable():
        return cut
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in cut)
