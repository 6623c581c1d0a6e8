"""Output of commands on terminals and into files of any encoding."""

from __future__ import annotations

import io
import sys


def write_any_letter() -> None:
    """Let standard output and error show letters that their encoding lacks as escapes, such as `\\xfc`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
