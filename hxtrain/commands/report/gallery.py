"""A gallery of the learning rules: for each rule what it is, commands, results and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import cleandoc
from pathlib import Path
from shutil import copyfile

from hxtrain.rules import RULES, LearningRule, StreamingRule, optimizer_name

from .config import ReportConfig
from .matrix import measure_of
from .page import origin
from .records import Record
from .summary import point

IMAGES = "images/rules"


def gallery_page(config: ReportConfig, records: Sequence[Record]) -> str:
    """Return the page as Markdown, and copy the plots of the runs beside it.

    Args:
        config: Settings of the report.
        records: Runs, each in a folder with the name of its experiment.
    """
    runs = {record.path.parent.name: record for record in records}
    lines = [f"# {config.title or config.name}", "", *([config.text.strip(), ""] if config.text else [])]
    for name in sorted(RULES.names(), key=lambda name: (name != "backprop", name)):
        lines += _section(config, name, RULES.load(name), runs)
    outcomes = [run for experiment, run in runs.items() if experiment in config.experiments]
    points = {"runs": [point(config, outcomes, config.y, config.yscale)]} if outcomes else {}
    return "\n".join([*lines, "## Origin", "", *origin(config, points)]) + "\n"


def _section(config: ReportConfig, name: str, rule: type[LearningRule], runs: Mapping[str, Record]) -> list[str]:
    lines = [f"## {name}", "", summary(rule), "", *facts(rule), ""]
    experiments = [experiment for experiment, owner in config.experiments.items() if owner == name]
    if not experiments:
        lines += ["No experiment trains it on a data set; the task that it solves is named above.", ""]
    for experiment in experiments:
        lines += ["```sh", f"hxtrain experiment={experiment}", "```", ""]
        lines += _outcome(config, experiment, runs.get(experiment))
    return lines


def _outcome(config: ReportConfig, experiment: str, run: Record | None) -> list[str]:
    """Return the lines on the result of an experiment, with its plot."""
    if run is None:
        return ["No run of it is shown here.", ""]
    measure = measure_of(config, [run])
    value = point(config, [run], measure.key, measure.scale).mean
    number = run.get("hidden_spikes_per_sample")
    spikes = f"{number:.1f} hidden spikes per sample, " if number and run.get("network.hidden") else ""
    lines = [
        f"{measure.label}: {value:.{measure.digits}f} after {run.get('epochs')} epochs in {run.get('seconds'):.0f} s, "
        f"{spikes}on {run.get('backend')} {run.get('chip')} ({run.get('preset')}).",
        "",
    ]
    plot = next((file for name in config.plots if (file := run.path.parent / "plots" / f"{name}.png").is_file()), None)
    if plot is not None:
        lines += [f"![{experiment}]({_copied(plot, config, experiment)})", ""]
    return lines


def _copied(plot: Path, config: ReportConfig, experiment: str) -> str:
    """Copy a plot beside the page; returns its place relative to the page."""
    place = f"{IMAGES}/{experiment}.png"
    target = Path(config.out) / place
    target.parent.mkdir(parents=True, exist_ok=True)
    copyfile(plot, target)
    return place


def summary(rule: type[LearningRule]) -> str:
    """Return the first sentence of a rule's docstring, on one line."""
    paragraph = cleandoc(rule.__doc__ or "").split("\n\n")[0]
    return " ".join(paragraph.split())


def facts(rule: type[LearningRule]) -> list[str]:
    """Return what a rule reads and gives, as a list of Markdown."""
    needs = ", ".join(sorted(need.value for need in rule.needs))
    gives = "the change of each weight, from what its synapse sees" if rule.is_local else "a gradient"
    lines = [f"- reads {needs}", f"- gives {gives}; goes with `optimizer={optimizer_name(rule)}`"]
    if issubclass(rule, StreamingRule):
        lines.append("- takes a trial in windows of time steps")
    return [*lines, *([f"- solves: {rule.solves}"] if rule.solves else [])]
