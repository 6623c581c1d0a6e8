"""Calibrations that come with the package, one per chip; made by `hxtrain calibrate` with default targets."""
