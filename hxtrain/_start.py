"""What comes before all other modules: the layers of a clone are found, and compiled code has a place."""

from __future__ import annotations

import sys
from pathlib import Path

from .compilation import secure_cache, secure_plots

LAYERS = ("backends", "emulator", "experiments")
"""Layers that an installation puts into this package, and a clone beside it (decision 0001)."""


def complete_clone(package: Path, path: list[str]) -> None:
    """Find the other layers beside the package, where it is that of a clone.

    Args:
        package: folder of `hxtrain`.
        path: folders in which its sub-packages are looked for (`__path__`), extended here.

    Raises:
        ImportError: a layer is missing.
    """
    missing = [layer for layer in LAYERS if not (package / layer / "__init__.py").exists()]
    if not missing:
        return
    lost = [layer for layer in missing if not (package.parent / layer / "__init__.py").exists()]
    if lost:
        raise ImportError(
            f"{package} is incomplete: hxtrain.{', hxtrain.'.join(lost)} are neither in it nor beside it; "
            "run `pip install .` in a whole clone, and import hxtrain from another folder"
        )
    path.append(str(package.parent))


complete_clone(Path(__file__).parent, sys.modules[__package__].__path__)  # type: ignore[arg-type]
secure_cache()
secure_plots()
