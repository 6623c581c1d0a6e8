"""Optimisers: settings that build an optimiser of torch over the weights of a network."""

from .descent import SGD, Adam
from .optimizer import OPTIMIZERS, Optimizer
from .quickprop import QuickProp
from .rmaxprop import RMaxProp
from .rprop import RProp
from .spikeprop import SpikePropAd, SpikePropR

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adam",
    "Optimizer",
    "QuickProp",
    "RMaxProp",
    "RProp",
    "SpikePropAd",
    "SpikePropR",
]
