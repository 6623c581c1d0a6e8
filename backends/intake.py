"""Conversion of user data to checked tensors, from numpy arrays, lists and tensors of any layout and precision."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST_SPIKES = 2**15
"""Largest number of spikes of one unit in one bin of a grid; a larger value cannot be a count of spikes."""


def as_tensor(values: Any, name: str) -> Tensor:
    """Return values as a dense tensor of real numbers, outside any graph; without a copy where possible.

    Args:
        values: Tensor, numpy array, or nested lists.
        name: Name of the values in error messages.

    Raises:
        TypeError: `values` does not consist of real numbers.
        ValueError: Lists are ragged, or a tensor has no values or requires a gradient.
    """
    tensor = values if isinstance(values, Tensor) else _from_array(values, name)
    if tensor.is_complex() or tensor.is_quantized:
        raise TypeError(f"{name} has dtype {tensor.dtype}, expected real numbers")
    if tensor.device.type == "meta":
        raise ValueError(f"{name} is on the device meta, where tensors have no values; move them to one that has")
    if tensor.requires_grad:
        if torch.is_grad_enabled():
            raise ValueError(f"{name} requires a gradient, which is not passed on; use .detach()")
        tensor = tensor.detach()
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


def _from_array(values: Any, name: str) -> Tensor:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} is no array of numbers ({error}); pass a tensor, a numpy array or a list") from None
    if array.dtype.names:
        raise TypeError(
            f"{name} is a structured array with the fields {', '.join(array.dtype.names)}; pass its fields one by one, "
            "or use Spikes.from_recordings"
        )
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(
            f"{name} is {type(values).__name__} of dtype {array.dtype}; pass numbers as a tensor, a numpy array or a "
            "list (times as numbers with their time_unit)"
        )
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    odd = any(stride < 0 or stride % native.itemsize for stride in native.strides)  # which torch does not take
    return torch.from_numpy(native.copy() if odd or not native.flags.writeable else native)


def index(values: Any, name: str, limit: int) -> Tensor:
    """Return whole numbers in `0..limit - 1` as int64 `[E]`.

    Raises:
        ValueError: The shape is another one, or a number is fractional or out of range.
    """
    tensor = _flat(as_tensor(values, name), name)
    numbers = tensor.to(torch.int64)
    if tensor.is_floating_point():
        _require_whole(tensor, name)
    if numbers.numel():
        low, high = (int(edge) for edge in torch.aminmax(numbers))
        if low < 0 or high >= limit:
            allowed = f"0..{limit - 1}" if limit else f"none, since {name}s=0"
            raise ValueError(f"{name} spans {low}..{high}, allowed {allowed}")
    return numbers


def seconds(values: Any, name: str, unit: float) -> Tensor:
    """Return times in units of `unit` (s) as seconds, float32 `[E]`.

    Raises:
        ValueError: The shape is another one, or a time is negative or not finite.
    """
    time = in_seconds(_flat(as_tensor(values, name), name), name, unit)
    if time.numel():
        low, high = torch.stack(torch.aminmax(time)).tolist()
        if not (low >= 0 and high < math.inf):
            raise ValueError(
                f"{name} must be finite and >= 0 s, smallest is {low:g} and largest {high:g}; count times from the "
                "start of each trial"
            )
    return time


def in_seconds(time: Tensor, name: str, unit: float) -> Tensor:
    """Return times of any shape in units of `unit` (s) as seconds, float32."""
    if time.dtype == torch.bool:
        raise TypeError(f"{name} has dtype torch.bool, expected times; of a grid of spikes: Spikes.from_grid")
    positive(unit, "time_unit", "s")
    return time.float() if unit == 1 else (time.double() * unit).float()


def recorded(recording: Any, limits: Mapping[str, int], time: str, unit: float, place: str) -> tuple[Tensor, Tensor]:
    """Return input and time (s) of each event of a recording, int64 and float32 `[E]`, on the CPU.

    Args:
        recording: Structured numpy array, or mapping of names to arrays `[E]`.
        limits: Fields that name an input, and the number of values of each; the last field changes fastest.
        time: Name of the field with the times.
        unit: Unit of the times (s).
        place: Name of the recording in error messages.

    Raises:
        ValueError: A field is missing, or see `index` and `seconds`.
    """
    times = seconds(_field(recording, time, place), f"{place}[{time!r}]", unit).cpu()
    numbers = torch.zeros(len(times), dtype=torch.int64)
    for name, limit in limits.items():
        values = index(_field(recording, name, place), f"{place}[{name!r}]", limit).cpu()
        if len(values) != len(times):
            raise ValueError(
                f"{place} has {len(times)} times and {len(values)} values of {name!r}; both need one length"
            )
        numbers = numbers * limit + values
    return numbers, times


def counts(values: Any, name: str) -> Tensor:
    """Return numbers of spikes on a grid `[T, B, N]`.

    Raises:
        ValueError: The shape is another one, or a number is fractional, negative or too large.
    """
    grid = as_tensor(values, name)
    if grid.ndim != 3:
        raise ValueError(f"{name} has shape {list(grid.shape)}, expected [T, B, N]: steps, samples, units")
    if grid.is_floating_point():
        _require_whole(grid, name)
    grid = grid.to(torch.int64)
    if grid.numel():
        low, high = (int(edge) for edge in torch.aminmax(grid))
        if low < 0 or high > MOST_SPIKES:
            raise ValueError(f"{name} spans {low}..{high}, expected numbers of spikes in 0..{MOST_SPIKES}")
    return grid


def rows(chosen: Any, samples: int) -> Tensor | None:
    """Return the samples that indices or a mask choose, int64 `[S]`; None for any other argument."""
    indices = as_tensor(chosen, "indices of samples")
    if indices.ndim != 1:
        return None
    if indices.dtype == torch.bool:
        if len(indices) != samples:
            raise IndexError(f"a mask of {len(indices)} samples cannot choose of {samples}")
        return indices.nonzero()[:, 0]
    if indices.numel() and indices.is_floating_point():
        return None
    numbers = indices.long()
    if numbers.numel() and not (-samples <= int(numbers.min()) and int(numbers.max()) < samples):
        raise IndexError(f"samples {int(numbers.min())}..{int(numbers.max())} of {samples}, allowed 0..{samples - 1}")
    return numbers.where(numbers >= 0, numbers + samples)


def size(value: Any, name: str) -> int:
    """Return a count as an integer.

    Raises:
        ValueError: The value is not a whole number, or it is negative.
    """
    try:
        number = operator.index(value)
    except (TypeError, RuntimeError, ValueError):
        number = -1
    if number < 0 or isinstance(value, bool):
        raise ValueError(f"{name}={value!r} must be a whole number >= 0")
    return number


def positive(value: float, name: str, unit: str) -> None:
    """Check that a value is positive and finite.

    Raises:
        ValueError: The value is not.
    """
    try:
        good = 0 < value < math.inf
    except (TypeError, RuntimeError, ValueError):
        good = False
    if not good:
        raise ValueError(f"{name}={value!r} must be a positive, finite number ({unit})")


def _flat(tensor: Tensor, name: str) -> Tensor:
    if tensor.ndim != 1:
        raise ValueError(
            f"{name} has shape {list(tensor.shape)}, expected [E], one entry per event; of one time per input [B, N]: "
            "Spikes.from_times, of a grid [T, B, N]: Spikes.from_grid"
        )
    return tensor


def _require_whole(tensor: Tensor, name: str) -> None:
    fractional = ~(torch.isfinite(tensor) & (tensor == tensor.floor()))
    if bool(fractional.any()):
        value = float(tensor[fractional][0])
        raise ValueError(f"{name} has the value {value:g}, expected whole numbers; spikes are not divided or rounded")


def _field(recording: Any, name: str, place: str) -> Any:
    names = getattr(getattr(recording, "dtype", None), "names", None) or getattr(recording, "keys", tuple)()
    if name not in names:
        raise ValueError(f"{place} has no field {name!r}; it has {', '.join(map(str, names)) or 'none'}")
    return recording[name]
