"""Folders of a user's samples: one per part, and in it one per class."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def class_names(folders: Iterable[Path]) -> tuple[str, ...]:
    """Return the names of the classes, one folder each in any of the parts: numbers by value, before words."""
    names = {entry.name for folder in folders for entry in folder.iterdir() if entry.is_dir()}
    return tuple(sorted(names, key=lambda name: (int(name), "") if name.isdecimal() else (1 << 62, name)))


def part_folder(folder: Path, *names: str) -> Path | None:
    """Return the folder of a part, under one of its names in any case, such as `Train`; None if there is none."""
    if not folder.is_dir():
        return None
    entries = sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name.lower() in names)
    return entries[0] if entries else None
