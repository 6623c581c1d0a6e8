"""The same weights and input on two targets: where do they part?"""

from .compare import Comparison, LayerComparison, Tolerance, compare

__all__ = ["Comparison", "LayerComparison", "Tolerance", "compare"]
