"""The device `remote`: a chip behind a server, used like one in the same process."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise, takewhile
from typing import ClassVar, TypeVar

from torch import Tensor

from hxtrain.backends.abilities import Batching, Interruptible
from hxtrain.backends.addresses import is_pool
from hxtrain.backends.backend import Backend
from hxtrain.backends.capabilities import Capabilities
from hxtrain.backends.checks import check_run
from hxtrain.backends.circuit import Circuit
from hxtrain.backends.pieces import join
from hxtrain.backends.recording import DeviceError, QueueTimeoutError, Recording, Stimulus

from . import protocol as p
from .claims import Reservation, Wish
from .heart import Heart, label
from .link import Link, LinkSettings, Reply, Setbacks, tell
from .reception import SOFTWARE
from .tensors import EVENT, grid_size, largest_recording, read_recordings, write_run
from .wire import LARGEST_PART, Exact, WireError

log = logging.getLogger(__name__)
Result = TypeVar("Result")
HEADS = 2**12
"""Room for head and body in the message of a run (bytes)."""


@dataclass
class LinkTimes:
    """Sums over successful runs: their number, the time in the backend behind the server, and the total time (s)."""

    runs: int = 0
    device: float = 0.0
    total: float = 0.0


class RemoteBackend(Backend, Batching, Interruptible):
    """A device behind `hxtrain serve`.

    It survives lost messages, broken connections and restarts of the server: it repeats a run until the recording
    arrives, and the server does not execute a repeated batch twice.

    At a pool (docs/pool.md) it has a chip from the first question for its capabilities to `close`. If the server of
    that chip fails, it goes on at another one with the very same chip, or waits for it.

    Args:
        address: Address of the server, e.g. `tcp://127.0.0.1:5555`, or of a pool, `pool://lab:5554`.
        keys: Directory with `client.key_secret` and `server.key`; None for a server without keys.
        patience: Silence of the server after which a run fails (s).
        queue_patience: Longest wait while others have the chip (s).
        timeout: Silence after which a request is repeated (s).
        chip: Name of the chip of a pool; None: any.
        preset: Preset of the chip of a pool; None: any.
        hash: Content hash of the chip of a pool; None: any.
        circuits: Smallest number of neuron circuits of the chip of a pool.
        recorded: Content hash of the chip of an earlier session, which a pool prefers to all others; None without one.

    Attributes:
        times: Times that runs took.

    Raises:
        ValueError: The address is not valid, or keys are missing or broken, or a server shall choose a chip.
    """

    FREE_SETTINGS: ClassVar[frozenset[str]] = frozenset(
        {"address", "keys", "patience", "queue_patience", "timeout", "hash", "circuits", "recorded"}
    )

    def __init__(
        self,
        address: str,
        keys: str | None = None,
        patience: float = 60.0,
        queue_patience: float = 3600.0,
        timeout: float = 5.0,
        chip: str | None = None,
        preset: str | None = None,
        hash: str | None = None,
        circuits: int = 0,
        recorded: str | None = None,
    ) -> None:
        if not queue_patience >= 0:
            raise ValueError(f"queue_patience={queue_patience} s must not be negative")
        self._address = address
        self._settings = LinkSettings(address, keys, timeout, patience)
        self._queue_patience = queue_patience
        self._running = False
        self._interrupted = threading.Event()
        self._queued = 0.0
        self._client = secrets.token_hex(16)
        self._reservation: Reservation | None = None
        identity = {"chip": chip, "preset": preset, "chip_hash": hash}
        wish = Wish({name: value for name, value in identity.items() if value is not None}, circuits, recorded or "")
        if is_pool(address):
            self._reservation = Reservation(self._settings, wish, queue_patience, self._client)
        elif wish != Wish({}):
            raise ValueError(f"address={address} is a server with one chip; only a pool can choose one with {wish}")
        self._link = self._connection()
        self._sequence = 0
        self._hello: p.Welcome | None = None
        self._capabilities: Capabilities
        self._lease, self._configured = "", ""
        self._circuit: Circuit | None = None
        self._answer: p.Configured | None = None
        self._heart: Heart | None = None
        self.times = LinkTimes()

    def __repr__(self) -> str:
        """Describe the address in a line, without a request to the server."""
        return f"{type(self).__name__}({self._address})"

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the device, from the server on first use; it is calibrated where it is served."""
        self._welcome()
        return self._capabilities

    @property
    def identity(self) -> Mapping[str, str]:
        """Return the identity of the device, with the server's address."""
        identity = self._welcome().identity if self._answer is None else self._answer.identity
        return {**identity, "address": self._settings.address}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings of the device."""
        return () if self._answer is None else self._answer.warnings

    def open(self) -> None:
        """Wait for the chip.

        Raises:
            DeviceError: The server cannot be reached, or others have the chip for too long.
        """
        try:
            self._insist(lambda: None)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the chip back; may be called twice."""
        self._stop_heart()
        if self._lease:
            self._release()
        self._lease = ""
        self._circuit = None
        self._answer = None
        self._link.close()
        if self._reservation is not None:
            self._reservation.end()

    def configure(self, circuit: Circuit) -> None:
        """Place a circuit.

        Raises:
            ValueError: The device cannot realise the circuit.
            DeviceError: The device failed, or the server cannot be reached.
        """
        self._circuit = circuit
        self._answer = None
        self._configured = ""
        try:
            self._insist(lambda: None)
        except Exception:
            self._circuit = None
            raise

    def run(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        """Run trials.

        Raises:
            ValueError: Weights or stimulus do not fit the circuit, or are too large for the server.
            DeviceError: The device failed, or the server cannot be reached.
        """
        (outcome,) = self.run_all(weights, [stimulus])
        if isinstance(outcome, DeviceError):
            raise outcome
        return outcome

    def run_all(self, weights: Mapping[str, Tensor], stimuli: Sequence[Stimulus]) -> list[Recording | DeviceError]:
        """Run stimuli one after the other, as many in one message as the server takes.

        Raises:
            ValueError: Weights or a stimulus do not fit the circuit, or are too large for the server.
            DeviceError: The server cannot be reached.
        """
        welcome, begin = self._welcome(), time.perf_counter()
        circuit = check_run(self._circuit, weights, stimuli, welcome.capabilities.weight_max)
        divided = [self._divide(circuit, stimulus) for stimulus in stimuli]
        flat = self._run_pieces(circuit, weights, [piece for pieces in divided for piece in pieces])
        self.times.total += time.perf_counter() - begin
        edges = pairwise(accumulate(map(len, divided), initial=0))
        return [_join(flat[first:last]) for first, last in edges]

    def interrupt(self) -> None:
        """End the run in progress, in this client and, if the device can do so, on the server."""
        if self._running:
            self._interrupted.set()

    def _divide(self, circuit: Circuit, stimulus: Stimulus) -> list[Stimulus]:
        """Divide a run whose recording may exceed the server's limit; dependent trials stay together.

        A run that is far too large stays whole: the server refuses it and names its limit.
        """
        limits = self._welcome().limits
        spikes = stimulus.spikes
        capacity = limits.max_message // largest_recording(circuit, self._welcome().capabilities, 1)
        if not capacity < spikes.samples <= capacity * p.MOST_PIECES or circuit.trial_time is not None:
            return [stimulus]
        size = -(-spikes.samples // -(-spikes.samples // capacity))  # pieces of about one size
        clocks = range(stimulus.clock, stimulus.clock + spikes.samples, size)
        return [Stimulus(piece, clock) for piece, clock in zip(spikes.split(size), clocks, strict=True)]

    def _run_pieces(
        self, circuit: Circuit, weights: Mapping[str, Tensor], stimuli: Sequence[Stimulus]
    ) -> list[Recording | DeviceError]:
        """Run stimuli; when the server becomes unreachable, all remaining runs get the error as outcome."""
        outcomes = list[Recording | DeviceError]()
        setbacks = Setbacks(self._settings)
        for group in self._groups(circuit, weights, stimuli):
            try:
                while group:
                    answered = self._run_group(circuit, weights, group)
                    outcomes = outcomes + answered
                    group = group[len(answered) :]
                    if not answered:
                        setbacks.add("it did not run what was asked for")
            except DeviceError as error:
                if not outcomes:
                    raise
                return outcomes + [error] * (len(stimuli) - len(outcomes))
        return outcomes

    def _groups(
        self, circuit: Circuit, weights: Mapping[str, Tensor], stimuli: Sequence[Stimulus]
    ) -> Iterator[list[Stimulus]]:
        """Divide runs into groups of consecutive runs that fit in one message; a run that is too large stays alone."""
        limit = self._welcome().limits.max_message - HEADS - 4 * sum(matrix.numel() for matrix in weights.values())
        group = list[Stimulus]()
        size = 0
        for stimulus in stimuli:
            spikes = stimulus.spikes
            demand = grid_size(circuit, spikes.samples) + EVENT * len(spikes)
            is_gap = bool(group) and stimulus.clock != group[-1].clock + group[-1].spikes.samples
            if group and (is_gap or size + demand > limit or len(group) == p.MOST_PIECES):
                yield group
                group = []
                size = 0
            group.append(stimulus)
            size += demand
        if group:
            yield group

    def _run_group(
        self, circuit: Circuit, weights: Mapping[str, Tensor], stimuli: Sequence[Stimulus]
    ) -> list[Recording | DeviceError]:
        """Run the stimuli of one message, and return the outcomes of those that ran, from the first on."""
        welcome = self._welcome()
        body, tensors = write_run(circuit, weights, stimuli, welcome.capabilities.weight_max)
        size = sum(len(tensor) for tensor in tensors)
        limit = welcome.limits.max_message
        if size + HEADS > limit:
            raise ValueError(
                f"a run of {sum(s.spikes.samples for s in stimuli)} samples has {size} bytes, the chip server takes "
                f"{limit}; use smaller batches, or raise the server's max_message"
            )
        self._sequence += 1
        reply = self._request_run(body, tensors, self._sequence)
        answer = reply.read(p.Ran)
        try:
            recordings = read_recordings(answer, reply.tensors, circuit, [s.spikes.samples for s in stimuli])
        except WireError as error:
            raise DeviceError(f"the chip server's recording makes no sense: {error}") from None
        pieces = [piece for piece in answer.pieces if piece is not None]
        self.times.runs += len(pieces)
        self.times.device += sum(piece.seconds for piece in pieces)
        outcomes = [
            recording if recording is not None else DeviceError(text) if text else None
            for recording, text in zip(recordings, answer.errors, strict=True)
        ]
        return [outcome for outcome in takewhile(lambda outcome: outcome is not None, outcomes) if outcome is not None]

    def _request_run(self, body: p.Run, tensors: Sequence[memoryview], sequence: int) -> Reply:
        """Request a run; cancel it on the server if the caller gives up."""
        allowed = self._welcome().limits.run_timeout
        self._running = True
        try:
            return self._insist(lambda: self._link.request("run", body, tensors, self._lease, sequence, allowed))
        except (KeyboardInterrupt, SystemExit):
            self._cancel(sequence)
            raise
        except p.ConnectionLostError as error:
            if not self._interrupted.is_set():
                raise
            self._cancel(sequence)
            raise DeviceError("the run was interrupted") from error
        finally:
            self._running = False
            self._interrupted.clear()

    def _insist(self, work: Callable[[], Result]) -> Result:
        """Do `work` with a lease and the configured circuit, and repeat it whenever the lease is lost.

        The time in the queue does not count as a setback: it has a patience of its own.
        """
        setbacks = Setbacks(self._settings)
        queued = self._queued
        while True:
            try:
                self._ensure_lease()
                self._ensure_circuit()
                return work()
            except p.Refusal as refusal:
                log.info("chip server %s: %s", self._settings.address, refusal.text)
                self._lease = ""
                setbacks.add(refusal.text, self._queued - queued)
            except p.ConnectionLostError as error:
                if not self._has_lost_chip:
                    raise
                setbacks.add(str(error), self._queued - queued)

    def _connection(self) -> Link:
        """Return a connection that gives up when the caller or the pool says so."""
        reservation = self._reservation
        return Link(
            self._settings, lambda: self._interrupted.is_set() or (reservation is not None and reservation.is_lost)
        )

    @property
    def _has_lost_chip(self) -> bool:
        """Whether the pool has taken the chip back, so that a request was given up."""
        is_lost = self._reservation is not None and self._reservation.is_lost and not self._interrupted.is_set()
        if is_lost:
            log.warning(
                "the pool has taken the chip at %s back: its server is gone, or has another chip",
                self._settings.address,
            )
        return is_lost

    def _reserve(self) -> None:
        """Have a chip of the pool, if there is a pool: after the first one, only the very same chip will do."""
        if self._reservation is None or self._reservation.is_held:
            return
        self._lease = ""
        start = time.monotonic()
        try:
            address = self._reservation.take(None if self._hello is None else self._hello.identity)
        except ValueError as error:
            if self._hello is None:
                raise
            raise DeviceError(f"the chip of this run is gone: {error}") from None
        self._queued += time.monotonic() - start
        if address != self._settings.address:
            self._link.close()
            self._settings = replace(self._settings, address=address)
            self._link = self._connection()
            self._stop_heart()

    def _stop_heart(self) -> None:
        if self._heart is not None:
            self._heart.stop()
            self._heart = None

    def _welcome(self) -> p.Welcome:
        """Return the server's welcome; before `open`, the connection is closed again."""
        while self._hello is None:
            self._reserve()
            try:
                self._hello = self._link.greet(SOFTWARE)
                self._capabilities = replace(self._hello.capabilities, batching=True, calibration=False)
                self._link.expect(self._hello.limits.max_message + LARGEST_PART)
            except p.ConnectionLostError:
                if not self._has_lost_chip:
                    raise
            finally:
                if self._heart is None:
                    self._link.close()
        return self._hello

    def _ensure_lease(self) -> None:
        """Wait for a lease unless the client has one; the server must still serve the same device."""
        self._reserve()
        if self._lease:
            return
        self._check_same_device()
        start = time.monotonic()
        last_position = -1
        while True:
            attempt_start = time.monotonic()
            place = self._link.request("lease", p.Ask(self._client, Exact(label()))).read(p.Place)
            if place.lease is not None:
                break
            if place.position != last_position:
                last_position = place.position
                level = logging.INFO if self._answer is not None else logging.WARNING  # turns are no news
                log.log(
                    level, "place %d in the queue for the chip, at most about %.0f s", last_position, place.estimate
                )
            if time.monotonic() - start > self._queue_patience:
                raise QueueTimeoutError(
                    f"{self._settings.peer}: others have had the chip for {self._queue_patience:g} s (place "
                    f"{place.position}). See who: {self._settings.question}; wait longer with a larger `queue_patience`"
                )
            time.sleep(max(0.01, min(place.again, 5.0)))
            self._queued += time.monotonic() - attempt_start
        self._lease = place.lease
        if self._heart is None:
            self._heart = Heart(self._settings, self._welcome().limits.heartbeat_timeout, self._link)
        self._heart.lease = self._lease

    def _check_same_device(self) -> None:
        previous = self._welcome()
        current = self._link.greet(SOFTWARE)
        if (current.capabilities, current.identity) != (previous.capabilities, previous.identity):
            raise DeviceError(
                f"chip server {self._settings.address} serves another device now: {dict(current.identity)}, it was "
                f"{dict(previous.identity)}; start anew with it, or have the former one served"
            )
        self._hello = current
        self._link.expect(current.limits.max_message + LARGEST_PART)

    def _ensure_circuit(self) -> None:
        """Configure the circuit in this lease; the identity of the chip must not change."""
        if self._circuit is None or self._configured == self._lease:
            return
        self._sequence += 1
        allowed = self._welcome().limits.run_timeout
        job = p.Configure(self._circuit)
        reply: Reply = self._link.request("configure", job, (), self._lease, self._sequence, allowed)
        answer = reply.read(p.Configured)
        previous = self._answer
        if previous is not None and previous.identity != answer.identity:
            raise DeviceError(
                f"chip server {self._settings.address}: configured again, the chip is {dict(answer.identity)}, it was "
                f"{dict(previous.identity)}; start anew with it"
            )
        self._answer = answer
        self._configured = self._lease

    def _release(self) -> None:
        """Give the lease back, if the server can be reached."""
        tell(self._settings, "release", p.Empty(), self._lease, "the lease was not given back, it ends by itself")

    def _cancel(self, sequence: int) -> None:
        """Cancel a job on the server."""
        otherwise = "the job was not cancelled, it ends by itself"
        tell(self._settings, "cancel", p.Cancel(sequence), self._lease, otherwise)


def _join(pieces: Sequence[Recording | DeviceError]) -> Recording | DeviceError:
    """Return the recording of a run that was divided, or its first error."""
    recordings = list[Recording]()
    for piece in pieces:
        if isinstance(piece, DeviceError):
            return piece
        recordings.append(piece)
    return recordings[0] if len(recordings) == 1 else join(recordings)
