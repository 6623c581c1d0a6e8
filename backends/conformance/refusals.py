"""Checks that a device refuses what it cannot do, with a text that names the problem, and stays usable afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..circuit import Circuit, Projection, Record
from ..recording import DeviceError, Recording, Stimulus
from ..spikes import Spikes
from .bench import Bench, ConformanceError, NotApplicableError, difference, require

Work = Callable[[], object]
LARGEST = 10_000
"""Largest number of trials in the check of the trace memory, since they take chip time."""


def refuses(
    work: Work, subject: str, words: tuple[str, ...], kinds: tuple[type[Exception], ...] = (ValueError,)
) -> None:
    """Require that `work` raises one of `kinds` with a text that contains one of `words` in any case."""
    names = " or ".join(kind.__name__ for kind in kinds)
    try:
        work()
    except kinds as error:
        named = any(word.lower() in str(error).lower() for word in words)
        require(named, f"{subject} is refused, but the text names none of {', '.join(words)}: {error}")
    except Exception as error:
        raise ConformanceError(f"{subject} raised {type(error).__name__} instead of {names}: {error}") from error
    else:
        raise ConformanceError(f"{subject} was not refused")


def _configure_refuses(bench: Bench, circuit: Circuit, subject: str, *words: str) -> None:
    refuses(lambda: bench.backend.configure(circuit), subject, words, (ValueError, DeviceError))


def too_many_neurons_are_refused(bench: Bench) -> str:
    """`configure` refuses more neuron circuits than there are."""
    limit = bench.caps.neuron_circuits
    _configure_refuses(
        bench, bench.layer(1, limit + 1, merged=1), f"a population of {limit + 1} neurons", "neuron", "circuit"
    )
    if bench.caps.max_merged > 1:
        halves = bench.layer(1, limit // 2 + 1, merged=2)
        _configure_refuses(bench, halves, f"{limit // 2 + 1} neurons of 2 circuits", "neuron", "circuit")
    return f"{limit + 1} neurons"


def too_many_inputs_are_refused(bench: Bench) -> str:
    """`configure` refuses more signed inputs per neuron than its circuits have."""
    inputs = bench.caps.inputs_per_circuit
    _configure_refuses(
        bench, bench.layer(inputs + 1, 1, merged=1), f"{inputs + 1} inputs of a single circuit", "input", "fan-in"
    )
    shifted = bench.layer(inputs, 1, merged=1)
    shifted = replace(shifted, projections=(replace(shifted.projections[0], first_input=1),))
    _configure_refuses(bench, shifted, f"{inputs} inputs that begin with the second", "input", "fan-in")
    return f"{inputs + 1} inputs"


def wrong_trace_interval_is_refused(bench: Bench) -> str:
    """`configure` refuses a trace interval that is not the device's."""
    circuit = replace(bench.layer(2, 2), dt=1.5 * bench.caps.trace_interval)
    _configure_refuses(bench, circuit, "circuit.dt of 1.5 trace intervals", "dt", "interval")
    return f"{circuit.dt:.3g} s"


def unknown_populations_are_refused(bench: Bench) -> str:
    """`configure` refuses a projection onto, or from, a population that is not there."""
    circuit = bench.groups()
    projection = circuit.projections[0]
    changed = {"post": replace(projection, post="nowhere"), "pre": replace(projection, pre="nowhere")}
    for end, projection in changed.items():
        subject = f"a projection with {end}='nowhere'"
        _configure_refuses(bench, replace(circuit, projections=(projection,)), subject, "nowhere")
    return "onto and from 'nowhere'"


def requests_for_unknown_data_are_refused(bench: Bench) -> str:
    """A selective device refuses to record populations that are not there, and spikes of one without a threshold."""
    if not bench.caps.selective:
        raise NotApplicableError("the device may record more than is requested (`selective`)")
    circuit = bench.layer(2, 2)
    requests = {
        "traces of 'nowhere'": Record(traces=("nowhere",)),
        "spikes of 'nowhere'": Record(spikes=("nowhere",)),
        "spikes of a readout": Record(spikes=("neurons",)),
    }
    for subject, record in requests.items():
        _configure_refuses(bench, replace(circuit, record=record), f"a request for {subject}", "record")
    return ", ".join(requests)


def recurrence_is_refused(bench: Bench) -> str:
    """A device without recurrence refuses a population that projects onto itself."""
    if bench.caps.recurrence:
        raise NotApplicableError("the device has recurrence")
    circuit = bench.groups()
    recurrent = Projection("neurons->neurons", "neurons", "neurons", bench.width, circuit.inputs)
    circuit = replace(circuit, projections=(*circuit.projections, recurrent))
    _configure_refuses(bench, circuit, "a population that projects onto itself", "recurren", "itself")
    return "refused"


def forced_reset_is_refused(bench: Bench) -> str:
    """A device that cannot reset membranes between trials refuses to."""
    if bench.caps.forced_reset:
        raise NotApplicableError("the device can reset membranes")
    close = 2 * bench.layer(2, 2).duration
    circuit = replace(bench.layer(2, 2), trial_time=close, forced_reset=True)
    _configure_refuses(bench, circuit, "forced_reset=True", "forced_reset", "trial_time")
    return "refused"


