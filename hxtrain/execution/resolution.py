r"""Reduced resolution: weights and membranes of fewer bits than the device has, hidden layers without traces.

With `b` bits, the magnitude of an integer weight takes 2^b levels over the device's whole range::

    k = min(round(|w| scale (2^b - 1) / weight_max), 2^b - 1)
    |integer| = round(k weight_max / (2^b - 1))

The integer has the sign of w. For weight_max = 63: 1 bit gives 0 and 63; 2 bits give 0, 21, 42, 63; 3 bits give
multiples of 9; 6 bits give all integers. With 4 and 5 bits the levels are 4.2 and 2.03 apart, each rounded to an
integer.

A trace code of B bits is reduced to b by clearing its B - b lowest bits, as in an ADC of fewer bits: the code is
rounded down to a multiple of 2^(B - b), by (2^(B - b) - 1) / 2 on average. A membrane is the difference between a
code and the trial's first code. Both are rounded down, so their difference is correct on average.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hxtrain.backends import Capabilities


@dataclass(frozen=True)
class Resolution:
    """Resolution in use, out of the resolution of the device.

    Attributes:
        weight_bits: number of bits of the magnitude of integer weights, without the sign; None: the device's.
        trace_bits: number of bits of membranes; None: the device's.
        spikes_only: whether hidden membranes are the model's response to measured spikes, instead of measured.
    """

    weight_bits: int | None = None
    trace_bits: int | None = None
    spikes_only: bool = False

    def round_weights(self, scaled: Tensor, capabilities: Capabilities) -> Tensor:
        """Return scaled weights as the device's integers, rounded and clipped; overwrites `scaled`."""
        limit = capabilities.weight_max
        kind = capabilities.weight_type
        if self.weight_bits is None:
            return scaled.round_().clamp_(-limit, limit).to(kind)
        top = 2**self.weight_bits - 1
        return scaled.mul_(top / limit).round_().clamp_(-top, top).mul_(limit / top).round_().to(kind)

    def round_codes(self, codes: Tensor, capabilities: Capabilities) -> Tensor:
        """Return trace codes, uint8, with their unused bits cleared."""
        if self.trace_bits is None:
            return codes
        return codes.bitwise_and((0xFF << (capabilities.trace_bits - self.trace_bits)) & 0xFF)

    def rows(self, capabilities: Capabilities) -> list[tuple[str, str, str]]:
        """Return the reductions of the device's resolution as rows (what, used, limit) of a plan."""
        caps = capabilities
        rows = []
        if self.weight_bits is not None:
            step = caps.weight_max / (2**self.weight_bits - 1)
            used = f"{self.weight_bits} bits + sign, {step:.4g} apart"
            rows.append(("resolution of integer weights", used, f"{magnitude_bits(caps)} bits + sign"))
        if self.trace_bits is not None:
            rows.append(("resolution of traces", f"{self.trace_bits} bits", f"{caps.trace_bits} bits"))
        if self.spikes_only:
            rows.append(("membranes of hidden layers", "modelled, of measured spikes", ""))
        return rows

    def misfits(self, capabilities: Capabilities) -> list[str]:
        """Return the requested resolutions that the device lacks, each with a remedy."""
        caps = capabilities
        bits = magnitude_bits(capabilities)
        misfits = []
        if self.weight_bits is not None and self.weight_bits > bits:
            misfits.append(
                f"network: weight_bits={self.weight_bits} has magnitudes up to {2**self.weight_bits - 1}, integer "
                f"weights of the device reach {caps.weight_max}; set weight_bits={bits} or less"
            )
        if self.trace_bits is not None and self.trace_bits > caps.trace_bits:
            misfits.append(
                f"network: trace_bits={self.trace_bits} exceeds the {caps.trace_bits} bits of the device's traces; "
                f"set trace_bits={caps.trace_bits} or less"
            )
        return misfits


def magnitude_bits(capabilities: Capabilities) -> int:
    """Return the number of bits in the magnitude of the device's integer weights."""
    return (capabilities.weight_max + 1).bit_length() - 1
