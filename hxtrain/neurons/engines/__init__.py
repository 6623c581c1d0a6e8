"""Engines that compute layers: readable, compiled for the CPU, kernels on a GPU; `engine_for` chooses."""

from .choice import engine_for, engine_of
from .engine import Demand, Engine, LayerGradients, ModelLayer

__all__ = ["Demand", "Engine", "LayerGradients", "ModelLayer", "engine_for", "engine_of"]
