"""Settings that belong to the parameters in an error of the library, which knows no command line."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping

PARAMETER = re.compile(r"(?<![\w.`])(?:`(\w+)`|(\w+)=)")
"""How a text of the library writes a parameter: `` `name` `` or `name=value`."""
AMBIGUOUS = {"scale": "network.scale", "trial_time": "backend.trial_time"}
"""Setting of a parameter whose name several settings have."""


def with_keys(text: str, names: Collection[str]) -> str:
    """Return a text followed by the settings of the parameters that it names, if the command has them.

    Args:
        text: Text of an error, such as `set trial_time=0.2 or more`.
        names: Settings of the command, such as `backend.trial_time`.
    """
    keys = _keys(names)
    parameters = dict.fromkeys(match[1] or match[2] for match in PARAMETER.finditer(text))
    settings = [keys[parameter] for parameter in parameters if parameter in keys and parameter not in names]
    settings = [name for name in settings if name not in text]
    return f"{text} (on the command line: {', '.join(settings)})" if settings else text


def _keys(names: Collection[str]) -> Mapping[str, str]:
    """Return the setting of each parameter; of two devices, that of the first. Errors of trackers name themselves."""
    candidates = defaultdict(list)
    for name in names:
        if not name.startswith(("other_", "tracker.")):
            candidates[name.rpartition(".")[2]].append(name)
    unique = {parameter: settings[0] for parameter, settings in candidates.items() if len(settings) == 1}
    return unique | {parameter: name for parameter, name in AMBIGUOUS.items() if name in names}
