"""Interpolations of the YAML files beyond Hydra's own."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from omegaconf import OmegaConf

LONGEST = 150
"""Characters of a run's folder in a sweep; file systems take 255 bytes."""


def register_resolvers() -> None:
    """Make them known to OmegaConf."""
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)


def run_folder(sweep: str, settings: str) -> str:
    """Return the name of a run's folder in a sweep: its settings, in letters that every shell and file system takes.

    A name that lost letters ends in a hash of the settings. A folder that is called as the settings, as those of
    earlier versions, is used again.

    Args:
        sweep: folder of the sweep.
        settings: of the run, such as `network.hidden=[10],seed=1` (Hydra's `override_dirname`).
    """
    if _exists(Path(sweep) / settings):
        return settings
    plain = settings.replace("=", "-").replace(",", "__")
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", plain).strip("-.")
    if name == plain and len(name) <= LONGEST:
        return name
    return f"{name[:LONGEST].rstrip('-.')}-{sha256(settings.encode()).hexdigest()[:8]}"


def _exists(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError:  # the name is too long for one
        return False
