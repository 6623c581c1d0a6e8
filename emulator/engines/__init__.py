"""Engines of the emulator: readable, compiled for the CPU, fused on a GPU."""
