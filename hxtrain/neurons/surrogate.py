"""Surrogate derivatives of the spike: what takes the place of the step function's derivative.

All are 1 at the threshold; `x` is the membrane's distance from it, `slope` the inverse width. They
overwrite `x`, to spare the gradient's inner loop an allocation.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Surrogate = Callable[[Tensor, float], Tensor]


def superspike(x: Tensor, slope: float) -> Tensor:
    """Return `1 / (1 + slope |x|)^2` (Zenke and Ganguli 2018)."""
    return x.abs_().mul_(slope).add_(1).square_().reciprocal_()


def triangle(x: Tensor, slope: float) -> Tensor:
    """Return `max(0, 1 - slope |x|)` (Esser et al. 2016; Bellec et al. 2018)."""
    return x.abs_().mul_(-slope).add_(1).clamp_(min=0)


def sigmoid(x: Tensor, slope: float) -> Tensor:
    """Return `4 s (1 - s)` with `s = sigmoid(slope x)`, the logistic function's derivative."""
    s = x.mul_(slope).sigmoid_()
    return 4 * s * (1 - s)


def gaussian(x: Tensor, slope: float) -> Tensor:
    """Return `exp(-(slope x)^2 / 2)` (Yin, Corradi and Bohte 2021)."""
    return x.mul_(slope).square_().mul_(-0.5).exp_()


def arctan(x: Tensor, slope: float) -> Tensor:
    """Return `1 / (1 + (slope x)^2)` (Fang et al. 2021)."""
    return x.mul_(slope).square_().add_(1).reciprocal_()


def boxcar(x: Tensor, slope: float) -> Tensor:
    """Return 1 where `slope |x| < 1`, else 0."""
    return (x.abs_() * slope < 1).to(x.dtype)


SURROGATES: dict[str, Surrogate] = {
    "superspike": superspike,
    "triangle": triangle,
    "sigmoid": sigmoid,
    "gaussian": gaussian,
    "arctan": arctan,
    "boxcar": boxcar,
}


def get_surrogate(surrogate: str | Surrogate) -> Surrogate:
    """Return a surrogate derivative by name; a function of one's own, `f(x, slope)`, is one already.

    Raises:
        ValueError: the name is not known.
    """
    if callable(surrogate):
        return surrogate
    if surrogate not in SURROGATES:
        raise ValueError(
            f"surrogate={surrogate!r} is not known; choose one of {', '.join(SURROGATES)}, or give a function "
            "f(x, slope)"
        )
    return SURROGATES[surrogate]
