"""How a batch becomes a change of the weights."""

from hxtrain.network import Write

from .backprop import Backprop, train_step
from .constraints import CONSTRAINTS, Clamp, Constraint, Mask, Sign
from .online import OnlineRule
from .optimizers import OPTIMIZERS, SGD, Adam, Optimizer
from .rtrl import RTRL, EProp
from .rule import RULES, Batch, LearningRule, LossFunction, Need, Objective, RuleError, Step, correctness, require_fit
from .step import LossNotFiniteError, learn
from .streaming import StreamingRule, Window
from .superspike import SuperSpike

__all__ = [
    "CONSTRAINTS",
    "OPTIMIZERS",
    "RTRL",
    "RULES",
    "SGD",
    "Adam",
    "Backprop",
    "Batch",
    "Clamp",
    "Constraint",
    "EProp",
    "LearningRule",
    "LossFunction",
    "LossNotFiniteError",
    "Mask",
    "Need",
    "Objective",
    "OnlineRule",
    "Optimizer",
    "RuleError",
    "Sign",
    "Step",
    "StreamingRule",
    "SuperSpike",
    "Window",
    "Write",
    "correctness",
    "learn",
    "require_fit",
    "train_step",
]
