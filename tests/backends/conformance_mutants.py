"""Deliberately wrong devices, one for each check of the conformance suite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from hxtrain.backends import (
    Backend,
    BackendWrapper,
    Batching,
    Cost,
    DeviceError,
    Record,
    Recording,
    Spikes,
    Stimulus,
    create_backend,
)

Change = Callable  # of one argument, or of (device, argument)


def unchanged(thing):
    return thing


class Mutant(BackendWrapper):
    """A device behind a wrapper that violates the contract.

    Args:
        claims: Capabilities that differ from the device's.
        identity: Change of the identity.
        circuit: Change of circuits on their way to the device.
        weights: Change of weights on their way to the device.
        spikes: Change of input events on their way to the device.
        recording: Change of recordings on their way to the host, from (recording, stimulus).
        inner: Wrapped device.
    """

    def __init__(
        self,
        claims=None,
        identity=unchanged,
        circuit=unchanged,
        weights=unchanged,
        spikes=unchanged,
        recording=lambda recording, stimulus: recording,
        inner=None,
    ) -> None:
        super().__init__(create_backend("reference") if inner is None else inner)
        self.claims = claims or {}
        self._identity = identity
        self._circuit = circuit
        self._weights = weights
        self._spikes = spikes
        self._recording = recording

    @property
    def capabilities(self):
        return replace(super().capabilities, **self.claims)

    @property
    def identity(self):
        return self._identity(super().identity)

    def configure(self, circuit) -> None:
        super().configure(self._circuit(circuit))

    def map_weights(self, weights):
        return self._weights(weights)

    def map_stimulus(self, stimulus: Stimulus) -> Stimulus:
        return replace(stimulus, spikes=self._spikes(stimulus.spikes))

    def map_recording(self, recording: Recording, stimulus: Stimulus) -> Recording:
        return self._recording(recording, stimulus)


class ClosedOnce(Mutant):
    """May not be closed twice."""

    opened = False

    def open(self) -> None:
        self.opened = True

    def close(self) -> None:
        if not self.opened:
            raise RuntimeError("not open")
        self.opened = False


class NeverForgets(Mutant):
    """Keeps its circuit when closed."""

    def close(self) -> None:
        pass


class FirstCircuitOnly(Mutant):
    """Ignores a second circuit until it is closed."""

    is_closed = False

    def close(self) -> None:
        self.is_closed = False
        self.backend.close()

    def configure(self, circuit) -> None:
        if not self.is_closed:
            self.backend.configure(circuit)
        self.is_closed = True


class Unchecked(Mutant):
    """Takes every circuit."""

    def configure(self, circuit) -> None:
        self.backend._circuit = circuit


class Broken(Mutant):
    """Fails for good after the first error."""

    broken = False

    def run(self, weights, stimulus):
        if self.broken:
            raise DeviceError("the firmware hangs")
        try:
            return self.backend.run(weights, stimulus)
        except ValueError:
            self.broken = True
            raise


class Reversed(Mutant, Batching):
    """Gives trials in the wrong order, if it is given several runs."""

    def run_all(self, weights, stimuli):
        return [codes(lambda c: c.flip(0))(self.run(weights, stimulus), stimulus) for stimulus in stimuli]


class NeedsTrials(Mutant):
    """Cannot run an empty batch."""

    def run(self, weights, stimulus):
        return [self.backend.run(weights, stimulus)][: stimulus.spikes.samples][0]


class CutShort(Mutant):
    """Records only what fits its memory."""

    def __init__(self) -> None:
        super().__init__(claims={"trace_memory": 5 * 20 * 2, "trace_channels": 2})

    def run(self, weights, stimulus):
        recording = self.backend.run(weights, stimulus)
        return replace(recording, traces={name: codes[:5] for name, codes in recording.traces.items()})


class OneBuffer(Mutant):
    """Writes all recordings into one buffer."""

    buffer = None

    def run(self, weights, stimulus):
        recording = self.backend.run(weights, stimulus)
        (codes,) = recording.traces.values()
        if self.buffer is None or self.buffer.shape != codes.shape:
            self.buffer = torch.zeros_like(codes)
        self.buffer.copy_(codes)
        return replace(recording, traces=dict.fromkeys(recording.traces, self.buffer))


class Counting(Mutant):
    """Claims to be deterministic, but counts its runs."""

    runs = 0

    def run(self, weights, stimulus):
        self.runs += 1
        return codes(lambda trace: trace + self.runs)(self.backend.run(weights, stimulus), stimulus)


class FromSecondInput(Mutant):
    """Takes the weights of inputs that begin later for those one further."""

    def configure(self, circuit) -> None:
        self.first = circuit.projections[0].first_input
        self.backend.configure(circuit)

    def run(self, weights, stimulus):
        moved = {name: matrix.roll(int(self.first > 0), 1) for name, matrix in weights.items()}
        return self.backend.run(moved, stimulus)


def codes(change: Callable[[Tensor], Tensor]):
    """Change all trace codes."""
    return lambda recording, stimulus: replace(recording, traces={n: change(c) for n, c in recording.traces.items()})


def events(change: Callable[[Spikes], Spikes]):
    """Change all recorded spikes."""
    return lambda recording, stimulus: replace(recording, spikes={n: change(s) for n, s in recording.spikes.items()})


def every_weight(change: Callable[[Tensor], Tensor], name: str | None = None):
    """Change the weights of every projection, or of one."""
    return lambda weights: {n: change(w) if name in (None, n) else w for n, w in weights.items()}


def populations(**changes):
    return lambda circuit: replace(circuit, populations=tuple(replace(p, **changes) for p in circuit.populations))


def own_inputs(circuit):
    return replace(circuit, projections=tuple(replace(p, signed_inputs=None) for p in circuit.projections))


def transposed(matrix: Tensor) -> Tensor:
    return matrix.t().contiguous() if matrix.shape[0] == matrix.shape[1] else matrix


def shifted(trace: Tensor) -> Tensor:
    return torch.cat([trace[:, :1], trace[:, :-1]], dim=1)


def without_repeats(spikes: Spikes) -> Spikes:
    rows = torch.stack([spikes.sample.double(), spikes.unit.double(), spikes.time.double()], dim=1).unique(dim=0)
    return Spikes(rows[:, 0].long(), rows[:, 1].long(), rows[:, 2].float(), spikes.samples, spikes.units)


def noisy(trace: Tensor) -> Tensor:
    """Add noise that depends on the trial's place in its run, but not on the clock."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 2, (100_000,), generator=generator, dtype=torch.uint8)
    return trace + noise[: trace.numel()].view(trace.shape) if trace.numel() <= len(noise) else trace


