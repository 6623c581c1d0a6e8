"""Memory and speed of events that are read from disk: a command, not a test.

    python tests/datasets/streaming_memory.py sparse FOLDER 20e9     a file of 20 GB of events, most of it a hole
    python tests/datasets/streaming_memory.py flat FOLDER 4e9        4 GB of random events in a flat file
    python tests/datasets/streaming_memory.py heidelberg FOLDER 1e9  the same in the layout of the Heidelberg data sets

It trains a small network on batches in random order, and prints the resident memory after 100 and after all batches.
`--read` reads batches without training.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import h5py
import numpy as np
import torch

import hxtrain as hx
from hxtrain.datasets import EventSource
from hxtrain.datasets.events import AddressLayout, EventStore, FlatFile, HeidelbergFile, HeidelbergWriter, StoredEvents

UNITS = 700
LAYOUT = AddressLayout(units=UNITS, time_unit=1.0)
BLOCK = 500
"""Samples that are made at a time."""


def write_sparse(path: Path, samples: int, length: int) -> EventStore:
    """Write a flat file whose events are never written: a hole, which reads as zeros."""
    with h5py.File(path, "w") as file:
        file["offsets"] = np.arange(samples + 1) * length
        file["labels"] = (np.arange(samples) % 2).astype(np.uint8)
        for name, kind in (("t", np.float32), ("unit", np.uint16)):
            place = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            place.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            place.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            space = h5py.h5s.create_simple((samples * length,))
            h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(np.dtype(kind)), space, place)
    return FlatFile(path, LAYOUT)


def write_flat(path: Path, samples: int, length: int) -> EventStore:
    """Write a flat file of random events, block by block."""
    numbers = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["offsets"] = np.arange(samples + 1) * length
        file["labels"] = (np.arange(samples) % 2).astype(np.uint8)
        times = file.create_dataset("t", (samples * length,), np.float32)
        units = file.create_dataset("unit", (samples * length,), np.uint16)
        for first in range(0, samples, BLOCK):
            count = min(BLOCK, samples - first)
            part = slice(first * length, (first + count) * length)
            times[part] = np.sort(numbers.random((count, length), np.float32), 1).ravel()
            units[part] = numbers.integers(0, UNITS, count * length, np.uint16)
    return FlatFile(path, LAYOUT)


def write_heidelberg(path: Path, samples: int, length: int) -> EventStore:
    """Write a file in the layout of the Heidelberg data sets."""
    numbers = np.random.default_rng(0)
    with HeidelbergWriter(path, ("0", "1")) as file:
        for first in range(0, samples, BLOCK):
            count = min(BLOCK, samples - first)
            times = numbers.random((count, length), np.float32)
            units = numbers.integers(0, UNITS, (count, length), np.uint16)
            file.append(list(times), list(units), np.arange(first, first + count) % 2)
    return HeidelbergFile(path)


def resident() -> float:
    """Return the resident memory of this process (MB)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1e3


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["sparse", "flat", "heidelberg"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("bytes", type=float)
    parser.add_argument("--length", type=int, default=8000, help="events per sample")
    parser.add_argument("--batch", type=int, default=16, help="samples per batch")
    parser.add_argument("--batches", type=int, default=10_000)
    parser.add_argument("--read", action="store_true", help="read batches, without training")
    options = parser.parse_args()
    width = {"sparse": 6, "flat": 6, "heidelberg": 4}[options.kind]
    samples = int(options.bytes / width / options.length)
    path = options.folder / f"{options.kind}.h5"
    started = time.perf_counter()
    store = {"sparse": write_sparse, "flat": write_flat, "heidelberg": write_heidelberg}[options.kind](
        path, samples, options.length
    )
    elapsed = time.perf_counter() - started
    print(f"{samples} samples of {options.length} events, {path.stat().st_size / 1e9:.2f} GB, made in {elapsed:.0f} s")
    source = EventSource(StoredEvents(store), hx.EventEncoder(speedup=2000))
    net = hx.Network(hx.Linear(UNITS, 20), hx.LIF(20), hx.Linear(20, 2), hx.LI(2), dt=5e-6, steps=100)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    seconds = 0.0
    for batch in range(1, options.batches + 1):
        indices = torch.randint(0, samples, (options.batch,), generator=generator)
        started = time.perf_counter()
        spikes = source.spikes(indices)
        seconds += time.perf_counter() - started
        if not options.read:
            hx.train_step(net, hx.MaxOverTime(), [], optimizer, spikes, source.labels[indices])
        if batch in (1, 100, 1000, options.batches):
            rate = batch * options.batch * options.length / seconds / 1e6
            print(f"batch {batch}: {resident():.0f} MB resident, {rate:.0f} million events per second read", flush=True)
    store.close()
    path.unlink()


if __name__ == "__main__":
    main()
