"""Run directories: checkpoints, metrics, locks, progress, randomness, versions."""
