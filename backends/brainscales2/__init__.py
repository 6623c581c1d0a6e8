"""BrainScaleS-2 through hxtorch."""

from .backend import BrainScaleS2Backend

__all__ = ["BrainScaleS2Backend"]
