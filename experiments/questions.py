"""Questions to a server from the command line: the words after a verb's sub-command, and errors with an exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hxtrain.backends import DeviceError
from hxtrain.backends.remote import LinkSettings


def answered(questions: Mapping[str, Callable[[list[str]], None]]) -> bool:
    """Carry out the sub-command in the first word; return whether it is one.

    An error ends the program with its text, and the exit status 2 for settings and files, 3 for a failed server.
    """
    if len(sys.argv) < 2 or sys.argv[1] not in questions:
        return False
    try:
        questions[sys.argv[1]](sys.argv[2:])
    except DeviceError as error:
        sys.exit(_failed(error, 3))
    except (ValueError, OSError, OmegaConfBaseException) as error:
        sys.exit(_failed(error, 2))
    return True


def link_settings(words: Sequence[str], example: str, usage: str) -> LinkSettings:
    """Return the connection that words such as `address=tcp://127.0.0.1:5555` describe.

    Args:
        words: Words of the command line.
        example: Example of an address.
        usage: Usage of the command, for errors.

    Raises:
        ValueError: The address is missing or not valid, or a setting is unknown.
    """
    if not any(word.startswith("address=") for word in words):
        raise ValueError(f"address={example} is missing:\n{usage}")
    default = OmegaConf.structured({"address": "", "keys": None, "timeout": 2.0, "patience": 5.0})
    OmegaConf.set_struct(default, True)
    merged = OmegaConf.merge(default, OmegaConf.from_dotlist(list(words)))
    settings: dict[str, object] = OmegaConf.to_container(merged)  # type: ignore[assignment]
    return LinkSettings(**settings)  # type: ignore[arg-type]


def _failed(error: Exception, status: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return status
