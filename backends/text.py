"""Foreign text made safe for screens and logs: errors, labels and names from the network or from files."""

from __future__ import annotations


def printable(text: str, longest: int | None = None) -> str:
    """Return a text with all control characters escaped.

    Newlines and marks that reverse the direction of writing count as control characters, as in `str.isprintable`.

    Args:
        text: Any text.
        longest: Number of characters after which the text is cut; None: it is not cut.
    """
    cut = text if longest is None or len(text) <= longest else text[: longest - 3] + "..."
    if cut.isprintable():
        return cut
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in cut)
