"""How a batch becomes a change of the weights."""

from .backprop import LossNotFiniteError, Step, train_step

__all__ = ["LossNotFiniteError", "Step", "train_step"]
