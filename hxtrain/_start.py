"""Set-up that precedes all other modules: layers of a clone are located, compiled code gets a folder."""

from __future__ import annotations

import sys
from pathlib import Path

from .compilation import secure_cache, secure_plots

LAYERS = ("backends", "emulator", "experiments")
"""Layers that an installation puts into this package, and that a clone has beside it (decision 0001)."""


def complete_clone(package: Path, path: list[str]) -> None:
    """Add the folder beside the package to its search path if the package is in a clone.

    Args:
        package: folder of `hxtrain`.
        path: search path of the sub-packages (`__path__`); the function extends it.

    Raises:
        ImportError: a layer is missing.
    """
    missing = [layer for layer in LAYERS if not (package / layer / "__init__.py").exists()]
    if not missing:
        return
    absent = [layer for layer in missing if not (package.parent / layer / "__init__.py").exists()]
    if absent:
        raise ImportError(
            f"{package} is incomplete: hxtrain.{', hxtrain.'.join(absent)} are neither in it nor beside it; "
            "run `pip install .` in a whole clone, and import hxtrain from another folder"
        )
    path.append(str(package.parent))


complete_clone(Path(__file__).parent, sys.modules[__package__].__path__)  # type: ignore[arg-type]
secure_cache()
secure_plots()
