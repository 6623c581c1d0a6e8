"""Hydra configs and the console scripts; no logic that a library user would miss."""
