"""Surrogate derivatives of the spike, which replace the derivative of the step function.

All are 1 at the threshold. `x` is the membrane's distance from the threshold, and `slope` is the inverse width. The
functions overwrite `x`, to save an allocation in the inner loop of the gradient.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from hxtrain.backends import Registry

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
    """Return 1 for `slope |x| < 1`, else 0."""
    return (x.abs_() * slope < 1).to(x.dtype)


SURROGATES: Registry[Surrogate] = Registry("surrogates", "surrogate")
"""Surrogate derivatives by name."""


def get_surrogate(surrogate: str | Surrogate) -> Surrogate:
    """Return the surrogate derivative with a name; a function `f(x, slope)` of the user is returned unchanged.

    Raises:
        ValueError: the name is unknown.
    """
    if callable(surrogate):
        return surrogate
    if isinstance(surrogate, str):
        return SURROGATES.load(surrogate)
    raise ValueError(f"surrogate={surrogate!r} must be a name, {', '.join(SURROGATES)}, or a function f(x, slope)")
