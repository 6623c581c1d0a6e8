"""How much the tests of endurance do: little by default, all of it with `HXTRAIN_SOAK=1 pytest tests/backends`."""

import os
from typing import TypeVar

Amount = TypeVar("Amount", int, float)


def soak(short: Amount, full: Amount) -> Amount:
    """Return how much to do."""
    return full if os.environ.get("HXTRAIN_SOAK") == "1" else short
