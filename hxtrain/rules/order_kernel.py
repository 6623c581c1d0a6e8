"""The order of events by sample and time: a radix sort, compiled for the CPU with numba (decision 0008).

The bits of floats that are not negative, read as integers, have the order of the floats.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hxtrain.neurons.jit import Float, Int, exact

DIGIT = 11
"""Bits that a pass sorts by."""
PASSES = 6
"""Passes over the digits of a float64."""


@exact
def _is_ordered(sample, time):
    for e in range(1, time.shape[0]):
        if sample[e] < sample[e - 1] or (sample[e] == sample[e - 1] and time[e] < time[e - 1]):
            return False
    return True


@exact
def _sort_by_digit(bits, shift, first, order, sorted_order):
    """Sort events by a digit, and keep the order of equal ones; returns whether the digits differ at all."""
    mask = np.uint64((1 << DIGIT) - 1)
    first[:] = 0
    for e in range(bits.shape[0]):
        first[np.int64((bits[e] >> shift) & mask) + 1] += 1
    if first[np.int64((bits[0] >> shift) & mask) + 1] == bits.shape[0]:
        return False
    for digit in range(1 << DIGIT):
        first[digit + 1] += first[digit]
    for k in range(order.shape[0]):
        place = np.int64((bits[order[k]] >> shift) & mask)
        sorted_order[first[place]] = order[k]
        first[place] += 1
    return True


@exact
def time_order(sample: Int, time: Float, bits: npt.NDArray[np.uint64], offsets: Int, order: Int) -> bool:
    """Sort events by sample and time; events of the same sample and time keep their order.

    Args:
        sample: Sample of each event `[E]`.
        time: Time of each event, not negative `[E]`.
        bits: The bits of the times `[E]`, without negative zeros.
        offsets: First event of each sample, and the number of events `[B + 1]`.
        order: Indices of the events in order `[E]` (out), unless they are in order already.

    Returns:
        Whether the events are in order already.
    """
    if _is_ordered(sample, time):
        return True
    by_time = np.arange(order.shape[0])
    spare = np.empty_like(order)
    first = np.empty((1 << DIGIT) + 1, np.int64)
    for number in range(PASSES):
        if _sort_by_digit(bits, np.uint64(number * DIGIT), first, by_time, spare):
            by_time, spare = spare, by_time
    place = offsets[:-1].copy()
    for k in range(by_time.shape[0]):
        e = by_time[k]
        order[place[sample[e]]] = e
        place[sample[e]] += 1
    return False
