"""XOR of spike times (Bohte, Kok and La Poutré, Neurocomputing 48, 2002), in time of the device.

Each of two inputs spikes early (0) or late (1), a third one always early, as a reference. The output neuron should
spike early if the inputs differ (class 1), else late (class 0). Published: 0 and 6 ms, and 10 and 16 ms with a time
constant of 7 ms; the defaults are these times in microseconds, for time constants near 6 us.
"""

from __future__ import annotations

import torch

from hxtrain.backends import Spikes
from hxtrain.checks import count, not_negative

from ..dataset import Dataset, content_sha256
from ..errors import DatasetError
from ..events import EventSplit
from .generated import check_settings

NAME = "xor_times"
RULES = {
    "early": not_negative,
    "late": not_negative,
    "early_target": not_negative,
    "late_target": not_negative,
    "copies": count,
}
NOTE = "Generated: the four cases, repeated. Training and test samples are the same."
CASES = ((0, 0), (0, 1), (1, 0), (1, 1))


def xor_times(
    early: float = 0.0,
    late: float = 6e-6,
    early_target: float = 10e-6,
    late_target: float = 16e-6,
    copies: int = 25,
) -> Dataset:
    """Return the four cases as events of three units, with target spike trains of the classes.

    Args:
        early: Time of an input spike that means 0, and of the reference (s).
        late: Time of an input spike that means 1 (s).
        early_target: Time at which the output should spike if the inputs differ (s).
        late_target: Time at which the output should spike if the inputs agree (s).
        copies: Number of samples of each case, in the training and in the test part.

    Raises:
        DatasetError: A time is out of order, negative or not finite, or there is no copy.
    """
    check_settings(NAME, RULES, locals())
    if not early < late <= early_target < late_target:
        raise DatasetError(
            f"data={NAME}: data.settings.early={early} s, late={late} s, early_target={early_target} s and "
            f"late_target={late_target} s must be in early < late <= early_target < late_target"
        )
    bits = torch.tensor(CASES * copies)
    times = early + torch.cat([bits, torch.zeros(len(bits), 1)], 1) * (late - early)
    part = EventSplit.from_spikes(Spikes.from_times(times), bits.sum(1) % 2)
    return Dataset(
        name=NAME,
        train=part,
        test=part,
        classes=("equal", "different"),
        size=3,
        origin="XOR of spike times, S. M. Bohte, J. N. Kok and H. La Poutré (2002); generated",
        licence="none needed: four cases made by code of this package",
        note=NOTE,
        sha256=content_sha256(part, part),
        targets=Spikes.from_times([[late_target], [early_target]]),
    )
