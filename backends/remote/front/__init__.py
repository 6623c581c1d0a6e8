"""The server's front to the network: a separate process (`relay`), and the class that starts it (`Front`)."""

from .front import Arrival, Dropped, Front, Question

__all__ = ["Arrival", "Dropped", "Front", "Question"]
