"""`hxtrain data`: sound to spikes, spoken digits, and the data that come with the package."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from hxtrain.audio.conversion import Report
from hxtrain.commands.sound import AudioConfig, ConversionConfig, Part, SpeechConfig, convert_audio, synthesise
from hxtrain.console import print_table, write_any_letter
from hxtrain.datasets.build import main as build

from .assignments import help_text, typed

USAGE = """\
hxtrain data: sound to spikes, spoken digits, and the data of the package

  hxtrain data audio=FOLDER out=FILE.h5 [SETTING=VALUE ...]   WAV and FLAC files to spikes
  hxtrain data speech out=FILE.h5 [SETTING=VALUE ...]         digits that espeak-ng speaks
  hxtrain data build --help                                   make the shipped files
  hxtrain data check                                          load the shipped files, print counts and hashes

Files have the layout of the Heidelberg data sets (HDF5). Interrupted work goes on when the command is repeated.
Examples: docs/speech.md (sound), docs/data.md (data of the package), docs/event-data.md (training on files).
"""
SPEECH = "speech"
AUDIO = "audio="
OF_PACKAGE = ("build", "check", "--version")
INTERRUPTED = 130
NEXT = "train on it: hxtrain data=recordings data.folder={} encoder=events encoder.speedup=2000 ... (docs/speech.md)"
NO_TEST = "a training needs a test part, which test_speakers=[NAME,...] or test_share=0.1 make"
Config = TypeVar("Config", bound=ConversionConfig)


def main() -> int:
    """Run the command; return the exit status (0: success, 2: an error, 130: interrupted)."""
    words = sys.argv[1:]
    if words and words[0] in OF_PACKAGE:
        return build(words)
    write_any_letter()
    if not words or {"--help", "-h"} & set(words):
        print(_help())
        return 0
    try:
        if words[0] == SPEECH:
            _show(_run(synthesise, typed(SpeechConfig, words[1:])))
        elif any(word.startswith(AUDIO) for word in words):
            _show(_run(convert_audio, typed(AudioConfig, words)))
        else:
            raise ValueError(f"{words[0]} is no form of this command\n\n{USAGE}")
    except KeyboardInterrupt:
        print("interrupted; repeat the command to go on", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(work: Callable[[Config, Report], list[Part]], config: Config) -> list[Part]:
    """Do the work under a progress bar."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(), transient=True) as bar:
        task = bar.add_task("clips", total=None)
        return work(config, lambda count, total: bar.update(task, completed=count, total=total))


def _show(parts: Sequence[Part]) -> None:
    """Print what was written."""
    rows = [
        (
            str(part.path),
            str(len(part.spikes)),
            str(len(set(part.labels))),
            f"{statistics.median(part.spikes):.0f} ({min(part.spikes)} to {max(part.spikes)})",
            f"{statistics.median(part.channels):.0f} ({min(part.channels)} to {max(part.channels)})",
        )
        for part in parts
    ]
    columns = ("file", "clips", "classes", "spikes per clip: median, range", "channels with spikes")
    console = Console()
    print_table(console, "written", columns, rows)
    place = parts[0].path.absolute().parent
    hint = NEXT.format(place) if len(parts) > 1 else NO_TEST
    console.print(hint, highlight=False, markup=False, soft_wrap=True)


def _help() -> str:
    """Return the forms of the command, and the settings of the conversions."""
    return help_text(USAGE, {"audio=FOLDER": AudioConfig, SPEECH: SpeechConfig})