def weights_are_checked(bench: Bench) -> str:
    """`run` refuses missing, misshapen, float and too large weights, and names the projection."""
    bench.configure(bench.layer(3, 2))
    limit, kind = bench.caps.weight_max, bench.caps.weight_type
    cases: list[tuple[str, Mapping[str, Tensor], tuple[str, ...]]] = [
        ("a missing projection", {}, ("input->neurons",)),
        ("weights [3, 2] for [2, 3]", {"input->neurons": torch.ones(3, 2, dtype=kind)}, ("input->neurons",)),
        ("weights [2, 4] for [2, 3]", {"input->neurons": torch.ones(2, 4, dtype=kind)}, ("input->neurons",)),
        ("float weights", {"input->neurons": torch.ones(2, 3)}, ("input->neurons",)),
    ]
    for value in (limit + 1, -limit - 1):
        matrix = torch.zeros(2, 3, dtype=torch.int32)
        matrix[1, 2] = value
        cases.append((f"a weight of {value}", {"input->neurons": matrix}, (str(value), str(limit))))
    for subject, weights, words in cases:
        refuses(lambda weights=weights: bench.backend.run(weights, Stimulus(bench.quiet(3))), subject, words)  # type: ignore[misc]
    return f"{len(cases)} kinds"


def number_of_inputs_is_checked(bench: Bench) -> str:
    """`run` refuses a stimulus with another number of inputs than the circuit."""
    bench.configure(bench.layer(3, 2))
    weights = {"input->neurons": torch.ones(2, 3, dtype=bench.caps.weight_type)}
    for inputs in (2, 4):
        refuses(
            lambda inputs=inputs: bench.backend.run(weights, Stimulus(bench.quiet(inputs))),  # type: ignore[misc]
            f"a stimulus of {inputs} inputs for 3",
            ("input",),
        )
    return "2 and 4 for 3"


def errors_leave_the_device_usable(bench: Bench) -> str:
    """After a refused run, and after a refused configuration and a right one, the device works as before."""
    circuit = bench.groups()
    weights = {"input->neurons": bench.diagonal(bench.caps.weight_max)}
    spikes = bench.driven([0, 1])
    bench.configure(circuit)
    expected = bench.run(weights, spikes, clock=0)
    none: dict[str, Tensor] = {}
    for cause, work in (
        ("run without weights", lambda: bench.backend.run(none, Stimulus(spikes))),
        ("run with a wrong stimulus", lambda: bench.backend.run(weights, Stimulus(bench.quiet(circuit.inputs + 1)))),
    ):
        _provoke(work)
        _require_unchanged(bench, expected, bench.run(weights, spikes, clock=0), cause)
    _provoke(lambda: bench.backend.configure(bench.layer(1, bench.caps.neuron_circuits + 1, merged=1)))
    bench.configure(circuit)
    _require_unchanged(bench, expected, bench.run(weights, spikes, clock=0), "configure with too many neurons")
    return "3 errors"


def _provoke(work: Work) -> None:
    """Make a call that the device refuses; other checks look at the error."""
    try:
        work()
    except Exception:
        return


def _require_unchanged(bench: Bench, expected: Recording, actual: Recording, cause: str) -> None:
    if bench.caps.deterministic:
        changed = difference(expected, actual)
        require(changed is None, f"{changed} changed after an error ({cause})")
    n_expected, n_actual = (len(recording.spikes["neurons"]) for recording in (expected, actual))
    require((n_expected > 0) == (n_actual > 0), f"{n_expected} spikes before an error ({cause}), {n_actual} after it")


def no_trials_are_no_problem(bench: Bench) -> str:
    """A batch of no trials gives a recording of no trials, or is refused with ValueError."""
    bench.configure(bench.layer(3, 2))
    weights = {"input->neurons": torch.ones(2, 3, dtype=bench.caps.weight_type)}
    spikes: Spikes = bench.quiet(3, trials=0)
    try:
        recording = bench.backend.run(weights, Stimulus(spikes))
    except ValueError as error:
        require("trial" in str(error), f"a batch of no trials is refused, but the text names no trials: {error}")
        return "refused"
    except Exception as error:
        raise ConformanceError(f"a batch of no trials raised {type(error).__name__}: {error}") from error
    shapes = {name: tuple(codes.shape) for name, codes in recording.traces.items()}
    if bench.caps.traces:
        expected = {"neurons": (0, bench.samples, 2)}
        require(shapes == expected, f"a batch of no trials gave traces {shapes}, expected {expected}")
    require(recording.cost.chip_time >= 0, f"a batch of no trials cost {recording.cost.chip_time} s")
    return "empty recording"


def more_than_the_memory_holds(bench: Bench) -> str:
    """A batch beyond the trace memory is refused, naming it, or recorded whole; never cut short."""
    if not bench.caps.traces:
        raise NotApplicableError("the device records no traces")
    circuit = bench.layer(2, 2)
    size = bench.caps.trials_per_run(circuit.samples, bench.caps.stored(circuit))
    if size is None:
        raise NotApplicableError("the trace memory has no limit")
    if size > LARGEST:
        raise NotApplicableError(f"the trace memory holds {size} trials, more than the {LARGEST} that are tried")
    require(size > 0, f"the trace memory holds not even one trial of {circuit.samples} samples of 2 neurons")
    bench.configure(circuit)
    weights = {"input->neurons": torch.ones(2, 2, dtype=bench.caps.weight_type)}
    try:
        recording = bench.backend.run(weights, Stimulus(bench.quiet(2, trials=size + 1), bench.clock))
    except (ValueError, DeviceError) as error:
        named = any(word in str(error).lower() for word in ("memory", "trials"))
        require(named, f"{size + 1} trials are refused, but the text names neither memory nor trials: {error}")
        return f"{size + 1} trials are refused"
    bench.clock += size + 1
    trials = {len(codes) for codes in recording.traces.values()}
    require(trials == {size + 1}, f"{size + 1} trials were run, the traces hold {trials}; flag lost ones, or refuse")
    return f"{size + 1} trials, recorded whole"
