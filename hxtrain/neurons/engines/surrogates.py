"""Numbers by which compiled loops know the surrogate derivatives that they compute.

A function without a number, such as one of the user, is computed by the readable engine, whatever its name.
"""

from __future__ import annotations

from hxtrain.neurons.surrogate import Surrogate, arctan, boxcar, gaussian, sigmoid, superspike, triangle

SUPERSPIKE = 0
TRIANGLE = 1
SIGMOID = 2
GAUSSIAN = 3
ARCTAN = 4
BOXCAR = 5


class _Numbers(dict[Surrogate, int]):
    """Numbers by function; there is no default, since another function would have another derivative."""

    def __missing__(self, surrogate: Surrogate) -> int:
        raise ValueError(f"surrogate {surrogate!r:.80} has no compiled loop; the readable engine computes it")


NUMBERS = _Numbers(
    {
        superspike: SUPERSPIKE,
        triangle: TRIANGLE,
        sigmoid: SIGMOID,
        gaussian: GAUSSIAN,
        arctan: ARCTAN,
        boxcar: BOXCAR,
    }
)
