"""How numba compiles loops for the CPU (decision 0008)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.floating[Any]]
Int = npt.NDArray[np.int64]
Number = np.floating[Any]
"""A number in the precision of the arrays beside it."""

Function = TypeVar("Function", bound=Callable[..., Any])

OPTIONS: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract", "arcp", "nsz"},
}
uptr = np.uintp


def compiled(function: Function) -> Function:
    """Compile a loop; products and sums may be fused, and divisions turned into products."""
    return cast("Function", numba.njit(**OPTIONS)(function))


def exact(function: Function) -> Function:
    """Compile a loop whose arithmetic is kept as written."""
    return cast("Function", numba.njit(nogil=True, cache=True, error_model="numpy")(function))
