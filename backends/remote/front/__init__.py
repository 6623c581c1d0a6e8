"""The server's face to the network: a process of its own (`relay`), and what starts it and speaks with it (`Front`)."""

from .front import Arrival, Dropped, Front, Question

__all__ = ["Arrival", "Dropped", "Front", "Question"]
