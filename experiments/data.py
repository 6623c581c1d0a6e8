"""`hxtrain data`: sound to spikes, spoken digits, and the data that come with the package."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from hxtrain.audio.conversion import Report
from hxtrain.commands.sound import AudioConfig, ConversionConfig, Part, SpeechConfig, convert_audio, synthesise
from hxtrain.console import print_table, write_any_letter
from hxtrain.datasets.build import main as build

from .settings import nearest, settings

USAGE = """\
hxtrain data: sound to spikes, spoken digits, and the data of the package

  hxtrain data audio=FOLDER out=FILE.h5 [SETTING=VALUE ...]   WAV and FLAC files to spikes
  hxtrain data speech out=FILE.h5 [SETTING=VALUE ...]         digits that espeak-ng speaks
  hxtrain data build --help                                   make the shipped files
  hxtrain data check                                          load the shipped files, print counts and hashes

Files have the layout of the Heidelberg data sets (HDF5). Interrupted work goes on when the command is repeated.
"""
SPEECH = "speech"
AUDIO = "audio="
OF_PACKAGE = ("build", "check", "--version")
INTERRUPTED = 130
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
            _show(_run(synthesise, _typed(SpeechConfig, words[1:])))
        elif any(word.startswith(AUDIO) for word in words):
            _show(_run(convert_audio, _typed(AudioConfig, words)))
        else:
            raise ValueError(f"{words[0]} is no form of this command\n\n{USAGE}")
    except KeyboardInterrupt:
        print("interrupted; repeat the command to go on", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError, ImportError, OmegaConfBaseException) as error:
        print(
            f"error: {str(error).splitlines()[0] if isinstance(error, OmegaConfBaseException) else error}",
            file=sys.stderr,
        )
        return 2
    return 0


def _typed(kind: type[Config], words: Sequence[str]) -> Config:
    """Return the settings that words NAME=VALUE give.

    Raises:
        ValueError: A word is no setting, or a required one is missing.
    """
    names = settings(kind)
    for word in words:
        name, equals, _ = word.partition("=")
        if not equals or name not in names:
            close = nearest(name, names)
            remedy = f"did you mean {close[0]}=VALUE?" if close else f"settings are {', '.join(names)}"
            raise ValueError(f"{word} is not a setting; {remedy}")
    values = [_value(word, names[word.partition("=")[0]].kind) for word in words]
    config = OmegaConf.merge(OmegaConf.structured(kind), *values)
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ValueError(f"{missing[0]}={names[missing[0]].text}".replace("=", "=VALUE is missing: ", 1))
    typed = OmegaConf.to_object(config)
    assert isinstance(typed, kind)
    return typed


def _value(word: str, kind: Any) -> Any:
    """Return a setting; texts are as they are typed, since a pattern is no YAML."""
    name, _, text = word.partition("=")
    return {name: text} if kind is str else OmegaConf.from_dotlist([word])


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
    print_table(Console(), "written", columns, rows)


def _help() -> str:
    """Return the forms of the command, and the settings of the conversions."""
    lines = [USAGE]
    for title, kind in (("audio=FOLDER", AudioConfig), (SPEECH, SpeechConfig)):
        lines.append(f"Settings of {title}:")
        defaults = OmegaConf.structured(kind)
        for name, setting in settings(kind).items():
            default = "required" if OmegaConf.is_missing(defaults, name) else f"default {defaults[name]}"
            lines.append(f"  {name} ({default})\n      {setting.text}")
        lines.append("")
    return "\n".join(lines)
