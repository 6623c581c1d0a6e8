"""Strict conversion of typed messages from and to plain values, without pickle or evaluation.

A message is a frozen dataclass (or NamedTuple) whose fields are text, numbers, truth values, `None`, literals,
tuples, mappings from text, or further messages. `pack` gives msgpack bytes, `unpack` the message again; every
field must be present with the declared type, and no others may. A field that was added later (`ADDITION` in its
metadata) may be missing, and is left out for a peer that does not know the addition. Numbers are finite. Text comes out
printable: control characters in it are escaped (`Lines` keeps its newlines, `Exact` is refused).
"""

from __future__ import annotations

import heapq
import math
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, fields, is_dataclass
from functools import cache, partial
from typing import Any, Literal, NewType, TypeVar, Union, get_args, get_origin, get_type_hints

import msgpack

from hxtrain.backends.circuit import ADDITION
from hxtrain.backends.text import printable

LARGEST_PART = 2**20
"""Longest packed message (bytes); tensors travel in frames of their own."""
LONGEST_TEXT = 2**16
"""Longest text in a message (bytes)."""
MOST_ITEMS = 2**12
"""Largest number of items of a tuple or mapping."""
MOST_CONTAINERS = 2**14
"""Largest number of tuples and mappings in a message."""
LONGEST_SHOWN = 80
"""Longest value in an error (characters)."""
INTEGERS = (-(2**63), 2**63 - 1)
Lines = NewType("Lines", str)
"""Text of several lines."""
Exact = NewType("Exact", str)
"""Text that must be printable as it is."""

Message = TypeVar("Message")


class WireError(ValueError):
    """A message violates the protocol; the text names the field, its value and the expected one."""


def pack(message: object, additions: Collection[str] = ()) -> bytes:
    """Return a message as bytes.

    Args:
        message: Message to pack.
        additions: Names of the additions that the peer knows; fields of others are left out.

    Raises:
        WireError: The message is longer than `LARGEST_PART`.
    """
    packed: bytes = msgpack.packb(message, default=partial(_plain, additions), strict_types=True)
    if len(packed) > LARGEST_PART:
        raise WireError(f"a {type(message).__name__} of {len(packed)} bytes is longer than {LARGEST_PART}")
    return packed


def _plain(additions: Collection[str], value: Any) -> Any:
    """Return the form in which msgpack packs a value of a type that it does not know."""
    if isinstance(value, tuple):
        fields_of = getattr(value, "_asdict", None)
        return list(value) if fields_of is None else fields_of()
    if isinstance(value, Mapping):
        return dict(value)
    kind: Any = type(value)
    parts = {name: getattr(value, name) for name in _field_names(kind) or vars(value)}
    for name, addition in _added(kind).items():
        if addition not in additions:
            del parts[name]
    return parts


@cache
def _field_names(kind: Any) -> tuple[str, ...]:
    """Return the names of a dataclass's fields, of which an instance may hold more; none for another class."""
    parts: tuple[Field[Any], ...] = fields(kind) if is_dataclass(kind) else ()
    return tuple(part.name for part in parts)


@cache
def _added(kind: type) -> Mapping[str, str]:
    """Return the fields of a message that were added later, with the names of their additions."""
    parts: tuple[Field[Any], ...] = fields(kind) if is_dataclass(kind) else ()
    return {part.name: part.metadata[ADDITION] for part in parts if ADDITION in part.metadata}


