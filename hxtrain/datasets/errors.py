"""The one error type of this package."""


class DatasetError(ValueError):
    """Data are missing, damaged or not what they claim to be. The text names the remedy."""
