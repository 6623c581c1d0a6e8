"""What is minimised: losses of the readout, and penalties on activity and weights."""

from .losses import LOSSES, MaxOverTime, MeanOverTime
from .regularizers import Burst, Regularizer, UpperActivity, WeightDecay

__all__ = ["LOSSES", "Burst", "MaxOverTime", "MeanOverTime", "Regularizer", "UpperActivity", "WeightDecay"]
