"""How a batch becomes a change of the weights."""

from hxtrain.network import Write

from .backprop import Backprop, train_step
from .constraints import CONSTRAINTS, Clamp, Constraint, Excitatory, Mask, Sign
from .default import default_optimizer, optimizer_name, optimizer_warnings
from .optimizers import (
    OPTIMIZERS,
    SGD,
    Adam,
    Optimizer,
    QuickProp,
    RMaxProp,
    RProp,
    SpikePropAd,
    SpikePropR,
)
from .rule import RULES, Batch, LearningRule, LossFunction, Need, Objective, RuleError, Step, correctness, require_fit
from .step import LossNotFiniteError, learn
from .streaming import StreamingRule, Window

__all__ = [
    "CONSTRAINTS",
    "OPTIMIZERS",
    "RULES",
    "SGD",
    "Adam",
    "Backprop",
    "Batch",
    "Clamp",
    "Constraint",
    "Excitatory",
    "LearningRule",
    "LossFunction",
    "LossNotFiniteError",
    "Mask",
    "Need",
    "Objective",
    "Optimizer",
    "QuickProp",
    "RMaxProp",
    "RProp",
    "RuleError",
    "Sign",
    "SpikePropAd",
    "SpikePropR",
    "Step",
    "StreamingRule",
    "Window",
    "Write",
    "correctness",
    "default_optimizer",
    "learn",
    "optimizer_name",
    "optimizer_warnings",
    "require_fit",
    "train_step",
]
