"""Plots: of a training run, of a learning rule, of a comparison, of a classified plane."""
