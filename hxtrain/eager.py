"""Functions that torch.compile leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch

F = TypeVar("F", bound=Callable[..., Any])


def eager(function: F) -> F:
    """Let a function run as it is written within `torch.compile`, too: its loops are compiled already.

    `torch.compiler.disable` does this, but imports the compiler, which takes seconds, and costs microseconds in every
    call; here it is used only while something is compiled.
    """

    @wraps(function)
    def call(*arguments: Any, **settings: Any) -> Any:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*arguments, **settings)  # type: ignore[no-untyped-call]
        return function(*arguments, **settings)

    return cast(F, call)
