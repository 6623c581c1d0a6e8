"""The error types of this package."""

from hxtrain.backends import UnknownComponentError


class DatasetError(ValueError):
    """Data are missing, damaged, or not of the expected kind. The text names the remedy."""


class UnknownDatasetError(DatasetError, UnknownComponentError):
    """No data set of that name is registered; the text lists the known ones."""
