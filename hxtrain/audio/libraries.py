"""Libraries of the extra `audio`, imported where they are needed."""

from __future__ import annotations

import importlib
from typing import Any


class AudioError(ValueError):
    """Sound is missing, damaged, or not of the expected kind. The text names the remedy."""


def library(name: str) -> Any:
    """Return a module of the extra `audio`.

    Args:
        name: Name of the module, such as `scipy.special`.

    Raises:
        ImportError: The library is not installed; the text names the extra.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise ImportError(
            f"sound needs the library {name.partition('.')[0]} ({error}); install it by pip install 'hxtrain[audio]'"
        ) from error
