"""Functions that torch.compile leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch

F = TypeVar("F", bound=Callable[..., Any])


def eager(function: F) -> F:
    """Make `torch.compile` leave a function as it is; its loops are compiled already.

    `torch.compiler.disable` does the same, but it imports the compiler, which takes seconds, and costs microseconds in
    every call. The wrapper therefore uses it only while torch compiles.
    """

    @wraps(function)
    def call(*arguments: Any, **settings: Any) -> Any:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*arguments, **settings)  # type: ignore[no-untyped-call]
        return function(*arguments, **settings)

    return cast(F, call)
