"""Typed messages from and to plain values: strict, without pickle or evaluation.

A message is a frozen dataclass (or NamedTuple) whose fields are text, numbers, truth values, `None`, literals,
tuples, mappings from text, or further messages. `pack` gives msgpack bytes, `unpack` the message again; every
field must be there, no other may, and each must have the declared type. Numbers are finite.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgpack

LARGEST_PART = 2**20
"""Longest packed message (bytes); tensors travel in frames of their own."""
LONGEST_TEXT = 2**16
"""Longest text in a message (bytes)."""
MOST_ITEMS = 2**12
"""Most items of a tuple or mapping."""
INTEGERS = (-(2**63), 2**63 - 1)

Message = TypeVar("Message")


class WireError(ValueError):
    """A message is not what was agreed; the text names the field, what was found and what is expected."""


def pack(message: object) -> bytes:
    """Return a message as bytes.

    Raises:
        WireError: it is longer than `LARGEST_PART`.
    """
    packed: bytes = msgpack.packb(plain(message))
    if len(packed) > LARGEST_PART:
        raise WireError(f"a {type(message).__name__} of {len(packed)} bytes is longer than {LARGEST_PART}")
    return packed


def unpack(kind: type[Message], packed: bytes | memoryview) -> Message:
    """Return the message of a kind that bytes hold.

    Raises:
        WireError: they do not hold one.
    """
    if len(packed) > LARGEST_PART:
        raise WireError(f"{kind.__name__}: {len(packed)} bytes, at most {LARGEST_PART} are taken")
    try:
        value = msgpack.unpackb(
            packed,
            strict_map_key=True,
            max_str_len=LONGEST_TEXT,
            max_bin_len=0,
            max_ext_len=0,
            max_array_len=MOST_ITEMS,
            max_map_len=MOST_ITEMS,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise WireError(f"{kind.__name__}: not msgpack as agreed ({type(error).__name__}: {error})"[:300]) from None
    message: Message = check(kind, value, kind.__name__)
    return message


def plain(value: object) -> Any:
    """Return a message as dicts, lists and scalars."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(item) for name, item in value._asdict().items()}
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def check(kind: Any, value: object, place: str) -> Any:
    """Return a plain value as `kind`.

    Raises:
        WireError: it is none; `place` names it.
    """
    if kind in _SCALARS:
        return _scalar(kind, value, place)
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _optional(parts, value, place)
    if origin is Literal:
        if isinstance(value, str) and value in parts:
            return value
        raise WireError(f"{place}: {_shown(value)} is none of {', '.join(map(repr, parts))}")
    if origin is tuple:
        return _items(parts, value, place)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise WireError(f"{place}: expected a mapping, got {_shown(value)}")
        return {_scalar(str, name, place): check(parts[1], item, f"{place}.{name}") for name, item in value.items()}
    return _message(kind, value, place)


_SCALARS = {str: "text", bool: "a truth value", int: "an integer of 64 bits", float: "a finite number"}


def _scalar(kind: type, value: object, place: str) -> Any:
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            if math.isfinite(number := float(value)):
                return number
        except OverflowError:
            pass
    elif type(value) is kind and (not isinstance(value, int) or INTEGERS[0] <= value <= INTEGERS[1]):
        return value
    raise WireError(f"{place}: expected {_SCALARS[kind]}, got {_shown(value)}")


def _optional(parts: tuple[Any, ...], value: object, place: str) -> Any:
    if value is None and type(None) in parts:
        return None
    (kind,) = (part for part in parts if part is not type(None))
    return check(kind, value, place)


def _items(parts: tuple[Any, ...], value: object, place: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise WireError(f"{place}: expected a list, got {_shown(value)}")
    if parts[-1] is Ellipsis:
        return tuple(check(parts[0], item, f"{place}[{i}]") for i, item in enumerate(value))
    if len(value) != len(parts):
        raise WireError(f"{place}: expected {len(parts)} items, got {len(value)}")
    pairs = zip(parts, value, strict=True)
    return tuple(check(part, item, f"{place}[{i}]") for i, (part, item) in enumerate(pairs))


def _message(kind: Any, value: object, place: str) -> Any:
    if not isinstance(value, dict):
        raise WireError(f"{place}: expected a mapping with the fields of {kind.__name__}, got {_shown(value)}")
    hints = _hints(kind)
    if value.keys() != hints.keys():
        missing, unknown = sorted(hints.keys() - value.keys()), sorted(value.keys() - hints.keys())
        raise WireError(f"{place}: missing fields {missing}, unknown fields {_shown(unknown)}")
    checked = {name: check(hint, value[name], f"{place}.{name}") for name, hint in hints.items()}
    try:
        return kind(**checked)
    except ValueError as error:
        raise WireError(f"{place}: {error}") from None


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
