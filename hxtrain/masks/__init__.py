"""Which synapses exist: methods that find sparse masks, and rewiring during training (docs/masks.md)."""

from .budget import Budget, select
from .methods import (
    MASKS,
    ActiveMask,
    BudgetedMask,
    Choice,
    DeepRMask,
    GraspMask,
    MagnitudeMask,
    MaskMethod,
    Material,
    NoMask,
    RandomMask,
    RigLMask,
    SnipMask,
    SynFlowMask,
    TransferMask,
)
from .prune import find_masks, prune, set_masks
from .rate_model import RateModel, rate_model_of
from .rewiring import DeepR, Rewiring, RigL
from .transfer import Transfer, transfer

__all__ = [
    "MASKS",
    "ActiveMask",
    "Budget",
    "BudgetedMask",
    "Choice",
    "DeepR",
    "DeepRMask",
    "GraspMask",
    "MagnitudeMask",
    "MaskMethod",
    "Material",
    "NoMask",
    "RandomMask",
    "RateModel",
    "Rewiring",
    "RigL",
    "RigLMask",
    "SnipMask",
    "SynFlowMask",
    "Transfer",
    "TransferMask",
    "find_masks",
    "prune",
    "rate_model_of",
    "select",
    "set_masks",
    "transfer",
]
