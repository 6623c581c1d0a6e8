"""Engines: how a layer is computed, by torch, on the CPU or on a GPU."""
