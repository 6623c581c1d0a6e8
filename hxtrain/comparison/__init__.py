"""Comparison of two targets with the same weights and input."""

from .compare import Comparison, LayerComparison, Tolerance, compare

__all__ = ["Comparison", "LayerComparison", "Tolerance", "compare"]
