"""Rules for constants of networks and settings: each is stated once, and checked wherever a value is set."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields
from itertools import count as counter
from numbers import Integral, Real
from typing import Any, ClassVar

from torch import Tensor, nn

Rule = Callable[[str, Any], Any]
"""Function of a label, such as `LIF: tau_mem`, and a value: returns the checked value, or raises ValueError."""
MAX_CHARACTERS = 60
"""Number of characters of a value that an error shows."""


def real(label: str, value: Any) -> float:
    """Return a number, finite or not, as float."""
    if isinstance(value, Tensor):
        raise ValueError(f"{label} is a {type(value).__name__}; it is a constant, which is not learnt; give a float")
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{label}={_short_text(value)} must be a number")
    return float(value)


def number(label: str, value: Any) -> float:
    """Return a finite number as float."""
    result = real(label, value)
    if not math.isfinite(result):
        raise ValueError(f"{label}={value} must be a finite number")
    return result


def positive(label: str, value: Any) -> float:
    """Return a number above 0 as float."""
    result = number(label, value)
    if not result > 0:
        raise ValueError(f"{label}={value} must be positive")
    return result


def not_negative(label: str, value: Any) -> float:
    """Return a number of at least 0 as float."""
    result = number(label, value)
    if result < 0:
        raise ValueError(f"{label}={value} must not be negative")
    return result


def count(label: str, value: Any) -> int:
    """Return a whole number above 0 as int."""
    result = whole(label, value)
    if not result > 0:
        raise ValueError(f"{label}={value} must be positive")
    return result


def seed(label: str, value: Any) -> int:
    """Return a seed that torch accepts."""
    result = whole(label, value)
    if not -(2**63) <= result < 2**64:
        raise ValueError(f"{label}={value} must be within -2^63 .. 2^64 - 1")
    return result


def whole(label: str, value: Any) -> int:
    """Return a whole number as int."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        hint = f"; give {int(value)}" if isinstance(value, float) and value.is_integer() else ""
        raise ValueError(f"{label}={_short_text(value)} must be a whole number{hint}")
    return int(value)


def flag(label: str, value: Any) -> bool:
    """Return True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{label}={_short_text(value)} must be True or False")
    return value


def text(label: str, value: Any) -> str:
    """Return a text; a path becomes its text."""
    result = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(result, str):
        raise ValueError(f"{label}={_short_text(value)} must be a text")
    return result


def mapping(label: str, value: Any) -> Mapping[str, Any]:
    """Return a mapping of names to values."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{label}={_short_text(value)} must be a mapping of names to values, such as {{'name': 1}}")
    return value


def list_of(rule: Rule) -> Rule:
    """Return the rule of a list whose entries all obey `rule`."""

    def entries(label: str, value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{label}={_short_text(value)} must be a list, such as [{_short_text(value)}]")
        return [rule(f"{label}[{place}]", entry) for place, entry in enumerate(value)]

    return entries


def optional(rule: Rule) -> Rule:
    """Return a rule that also accepts None."""
    return lambda label, value: None if value is None else rule(label, value)


def one_of(choices: Collection[str]) -> Rule:
    """Return the rule of a word that must be among `choices`."""

    def rule(label: str, value: Any) -> Any:
        if value not in choices:
            raise ValueError(f"{label}={_short_text(value)} is not known; choose one of {', '.join(choices)}")
        return value

    return rule


def not_finite(*names: str) -> ValueError:
    """Return the error for projections whose weights are not finite."""
    return ValueError(
        f"weights of {', '.join(names)} are not finite: their training diverged (try a smaller "
        "`learning_rate`), their file is damaged, or a module put into net.stack has no values yet "
        "(net.draw(seed))"
    )


PLAIN = (int, float, str, bool)
"""Types whose values stay as they are."""
_SIMPLE: Mapping[str, Rule] = {"float": real, "int": whole, "bool": flag, "str": text}
_OF_TYPES: Mapping[str, Rule] = {
    **_SIMPLE,
    **{f"Optional[{name}]": optional(rule) for name, rule in _SIMPLE.items()},
    **{f"List[{name}]": list_of(rule) for name, rule in _SIMPLE.items()},
    **{f"Optional[List[{name}]]": optional(list_of(rule)) for name, rule in _SIMPLE.items()},
    **{f"Dict[str, {name}]": mapping for name in (*_SIMPLE, "Any")},
}
"""Rule of a field of a dataclass, by its annotation."""


def check_types(settings: Any, prefix: str) -> None:
    """Check numbers, flags, texts and lists of a dataclass, and set them as plain Python values.

    Numpy's scalars become floats and whole numbers, paths become texts. OmegaConf does this for a command line; this
    function does it for the constructor. Defaults, and fields of other annotations, are not checked.

    Args:
        settings: Instance of a dataclass that is not frozen.
        prefix: Text before the name of a field in errors, such as `encoder.`.

    Raises:
        ValueError: a value does not have the type of its field.
    """
    for item in fields(settings):
        annotation = item.type
        value = getattr(settings, item.name)
        rule = _OF_TYPES.get(annotation if isinstance(annotation, str) else getattr(annotation, "__name__", ""))
        if rule is not None and (item.default is MISSING or value is not item.default):
            checked = rule(f"{prefix}{item.name}", value)
            if type(value) not in PLAIN:
                setattr(settings, item.name, checked)


def require_kind(value: Any, kind: type, name: str, remedy: str) -> None:
    """Refuse an argument of another type.

    Args:
        value: Argument to check.
        kind: Class of which the argument must be an instance.
        name: Name of the argument, for the error.
        remedy: Advice at the end of the error.

    Raises:
        TypeError: the argument is not an instance of `kind`.
    """
    if not isinstance(value, kind):
        description = f"the class {value.__name__}" if isinstance(value, type) else _kind(value)
        raise TypeError(f"{name}: expected {kind.__name__}, got {description}; {remedy}")


_marks = counter(1)


class Constants(nn.Module):
    """Module whose constants obey rules, in the constructor and whenever one is set later.

    Attributes:
        RULES: Rule of each constant, by name.
        changes: Mark of the last assignment to an attribute of any such module, private ones aside. What is derived
            from constants is up to date as long as the mark is the same.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {}
    changes: ClassVar[int] = 0

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a constant's value is checked.

        Raises:
            ValueError: the value breaks the constant's rule.
        """
        rule = self.RULES.get(name)
        super().__setattr__(name, value if rule is None else rule(f"{type(self).__name__}: {name}", value))
        if not name.startswith("_"):
            Constants.changes = next(_marks)


def _kind(value: Any) -> str:
    """Return a value's class, and for a text or a number also the value."""
    name = type(value).__name__
    return f"{name} {_short_text(value)}" if isinstance(value, str | Real) else name


def _short_text(value: Any) -> str:
    """Return the text of a value, cut after `MAX_CHARACTERS` characters."""
    text = repr(value)
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + "..."
