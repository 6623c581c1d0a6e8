"""Environments: closed loops in which a network acts, and is rewarded."""

from .credit import Credit
from .environment import ENVIRONMENTS, Environment, Outcome
from .pong import Pong

__all__ = ["ENVIRONMENTS", "Credit", "Environment", "Outcome", "Pong"]
