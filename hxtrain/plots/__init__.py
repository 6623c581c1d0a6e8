"""Plots: of a training run, of a comparison, of a classified plane."""
