"""The checks, and their runs on a device."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..backend import Backend
from . import batches, description, neurons, recordings, refusals, synapses
from .bench import Bench, ConformanceError, NotApplicableError
from .tolerances import IDEAL, Tolerances

Verdict = Literal["pass", "fail", "not applicable", "excluded"]
Check = Callable[[Bench], str]
"""Returns a report, or raises ConformanceError or NotApplicableError; its docstring states the requirement."""

ALL: tuple[Check, ...] = (
    description.capabilities_are_plausible,
    description.abilities_have_their_methods,
    description.identity_names_the_individual,
    description.opens_and_closes_repeatedly,
    description.run_needs_a_circuit,
    description.circuits_can_be_exchanged,
    description.trials_have_the_length_asked_for,
    refusals.too_many_neurons_are_refused,
    refusals.too_many_inputs_are_refused,
    refusals.wrong_trace_interval_is_refused,
    refusals.unknown_populations_are_refused,
    refusals.requests_for_unknown_data_are_refused,
    refusals.recurrence_is_refused,
    refusals.forced_reset_is_refused,
    refusals.weights_are_checked,
    refusals.number_of_inputs_is_checked,
    refusals.errors_leave_the_device_usable,
    refusals.no_trials_are_no_problem,
    refusals.more_than_the_memory_holds,
    recordings.traces_have_shape_and_type,
    recordings.requested_data_are_recorded,
    recordings.fewer_data_change_nothing,
    recordings.spikes_have_form_and_types,
    recordings.spike_times_are_seconds_of_the_trial,
    recordings.recordings_are_not_overwritten,
    recordings.health_and_cost_are_reported,
    recordings.lost_trials_are_flagged,
    synapses.weights_arrive_in_their_place,
    synapses.weights_keep_their_sign,
    synapses.weights_keep_their_size,
    synapses.large_weights_are_whole,
    synapses.zero_weights_are_silent,
    synapses.single_steps_of_weight_count,
    synapses.events_add_up,
    synapses.integer_types_are_alike,
    synapses.merged_circuits_add_inputs,
    synapses.inputs_may_begin_later,
    synapses.sources_share_inputs,
    neurons.rest_is_the_leak,
    neurons.weights_of_zero_are_quiet,
    neurons.potentials_have_time_and_shape,
    neurons.strong_inputs_make_spikes,
    neurons.weak_inputs_make_no_spikes,
    neurons.later_inputs_spike_later,
    neurons.stamps_fit_the_traces,
    neurons.neurons_are_refractory,
    neurons.on_chip_events_arrive,
    neurons.recurrent_events_arrive,
    neurons.readouts_do_not_spike,
    batches.trials_keep_their_order,
    batches.split_batches_are_alike,
    batches.runs_given_together_are_alike,
    batches.equal_clocks_give_equal_recordings,
    batches.noise_follows_the_clock,
    batches.trials_are_independent,
    batches.close_trials_are_honoured,
    batches.too_short_trials_are_refused,
    batches.events_at_the_edges_are_taken,
)
CHECKS: dict[str, Check] = {check.__name__: check for check in ALL}
"""All checks by name, in the order in which they run."""


@dataclass(frozen=True)
class Result:
    """Result of a check.

    Attributes:
        name: Name of the check.
        asks: Requirement of the check, in one sentence.
        verdict: `pass`, `fail`, `not applicable` (by the device's capabilities) or `excluded` (by its author).
        text: Report of the check, or the reason for its omission.
        seconds: Duration of the check (s).
    """

    name: str
    asks: str
    verdict: Verdict
    text: str
    seconds: float = 0.0


def asks(check: Callable[..., object]) -> str:
    """Return the requirement of a check: the first paragraph of its docstring, in one line."""
    return " ".join((inspect.getdoc(check) or "").split("\n\n")[0].split())


def select(names: Sequence[str] | None, exclude: Mapping[str, str], extra: Sequence[str] = ()) -> list[str]:
    """Return the names of the checks to run or to report as excluded.

    Raises:
        ValueError: A name is not known, or an exclusion has no reason.
    """
    available = [*CHECKS, *extra]
    unknown = sorted({*(names or ()), *exclude} - set(available))
    if unknown:
        raise ValueError(f"checks {', '.join(unknown)} are not known; there are: {', '.join(available)}")
    silent = sorted(name for name, reason in exclude.items() if not reason.strip())
    if silent:
        raise ValueError(f"exclude: {', '.join(silent)} needs a reason; say why this device is excused")
    return [name for name in available if names is None or name in names]


def verify(name: str, backend: Backend, tolerances: Tolerances = IDEAL) -> Result:
    """Run one check on a device, which is open for this check only and always closed afterwards."""
    return judge(name, asks(CHECKS[name]), lambda: _verified(CHECKS[name], backend, tolerances))


def _verified(check: Check, backend: Backend, tolerances: Tolerances) -> str:
    bench = Bench(backend, tolerances)
    with backend:
        text = check(bench)
    return f"{text} ({bench.repeats} runs repeated)" if bench.repeats else text


def judge(name: str, requirement: str, work: Callable[[], str]) -> Result:
    """Return the result of `work`; errors other than those of a check count as failures of the device."""
    begin = time.perf_counter()
    verdict: Verdict = "pass"
    try:
        text = work()
    except NotApplicableError as reason:
        verdict = "not applicable"
        text = str(reason)
    except ConformanceError as failure:
        verdict = "fail"
        text = str(failure)
    except Exception as error:
        verdict = "fail"
        text = f"raised {type(error).__name__}: {error}"
    return Result(name, requirement, verdict, text, time.perf_counter() - begin)


def run_suite(
    backend: Backend,
    tolerances: Tolerances = IDEAL,
    exclude: Mapping[str, str] | None = None,
    names: Sequence[str] | None = None,
    report: Callable[[str], None] = lambda name: None,
) -> list[Result]:
    """Run the checks on a device.

    Args:
        backend: Device under test; the suite opens and closes it for every check.
        tolerances: Allowed deviations of the device from the ideal.
        exclude: Checks to omit, each with the reason.
        names: Checks to run; None for all.
        report: Called with the name of each check before it runs.

    Raises:
        ValueError: A check is not known, or an exclusion has no reason.
    """
    exclude = exclude or {}
    results = []
    for name in select(names, exclude):
        report(name)
        if name in exclude:
            results.append(Result(name, asks(CHECKS[name]), "excluded", exclude[name]))
        else:
            results.append(verify(name, backend, tolerances))
    return results
