"""The Hydra configs (YAML); shipped as package data."""