def unpack(kind: type[Message], packed: bytes | memoryview) -> Message:
    """Return the message of a kind that bytes hold.

    Raises:
        WireError: The bytes hold no such message.
    """
    if len(packed) > LARGEST_PART:
        raise WireError(f"{kind.__name__}: {len(packed)} bytes, at most {LARGEST_PART} are taken")
    count = _Count()
    try:
        value = msgpack.unpackb(
            packed,
            list_hook=count,
            object_hook=count,
            strict_map_key=True,
            max_str_len=LONGEST_TEXT,
            max_bin_len=0,
            max_ext_len=0,
            max_array_len=MOST_ITEMS,
            max_map_len=MOST_ITEMS,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise WireError(f"{kind.__name__}: not msgpack as agreed ({type(error).__name__}: {error})"[:300]) from None
    return check(kind, value)


class _Count:
    """Counts containers as they are built, and raises at too many."""

    def __init__(self) -> None:
        self._left = MOST_CONTAINERS

    def __call__(self, container: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"more than {MOST_CONTAINERS} lists and mappings")
        return container


def check(kind: type[Message], value: object) -> Message:
    """Return a message from its plain value.

    Raises:
        WireError: The value is no such message; the text names the place.
    """
    try:
        message: Message = _checker(kind)(value)  # type: ignore[arg-type]
    except WireError as error:
        raise WireError(f"{kind.__name__}{error}") from None
    return message


Checker = Callable[[object], Any]
"""Returns a value in its declared type; a `WireError` begins with the place within the value."""


@cache
def _checker(kind: Any) -> Checker:
    """Return the checker for values of a type, made once for each type."""
    if kind in _SCALARS:
        return _SCALARS[kind]
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (member,) = (part for part in parts if part is not type(None))
        return _optional(_checker(member))
    if origin is Literal:
        return _choice(parts)
    if origin is tuple:
        inner = tuple(_checker(part) for part in parts if part is not Ellipsis)
        return _items(inner[0]) if parts[-1] is Ellipsis else _row(inner)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(_checker(parts[1]))
    return _message(kind)


def _exact(value: object) -> str:
    if type(value) is not str or not value.isprintable():
        raise WireError(f": expected printable text, got {_describe(value)}")
    return value


def _any_text(value: object) -> str:
    if type(value) is not str:
        raise WireError(f": expected text, got {_describe(value)}")
    return value


def _text(value: object) -> str:
    return printable(_any_text(value))


def _lines(value: object) -> str:
    return "\n".join(map(printable, _any_text(value).split("\n")))


def _truth(value: object) -> bool:
    if type(value) is not bool:
        raise WireError(f": expected a truth value, got {_describe(value)}")
    return value


def _integer(value: object) -> int:
    if type(value) is not int or not INTEGERS[0] <= value <= INTEGERS[1]:
        raise WireError(f": expected an integer of 64 bits, got {_describe(value)}")
    return value


def _number(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise WireError(f": expected a finite number, got {_describe(value)}")
    return float(value)  # type: ignore[arg-type]


_SCALARS: dict[Any, Checker] = {str: _text, Lines: _lines, Exact: _exact, bool: _truth, int: _integer, float: _number}


def _optional(member: Checker) -> Checker:
    return lambda value: None if value is None else member(value)


def _choice(choices: tuple[str, ...]) -> Checker:
    def checker(value: object) -> object:
        if type(value) is not str or value not in choices:
            raise WireError(f": {_describe(value)} is none of {', '.join(map(repr, choices))}")
        return value

    return checker


def _require_list(value: object) -> list[Any]:
    if type(value) is not list:
        raise WireError(f": expected a list, got {_describe(value)}")
    return value


def _items(item: Checker) -> Checker:
    return lambda value: tuple(_inside(f"[{i}]", item, part) for i, part in enumerate(_require_list(value)))


def _row(items: tuple[Checker, ...]) -> Checker:
    def checker(value: object) -> object:
        values = _require_list(value)
        if len(values) != len(items):
            raise WireError(f": expected {len(items)} items, got {len(values)}")
        return tuple(_inside(f"[{i}]", item, part) for i, (item, part) in enumerate(zip(items, values, strict=True)))

    return checker


def _mapping(item: Checker) -> Checker:
    def checker(value: object) -> object:
        if type(value) is not dict or not all(type(name) is str for name in value):
            raise WireError(f": expected a mapping from text, got {_describe(value)}")
        return {printable(name): _inside(f".{printable(name, LONGEST_SHOWN)}", item, value[name]) for name in value}

    return checker


def _message(kind: Any) -> Checker:
    inner = {name: (f".{name}", _checker(hint)) for name, hint in get_type_hints(kind).items()}
    required = inner.keys() - _added(kind)

    def checker(value: object) -> object:
        if type(value) is not dict:
            raise WireError(f": expected a mapping with the fields of {kind.__name__}, got {_describe(value)}")
        if not required <= value.keys() <= inner.keys():
            missing = _names(required - value.keys())
            unknown = _names(value.keys() - inner.keys())
            raise WireError(f": missing fields: {missing}; unknown fields: {unknown}")
        values = {name: _inside(place, part, value[name]) for name, (place, part) in inner.items() if name in value}
        try:
            return kind(**values)
        except ValueError as error:
            raise WireError(f": {error}") from None

    return checker


def _inside(place: str, checker: Checker, value: object) -> Any:
    try:
        return checker(value)
    except WireError as error:
        raise WireError(f"{place}{error}") from None


def _names(fields: Collection[object]) -> str:
    """Return the names of a few fields."""
    examples = heapq.nsmallest(4, map(_describe, fields))
    return (
        ", ".join(examples) + (f" and {len(fields) - len(examples)} more" if len(fields) > len(examples) else "")
        or "none"
    )


def _describe(value: object) -> str:
    """Describe a value in an error; containers by their length only, since they may be large."""
    if isinstance(value, list | dict):
        return f"a {'list' if type(value) is list else 'mapping'} of {len(value)}"
    return printable(repr(value[:LONGEST_SHOWN] if isinstance(value, str) else value), LONGEST_SHOWN)
