"""Rules for the constants of networks: what a value must be, said once, and checked whenever it is set."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from typing import Any, ClassVar

from torch import Tensor, nn

Rule = Callable[[str, Any], Any]
"""Takes a label, such as `LIF: tau_mem`, and a value; returns the value to keep, or raises ValueError."""
SHOWN = 60
"""Characters of a value that an error shows."""


def number(label: str, value: Any) -> float:
    """Return a finite number as float."""
    if isinstance(value, Tensor):
        raise ValueError(f"{label} is a {type(value).__name__}; it is a constant, which is not learnt; give a float")
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{label}={_shown(value)} must be a number")
    if not math.isfinite(value):
        raise ValueError(f"{label}={value} must be a finite number")
    return float(value)


def positive(label: str, value: Any) -> float:
    """Return a number above 0 as float."""
    found = number(label, value)
    if not found > 0:
        raise ValueError(f"{label}={value} must be positive")
    return found


def not_negative(label: str, value: Any) -> float:
    """Return a number of at least 0 as float."""
    found = number(label, value)
    if found < 0:
        raise ValueError(f"{label}={value} must not be negative")
    return found


def count(label: str, value: Any) -> int:
    """Return a whole number above 0 as int."""
    found = whole(label, value)
    if not found > 0:
        raise ValueError(f"{label}={value} must be positive")
    return found


def seed(label: str, value: Any) -> int:
    """Return a seed that torch takes."""
    found = whole(label, value)
    if not -(2**63) <= found < 2**64:
        raise ValueError(f"{label}={value} must be within -2^63 .. 2^64 - 1")
    return found


def whole(label: str, value: Any) -> int:
    """Return a whole number as int."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        hint = f"; give {int(value)}" if isinstance(value, float) and value.is_integer() else ""
        raise ValueError(f"{label}={_shown(value)} must be a whole number{hint}")
    return int(value)


def flag(label: str, value: Any) -> bool:
    """Return True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{label}={_shown(value)} must be True or False")
    return value


def optional(rule: Rule) -> Rule:
    """Return a rule that takes None, too."""
    return lambda label, value: None if value is None else rule(label, value)


def one_of(choices: Collection[str]) -> Rule:
    """Return the rule of a word out of several."""

    def rule(label: str, value: Any) -> Any:
        if value not in choices:
            raise ValueError(f"{label}={_shown(value)} is not known; choose one of {', '.join(choices)}")
        return value

    return rule


def not_finite(*names: str) -> ValueError:
    """Return the error for projections whose weights are not finite."""
    return ValueError(
        f"weights of {', '.join(names)} are not finite: their training diverged (try a smaller "
        "trainer.learning_rate), their file is damaged, or a module put into net.stack has no values yet "
        "(net.draw(seed))"
    )


class Constants(nn.Module):
    """A module whose constants obey rules, in its constructor and whenever one is set later.

    Attributes:
        RULES: the rule of each constant.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a constant's value is checked.

        Raises:
            ValueError: the value breaks the constant's rule.
        """
        rule = self.RULES.get(name)
        super().__setattr__(name, value if rule is None else rule(f"{type(self).__name__}: {name}", value))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
