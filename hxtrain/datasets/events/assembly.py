"""From stores of events to a data set: in memory if it fits there, else on disk, with its hash and remarks."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Any

from hxtrain.backends.files import replacing
from hxtrain.checks import not_negative, positive

from ..dataset import Dataset, content_sha256
from ..download import cache_folder
from ..errors import DatasetError
from .samples import EventSamples
from .store import EventStore, Tally
from .stored import EVENT_BYTES, StoredEvents

MEMORY = 4e9
"""Largest size of events (bytes) that are held in memory unless a setting says otherwise."""
VERSION = 1
"""Version of what is cached; another one is made anew."""
SETTLED = 2.0
"""Age (s) from which a file can be told from a later one by its time: the clocks of some file systems are coarse."""
log = logging.getLogger(__name__)


def event_dataset(
    name: str,
    stores: Mapping[str, EventStore],
    classes: tuple[str, ...],
    origin: str,
    licence: str,
    note: str,
    memory: float = MEMORY,
    duration: float | None = None,
) -> Dataset:
    """Return a data set of events.

    All parts are held in memory if their events take at most `memory` bytes there. Else every batch is read when it is
    needed; all events are then read once to check them and to name their content, which is remembered until a file
    changes.

    Args:
        name: name of the data set.
        stores: events of the parts `train` and `test`, and of `validation`, if any.
        classes: names of the classes.
        origin: source of the data.
        licence: terms of use.
        note: remarks on this copy.
        memory: largest size of events in memory (bytes); 0: all stay on disk.
        duration: time (s) from which on events are left out; None: none are.

    Raises:
        DatasetError: events cannot be meant, a file is damaged, or a part holds no sample.
    """
    limit = _settings(memory, duration)[0] / EVENT_BYTES
    end = math.inf if duration is None else duration
    for part, store in stores.items():
        if not len(store):
            raise DatasetError(f"{store.title}: the {part} part holds no sample; put some there")
    stored = {part: StoredEvents(store, end) for part, store in stores.items()}
    parts, tallies = _in_memory(stored, limit) or (dict[str, EventSamples](stored), {})
    if tallies:
        digest = content_sha256(parts["train"], parts["test"])
    else:
        digest, tallies = _read_through(stored)
    remarks = [f"{part}: {remark}" for part, tally in tallies.items() for remark in tally.remarks(end)]
    return Dataset(
        name=name,
        train=parts["train"],
        test=parts["test"],
        validation=parts.get("validation"),
        classes=classes,
        size=stored["train"].units,
        origin=origin,
        licence=licence,
        note=" ".join([note, *remarks]).strip(),
        sha256=digest,
    )


def _settings(memory: Any, duration: Any) -> tuple[float, float | None]:
    """Return both settings after a check."""
    try:
        return not_negative("data.settings.memory", memory), (
            None if duration is None else positive("data.settings.duration", duration)
        )
    except ValueError as error:
        raise DatasetError(str(error)) from None


def _in_memory(
    stored: Mapping[str, StoredEvents], limit: float
) -> tuple[dict[str, EventSamples], dict[str, Tally]] | None:
    """Return all parts in memory, and what was read; None if they have more than `limit` events."""
    if sum(samples.store.most_events or 0 for samples in stored.values()) > limit or not limit:
        return None
    parts: dict[str, EventSamples] = {}
    tallies: dict[str, Tally] = {}
    for part, samples in stored.items():
        loaded = samples.load(limit - sum(tally.events for tally in tallies.values()))
        if loaded is None:
            return None
        parts[part] = loaded[0]
        tallies[part] = loaded[1]
        samples.close()
    return parts, tallies


def _read_through(stored: Mapping[str, StoredEvents]) -> tuple[str, dict[str, Tally]]:
    """Return the hash of the content, and what every part holds, from the cache if the files are the same."""
    state = [VERSION, *((part, samples.duration, samples.store.identity) for part, samples in stored.items())]
    file = _cache_file(json.dumps(state))
    entry = _cached(file)
    if entry is None:
        log.info("reading all events once, to check them and to name their content; the next start is quick")
        started = time()
        tallies = {part: samples.tally() for part, samples in stored.items()}
        digest = content_sha256(stored["train"], stored["test"])
        for samples in stored.values():
            samples.close()
        if all((samples.store.newest or math.inf) < started - SETTLED for samples in stored.values()):
            _remember(file, {"sha256": digest, "tallies": tallies})
        return digest, tallies
    return entry["sha256"], {part: Tally(*numbers) for part, numbers in entry["tallies"].items()}


def _cache_file(state: str) -> Path | None:
    """Return the file that remembers what was read; None for a user without a folder for it."""
    try:
        return cache_folder("content") / f"{sha256(state.encode()).hexdigest()}.json"
    except DatasetError:
        return None


def _cached(file: Path | None) -> dict[str, Any] | None:
    """Return what a file of the cache holds; None if it is missing or damaged."""
    try:
        entry = json.loads(file.read_text(encoding="utf-8")) if file is not None else None
    except (OSError, ValueError):
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("tallies"), dict):
        return None
    tallies = entry["tallies"].values()
    is_whole = isinstance(entry.get("sha256"), str) and all(
        isinstance(numbers, list) and list(map(type, numbers)) == [int] * len(Tally._fields) for numbers in tallies
    )
    return entry if is_whole else None


def _remember(file: Path | None, entry: Mapping[str, Any]) -> None:
    """Write a file of the cache; a user who cannot write there reads all events again at the next start."""
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as target:
            target.write(json.dumps(entry).encode())
    except OSError as error:
        log.info("the hash of the content is not remembered (%s)", error)
