"""`hxtrain fit`: measure a device's neurons; the output file defines an emulated chip with the same parameters."""

from __future__ import annotations

from omegaconf import DictConfig
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from hxtrain.commands.fit import fit_device, table
from hxtrain.runs.progress import Progress

from .app import command_line, guarded, run_directory, typed_settings, warn_without_effect
from .command import command
from .folders import alone


@command("fit")
def main(config: DictConfig) -> None:
    """Characterise the device that the config names."""
    guarded(alone(lambda: _fit(config), "fit.json"))


def _fit(config: DictConfig) -> None:
    settings = typed_settings(config)
    progress = Progress()
    warn_without_effect(settings.backend)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=progress.console, transient=True) as bar:
        task = bar.add_task("opening the device", total=None)
        characterisation = fit_device(
            settings,
            run_directory(),
            command_line(),
            lambda stage, count, stages: bar.update(task, description=stage, completed=count, total=stages),
        )
    p = characterisation.parameters
    progress.table(
        f"chip {p.device['chip']} ({p.device['chip_hash']}), {len(p.leak)} neurons of {p.merged} circuits, "
        f"{characterisation.measured.trials} trials",
        ("parameter", "median", "spread", "neurons without an estimate"),
        table(characterisation),
    )
    saturation = "linear" if p.saturation is None else f"{p.saturation:.0f} weight LSB"
    rails = "none" if p.rails is None else f"{p.rails[0]:.1f} and {p.rails[1]:.1f}"
    progress.say(f"saturation of the amplifiers: {saturation}; rails: {rails}")
    for note in p.notes:
        progress.warn(note)
    file = settings.file
    progress.say(f"written to {file} ({p.hash}); emulate it with backend=emulator chip.parameters={file}")
