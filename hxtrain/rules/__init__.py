"""How a batch becomes a change of the weights."""

from .backprop import LossNotFiniteError, Step, train_step
from .optimizers import OPTIMIZERS, SGD, Adam, Optimizer

__all__ = ["OPTIMIZERS", "SGD", "Adam", "LossNotFiniteError", "Optimizer", "Step", "train_step"]
