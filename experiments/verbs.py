"""The verbs of `hxtrain`: one table for the command, its help and its aliases. It imports nothing of the toolkit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

PROGRAM = "hxtrain"
DEFAULT = "train"
"""Verb of a command line without a verb."""


class Verb(NamedTuple):
    """A verb of the command line.

    Attributes:
        main: Function that does the work, as `module:name`.
        summary: Description, a sentence without a full stop.
        page: Page of the documentation.
    """

    main: str
    summary: str
    page: str


def _verb(name: str, summary: str, page: str) -> Verb:
    """Return a verb whose module in `hxtrain.experiments` has its name."""
    return Verb(f"hxtrain.experiments.{name}:main", summary, page)


VERBS: Mapping[str, Verb] = {
    "train": _verb("train", "train a spiking network in the loop", "docs/commands.md"),
    "play": _verb("play", "learn in an environment by rewards", "docs/play.md"),
    "evaluate": _verb("evaluate", "evaluate one or all runs on any device", "docs/commands.md"),
    "prune": _verb("prune", "remove synapses of a trained network", "docs/masks.md"),
    "ann": _verb("ann", "train an artificial network or a teacher", "docs/distillation.md"),
    "convert": _verb("convert", "put an artificial network on a device", "docs/conversion.md"),
    "transfer": _verb("transfer", "train on each chip, evaluate on each", "docs/chips.md"),
    "sensitivity": _verb("sensitivity", "measure what each imperfection costs", "docs/chips.md"),
    "calibrate": _verb("calibrate", "calibrate a chip for targets, to a file", "docs/chips.md"),
    "fit": _verb("fit", "measure a device's neurons to emulate it", "docs/fit.md"),
    "compare": _verb("compare", "run the same input on two devices", "docs/compare.md"),
    "conformance": _verb("conformance", "check a backend against the contract", "docs/write-a-backend.md"),
    "validate": _verb("validate", "check the emulator against measurements", "docs/emulator.md"),
    "serve": _verb("serve", "serve a device to other machines", "docs/protocol.md"),
    "pool": _verb("pool", "lease the chips of many servers", "docs/pool.md"),
    "view": _verb("view", "show runs in a browser, live or finished", "docs/view.md"),
    "report": _verb("report", "make a table and a plot of runs", "docs/results/README.md"),
    "bench": _verb("bench", "time training, emulation or a server", "docs/speed.md"),
    "nir": _verb("nir", "networks from and for other programs", "docs/exchange.md"),
    "info": _verb("info", "list devices, limits, chips, rules", "docs/commands.md"),
    "data": _verb("data", "sound to spikes; data of the package", "docs/data.md"),
}
"""Verbs in the order of the help."""


def program(verb: str) -> str:
    """Return the words of a shell that call a verb."""
    return PROGRAM if verb == DEFAULT else f"{PROGRAM} {verb}"
