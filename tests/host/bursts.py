"""Event data in the shape of the Spiking Heidelberg Digits: 700 units that burst, recordings of up to a second."""

from pathlib import Path

import numpy as np

UNITS = 700
CLASSES = 4
SPEEDUP = 1e4  # a second passes in 100 us


def bursts(samples: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return times (s), units, offsets and labels; classes differ by the band of units that bursts first.

    Sample 3 has no event.
    """
    rng = np.random.default_rng(seed)
    times = []
    units = []
    labels = np.arange(samples) % CLASSES
    for sample, label in enumerate(labels):
        duration = rng.uniform(0.3, 1.0)
        members = UNITS * label // CLASSES + rng.integers(UNITS // CLASSES, size=60)
        count = rng.integers(2, 6, size=60)
        start = np.repeat(rng.uniform(0, 0.3 * duration, size=60), count)
        burst = start + np.concatenate([np.arange(n) for n in count]) * 4e-3
        noise = rng.integers(20, 60)
        n_events = 0 if sample == 3 else count.sum() + noise
        times.append(np.concatenate([burst, rng.uniform(0, duration, noise)])[:n_events])
        units.append(np.concatenate([np.repeat(members, count), rng.integers(UNITS, size=noise)])[:n_events])
    offsets = np.cumsum([0, *map(len, times)])
    return {"times": np.concatenate(times), "units": np.concatenate(units), "offsets": offsets, "labels": labels}


def write(folder: Path, train: int = 160, test: int = 40) -> Path:
    """Write two files of events into a folder, in single precision, and return it."""
    folder.mkdir(exist_ok=True)
    for seed, (part, samples) in enumerate((("train", train), ("test", test))):
        arrays = bursts(samples, seed)
        arrays["times"] = arrays["times"].astype(np.float32)
        np.savez(folder / f"{part}.npz", inputs=UNITS, **arrays)
    return folder
