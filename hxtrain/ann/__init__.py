"""Artificial neural networks: baselines of the same size, and teachers."""