def carried_over(trace: Tensor) -> Tensor:
    """Begin each trial where the one before ended."""
    left = torch.zeros_like(trace[:, -1])
    left[1:] = trace[:-1, -1] - 80
    return trace + left[:, None]


def wrapped(spikes: Spikes) -> Spikes:
    return replace(spikes, time=torch.remainder(spikes.time, 20 * 1.7e-6))


def coarse(spikes: Spikes) -> Spikes:
    return replace(spikes, time=torch.floor(spikes.time / 3.4e-6 + 1e-3) * 3.4e-6)


def all_recorded(circuit):
    return replace(circuit, record=Record())


def far_apart(circuit):
    return replace(circuit, trial_time=None, forced_reset=False)


MUTANTS: dict[str, tuple[Callable[[], Backend], str]] = {
    "capabilities_are_plausible": (lambda: Mutant({"trace_interval": 1.7}), "the unit is the second"),
    "abilities_have_their_methods": (
        lambda: Mutant({"batching": True}),
        "batching=True, but the backend does not inherit from Batching",
    ),
    "identity_names_the_individual": (
        lambda: Mutant(identity=lambda identity: {"backend": identity["backend"], "chip": identity["chip"]}),
        "identity lacks chip_hash",
    ),
    "opens_and_closes_repeatedly": (ClosedOnce, "RuntimeError: not open"),
    "run_needs_a_circuit": (NeverForgets, "run after close and open returned a recording"),
    "circuits_can_be_exchanged": (FirstCircuitOnly, "stimulus has 56 inputs, the circuit 3"),
    "trials_have_the_length_asked_for": (
        lambda: Mutant(circuit=lambda circuit: replace(circuit, samples=20)),
        "1 samples asked for, 20 recorded",
    ),
    "too_many_neurons_are_refused": (Unchecked, "513 neurons was not refused"),
    "too_many_inputs_are_refused": (Unchecked, "129 inputs of a single circuit was not refused"),
    "wrong_trace_interval_is_refused": (Unchecked, "1.5 trace intervals was not refused"),
    "unknown_populations_are_refused": (Unchecked, "post='nowhere' was not refused"),
    "requests_for_unknown_data_are_refused": (Unchecked, "a request for traces of 'nowhere' was not refused"),
    "recurrence_is_refused": (lambda: Mutant({"recurrence": False}), "onto itself was not refused"),
    "forced_reset_is_refused": (lambda: Mutant(circuit=far_apart), "forced_reset=True was not refused"),
    "weights_are_checked": (
        lambda: Mutant(weights=every_weight(lambda w: w.clamp(-63, 63))),
        "a weight of 64 was not refused",
    ),
    "number_of_inputs_is_checked": (lambda: Mutant(spikes=lambda s: replace(s, units=3)), "2 inputs for 3 was not"),
    "errors_leave_the_device_usable": (Broken, "the firmware hangs"),
    "no_trials_are_no_problem": (NeedsTrials, "no trials raised IndexError"),
    "more_than_the_memory_holds": (CutShort, r"6 trials were run, the traces hold \{5\}"),
    "traces_have_shape_and_type": (lambda: Mutant(recording=codes(lambda c: c.short())), "torch.int16, expected"),
    "requested_data_are_recorded": (
        lambda: Mutant(recording=lambda r, _: replace(r, traces={n: c for n, c in r.traces.items() if n == "neurons"})),
        "asked for spikes of all and traces of readout: the recording lacks traces of readout",
    ),
    "fewer_data_change_nothing": (
        lambda: Mutant(circuit=lambda c: c if c.record.traces is None else populations(threshold=140.0)(c)),
        "asked for spikes of all and traces of none: the spikes of neurons differ",
    ),
    "spikes_have_form_and_types": (
        lambda: Mutant(
            recording=events(lambda s: Spikes.trusted(s.sample, s.unit, s.time.double(), s.samples, s.units))
        ),
        "'time': torch.float64",
    ),
    "spike_times_are_seconds_of_the_trial": (
        lambda: Mutant(recording=events(lambda s: replace(s, time=s.time * 1e6))),
        "spike times span 5",
    ),
    "recordings_are_not_overwritten": (OneBuffer, "a run changed the recording of the one before"),
    "health_and_cost_are_reported": (
        lambda: Mutant(recording=lambda r, _: replace(r, cost=Cost(1e-9, None, "estimated"))),
        "cost.chip_time=1e-09 s",
    ),
    "lost_trials_are_flagged": (
        lambda: Mutant(recording=lambda r, s: replace(r, lost=torch.zeros(s.spikes.samples))),
        r"lost is torch.float32 \(1,\), expected torch.bool",
    ),
    "weights_arrive_in_their_place": (
        lambda: Mutant(weights=every_weight(transposed)),
        "the transposed matrix fits better",
    ),
    "weights_keep_their_sign": (lambda: Mutant(weights=every_weight(torch.abs)), "have the sign of their weight"),
    "weights_keep_their_size": (lambda: Mutant(weights=every_weight(lambda w: (0.8 * w).to(w.dtype))), "median 0.7"),
    "large_weights_are_whole": (
        lambda: Mutant(
            weights=every_weight(lambda w: w.to(torch.int8).to(w.dtype)),
            inner=create_backend("reference", weight_max=255),
        ),
        "of responses to weights of 127, 128, 255 have their size",
    ),
    "zero_weights_are_silent": (
        lambda: Mutant(weights=every_weight(lambda w: w.where(w != 0, torch.tensor(4, dtype=w.dtype)))),
        "of weight 0 are silent",
    ),
    "single_steps_of_weight_count": (
        lambda: Mutant(weights=every_weight(lambda w: w.div(2, rounding_mode="trunc") * 2)),
        "weights 1..3 act like 0.00, 2.00, 2.00",
    ),
    "events_add_up": (lambda: Mutant(spikes=without_repeats), "50 % of responses to two events"),
    "integer_types_are_alike": (
        lambda: Mutant(weights=every_weight(lambda w: w if w.dtype == torch.int8 else 0 * w)),
        "differ between weights of torch.int8 and torch.int16",
    ),
    "merged_circuits_add_inputs": (
        lambda: Mutant(weights=every_weight(lambda w: w * (torch.arange(w.shape[1]) < 128))),
        "50 % of responses",
    ),
    "inputs_may_begin_later": (FromSecondInput, "of responses have the size"),
    "sources_share_inputs": (
        lambda: Mutant(circuit=own_inputs),
        "weights of both sources onto a neuron",
    ),
    "rest_is_the_leak": (lambda: Mutant(recording=codes(lambda c: c + 3)), "rest within 1.0 of the leak"),
    "weights_of_zero_are_quiet": (
        lambda: Mutant(weights=every_weight(lambda w: w.where(w != 0, torch.tensor(1, dtype=w.dtype)))),
        "of neurons rest",
    ),
    "potentials_have_time_and_shape": (lambda: Mutant(recording=codes(shifted)), r"samples are \+1.00 intervals late"),
    "strong_inputs_make_spikes": (
        lambda: Mutant(recording=events(lambda s: replace(s, unit=s.units - 1 - s.unit))),
        "of driven neurons spike in their trial",
    ),
    "weak_inputs_make_no_spikes": (lambda: Mutant(circuit=populations(threshold=90.0)), "silent at 7 simultaneous"),
    "later_inputs_spike_later": (lambda: Mutant(spikes=coarse), "spike later by the delay"),
    "stamps_fit_the_traces": (
        lambda: Mutant(recording=events(lambda s: replace(s, time=s.time + 2.5e-6))),
        "in the refractory period",
    ),
    "neurons_are_refractory": (lambda: Mutant(circuit=populations(refractory=0.0)), "of inter-spike intervals reach"),
    "on_chip_events_arrive": (
        lambda: Mutant(weights=every_weight(lambda w: 0 * w, "neurons->readout")),
        "synapses between populations",
    ),
    "recurrent_events_arrive": (
        lambda: Mutant(weights=every_weight(transposed, "neurons->neurons")),
        "0 % of recurrent synapses act",
    ),
    "readouts_do_not_spike": (
        lambda: Mutant(circuit=populations(threshold=150.0)),
        "of a population without threshold",
    ),
    "trials_keep_their_order": (lambda: Mutant(recording=codes(lambda c: c.flip(0))), r"come in the order \[7, 6"),
    "split_batches_are_alike": (
        lambda: Mutant(recording=codes(lambda c: c + int(len(c) > 5))),
        "differ when the batch is split",
    ),
    "runs_given_together_are_alike": (Reversed, "of run 1 differ from those of the run alone"),
    "equal_clocks_give_equal_recordings": (Counting, "differ between two runs at clock 5"),
    "noise_follows_the_clock": (lambda: Mutant(recording=codes(noisy)), r"trials 0\.\.3 repeats at clock 4"),
    "trials_are_independent": (lambda: Mutant(recording=codes(carried_over)), "after a trial that ended in a volley"),
    "close_trials_are_honoured": (
        lambda: Mutant({"forced_reset": True}, circuit=far_apart),
        "trials cost 0.0002 s each",
    ),
    "too_short_trials_are_refused": (lambda: Mutant(circuit=far_apart), "shorter than the recording was not refused"),
    "events_at_the_edges_are_taken": (lambda: Mutant(spikes=wrapped), "at or behind the trial's end"),
}
"""For each check a device that fails it, and a pattern of the text."""
