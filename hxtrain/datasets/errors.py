"""The error type of this package."""


class DatasetError(ValueError):
    """Data are missing, damaged, or not of the expected kind. The text names the remedy."""
