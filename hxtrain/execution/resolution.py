r"""Less than a device can do: weights and membranes of fewer bits, hidden layers without traces.

Of `b` bits, the magnitude of an integer weight takes 2^b levels over the device's whole range::

    k = min(round(|w| scale (2^b - 1) / weight_max), 2^b - 1)
    |integer| = round(k weight_max / (2^b - 1))

with the sign of w. For weight_max = 63: 1 bit is 0 or 63; 2 bits are 0, 21, 42, 63; 3 bits multiples of 9; 6 bits all
integers. With 4 and 5 bits levels are 4.2 and 2.03 apart, each rounded to an integer.

A trace code of B bits that shall have b loses its B - b lowest ones, as an ADC of fewer bits would give it: it is
rounded down to a multiple of 2^(B - b), by (2^(B - b) - 1) / 2 on average. A membrane is the difference between the
code of a sample and that of the trial's first one. Both are rounded down, so that their difference is right on average.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hxtrain.backends import Capabilities


@dataclass(frozen=True)
class Resolution:
    """What of a device's resolution is used.

    Attributes:
        weight_bits: of the magnitude of integer weights, the sign aside; None: the device's.
        trace_bits: of membranes; None: the device's.
        spikes_only: whether hidden membranes are the model's, of measured spikes, instead of measured.
    """

    weight_bits: int | None = None
    trace_bits: int | None = None
    spikes_only: bool = False

    def round_weights(self, scaled: Tensor, capabilities: Capabilities) -> Tensor:
        """Return weights in units of integer weight as the device's integers, rounded and clipped; overwrites them."""
        limit, kind = capabilities.weight_max, capabilities.weight_type
        if self.weight_bits is None:
            return scaled.round_().clamp_(-limit, limit).to(kind)
        top = 2**self.weight_bits - 1
        return scaled.mul_(top / limit).round_().clamp_(-top, top).mul_(limit / top).round_().to(kind)

    def round_codes(self, codes: Tensor, capabilities: Capabilities) -> Tensor:
        """Return trace codes, uint8, without the bits that are not used."""
        if self.trace_bits is None:
            return codes
        return codes.bitwise_and((0xFF << (capabilities.trace_bits - self.trace_bits)) & 0xFF)

    def rows(self, capabilities: Capabilities) -> list[tuple[str, str, str]]:
        """Return what differs from all that the device can do, as rows (what, used, limit) of a plan."""
        caps, rows = capabilities, []
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
        """Return what the device cannot resolve, with a remedy."""
        caps, bits, found = capabilities, magnitude_bits(capabilities), []
        if self.weight_bits is not None and self.weight_bits > bits:
            found.append(
                f"network: weight_bits={self.weight_bits} has magnitudes up to {2**self.weight_bits - 1}, integer "
                f"weights of the device reach {caps.weight_max}; set network.weight_bits={bits} or less"
            )
        if self.trace_bits is not None and self.trace_bits > caps.trace_bits:
            found.append(
                f"network: trace_bits={self.trace_bits} exceeds the {caps.trace_bits} bits of the device's traces; "
                f"set network.trace_bits={caps.trace_bits} or less"
            )
        return found


def magnitude_bits(capabilities: Capabilities) -> int:
    """Return how many bits of magnitude the device's integer weights have."""
    return (capabilities.weight_max + 1).bit_length() - 1
