"""Counters of a server, and their text in Prometheus' format."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

from hxtrain.backends.recording import Recording

from .protocol import Code
from .worker import Outcome

WINDOW = 60.0
"""Time over which the throughput is averaged (s)."""


class Counters:
    """Counts of a server since its start (at time `start`, s)."""

    def __init__(self, start: float) -> None:
        self.start = start
        self.requests: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.last_error = ""
        self.runs = 0
        self.trials = 0
        self.run_seconds = 0.0
        self.duplicates = 0
        self.dropped_spikes = 0
        self.retries = 0
        self.lost_trials = 0
        self.bytes_in, self.bytes_out = 0, 0
        self._recent: deque[tuple[float, int]] = deque(maxlen=2**14)

    def refuse(self, code: Code, text: str, count: int = 1) -> None:
        """Count an error reply, or several."""
        self.errors[code] += count
        self.last_error = f"{code}: {text}"[:500]

    def finish(self, outcome: Outcome, moment: float) -> None:
        """Count a job."""
        if outcome.code is not None:
            self.refuse(outcome.code, outcome.text)
        for piece in outcome.pieces:
            if piece.error:
                self.refuse("device", piece.error)
            elif piece.recording is not None:
                self._count(piece.recording, piece.trials, piece.seconds, moment)

    def _count(self, recording: Recording, trials: int, seconds: float, moment: float) -> None:
        self.runs += 1
        self.trials += trials
        self.run_seconds += seconds
        self.dropped_spikes += recording.health.dropped_spikes
        self.retries += recording.health.retries
        self.lost_trials += 0 if recording.lost is None else int(recording.lost.sum())
        self._recent.append((moment, trials))

    def trials_per_second(self, moment: float) -> float:
        """Return the throughput of the last minute, or since the start."""
        while self._recent and self._recent[0][0] < moment - WINDOW:
            self._recent.popleft()
        span = max(min(WINDOW, moment - self.start), 1e-3)
        return sum(trials for _, trials in self._recent) / span


def exposition(
    counters: Counters, gauges: Mapping[str, tuple[str, float]], identity: Mapping[str, str], moment: float
) -> str:
    """Return all metrics as text.

    Args:
        counters: Counters of the server.
        gauges: Help text and value by name (without the prefix `hxtrain_server_`).
        identity: Identity of the device, for the labels of `info`.
        moment: Current time (s).
    """
    labels = ",".join(f'{_name(key)}="{_escaped(value)}"' for key, value in sorted(identity.items()))
    lines = [*_head("hxtrain_server_info", "The device that is served.", "gauge"), f"hxtrain_server_info{{{labels}}} 1"]
    plain = {
        "runs": ("Runs that gave a recording.", counters.runs),
        "trials": ("Trials in these runs.", counters.trials),
        "run_seconds": ("Time that the backend took for them.", counters.run_seconds),
        "duplicates": ("Repeated jobs that were answered without running them again.", counters.duplicates),
        "dropped_spikes": ("Spikes that the device dropped.", counters.dropped_spikes),
        "device_retries": ("Repeats within the backend.", counters.retries),
        "lost_trials": ("Trials that did not arrive whole.", counters.lost_trials),
        "received_bytes": ("Bytes of requests.", counters.bytes_in),
        "sent_bytes": ("Bytes of replies.", counters.bytes_out),
    }
    for name, (text, value) in plain.items():
        lines += [*_head(f"hxtrain_server_{name}_total", text, "counter"), f"hxtrain_server_{name}_total {value:.12g}"]
    uptime = ("Time since the server started.", moment - counters.start)
    lines += request_lines("hxtrain_server", counters)
    lines += gauge_lines("hxtrain_server", {"uptime_seconds": uptime, **gauges})
    return "\n".join(lines) + "\n"


def request_lines(prefix: str, counters: Counters) -> list[str]:
    """Return the lines on requests and errors, by operation and by code."""
    lines = list[str]()
    for name, label, text, counter in (
        ("requests", "operation", "Requests by operation.", counters.requests),
        ("errors", "code", "Error replies by code.", counters.errors),
    ):
        lines += _head(f"{prefix}_{name}_total", text, "counter")
        lines += [f'{prefix}_{name}_total{{{label}="{key}"}} {counter[key]}' for key in sorted(counter)]
    return lines


def gauge_lines(prefix: str, gauges: Mapping[str, tuple[str, float]]) -> list[str]:
    """Return the lines of gauges: help text and value by name."""
    lines = list[str]()
    for name, (text, number) in gauges.items():
        lines += [*_head(f"{prefix}_{name}", text, "gauge"), f"{prefix}_{name} {number:.12g}"]
    return lines


def _head(name: str, text: str, kind: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _name(text: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in text)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
