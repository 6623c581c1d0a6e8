"""Rules for constants of networks and settings: what a value must be, said once, and checked where it is set."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields
from numbers import Integral, Real
from typing import Any, ClassVar

from torch import Tensor, nn

Rule = Callable[[str, Any], Any]
"""Takes a label, such as `LIF: tau_mem`, and a value; returns the value to keep, or raises ValueError."""
SHOWN = 60
"""Characters of a value that an error shows."""


def real(label: str, value: Any) -> float:
    """Return a number, finite or not, as float."""
    if isinstance(value, Tensor):
        raise ValueError(f"{label} is a {type(value).__name__}; it is a constant, which is not learnt; give a float")
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{label}={_shown(value)} must be a number")
    return float(value)


def number(label: str, value: Any) -> float:
    """Return a finite number as float."""
    found = real(label, value)
    if not math.isfinite(found):
        raise ValueError(f"{label}={value} must be a finite number")
    return found


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


def text(label: str, value: Any) -> str:
    """Return a text; of a path its text."""
    found = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(found, str):
        raise ValueError(f"{label}={_shown(value)} must be a text")
    return found


def mapping(label: str, value: Any) -> Mapping[str, Any]:
    """Return a mapping of names to values."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{label}={_shown(value)} must be a mapping of names to values, such as {{'name': 1}}")
    return value


def list_of(rule: Rule) -> Rule:
    """Return the rule of a list, each entry of which obeys another rule."""

    def entries(label: str, value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{label}={_shown(value)} must be a list, such as [{_shown(value)}]")
        return [rule(f"{label}[{place}]", entry) for place, entry in enumerate(value)]

    return entries


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


PLAIN = (int, float, str, bool)
"""Values of these types stay as they are."""
_SIMPLE: Mapping[str, Rule] = {"float": real, "int": whole, "bool": flag, "str": text}
_OF_TYPES: Mapping[str, Rule] = {
    **_SIMPLE,
    **{f"Optional[{name}]": optional(rule) for name, rule in _SIMPLE.items()},
    **{f"List[{name}]": list_of(rule) for name, rule in _SIMPLE.items()},
    **{f"Optional[List[{name}]]": optional(list_of(rule)) for name, rule in _SIMPLE.items()},
    **{f"Dict[str, {name}]": mapping for name in (*_SIMPLE, "Any")},
}
"""What a field of a dataclass must be, by its annotation."""


def check_types(settings: Any, prefix: str) -> None:
    """Check numbers, flags, texts and lists of a dataclass, and set them as plain Python values.

    Numpy's scalars become floats and whole numbers, paths become texts. OmegaConf does so for a command line; this is
    for the constructor. A field of another annotation is left alone, and so is a default.

    Args:
        settings: Instance of a dataclass, which is not frozen.
        prefix: What stands before the name of a field in errors, such as `encoder.`.

    Raises:
        ValueError: a value is of another type than its field.
    """
    for item in fields(settings):
        annotation, value = item.type, getattr(settings, item.name)
        rule = _OF_TYPES.get(annotation if isinstance(annotation, str) else getattr(annotation, "__name__", ""))
        if rule is not None and (item.default is MISSING or value is not item.default):
            checked = rule(f"{prefix}{item.name}", value)
            if type(value) not in PLAIN:
                setattr(settings, item.name, checked)


def require_kind(value: Any, kind: type, name: str, remedy: str) -> None:
    """Refuse an argument of another type.

    Args:
        value: The argument.
        kind: What it must be an instance of.
        name: The argument's name.
        remedy: What to write instead.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, kind):
        given = f"the class {value.__name__}" if isinstance(value, type) else _kind(value)
        raise TypeError(f"{name}: expected {kind.__name__}, got {given}; {remedy}")


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


def _kind(value: Any) -> str:
    """Return a value's class; of a short text or a number the value, too."""
    name = type(value).__name__
    return f"{name} {_shown(value)}" if isinstance(value, str | Real) else name


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
