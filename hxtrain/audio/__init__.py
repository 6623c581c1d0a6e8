"""Sound to spikes: a model of the inner ear, and data sets made of sound files or of a speech synthesiser."""

from .cochlea import CHANNELS, Cochlea
from .libraries import AudioError
from .waves import RATE, read_wave

__all__ = ["CHANNELS", "RATE", "AudioError", "Cochlea", "read_wave"]
