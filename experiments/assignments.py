"""Words NAME=VALUE of verbs that do without Hydra: typed settings, and help made of their dataclasses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, List, TypeVar  # noqa: UP035 - as the settings spell it

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .settings import nearest, settings

Config = TypeVar("Config")


def typed(kind: type[Config], words: Sequence[str]) -> Config:
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
    config = OmegaConf.structured(kind)
    for word in words:
        try:
            config = OmegaConf.merge(config, _value(word, names[word.partition("=")[0]].kind))
        except OmegaConfBaseException as error:
            raise ValueError(f"{word}: {str(error).splitlines()[0]}") from None
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ValueError(f"{missing[0]}={names[missing[0]].text}".replace("=", "=VALUE is missing: ", 1))
    typed = OmegaConf.to_object(config)
    assert isinstance(typed, kind)
    return typed


def _value(word: str, kind: Any) -> Any:
    """Return a setting; texts are as they are typed, since a pattern is no YAML, `yes` no truth value, `04` not 4."""
    name, _, text = word.partition("=")
    if kind is str:
        return {name: text}
    if kind == List[str]:  # noqa: UP006
        return {name: [item.strip().strip("'\"") for item in text.strip().strip("[]").split(",") if item.strip()]}
    return OmegaConf.from_dotlist([word])


def help_text(usage: str, forms: Mapping[str, type]) -> str:
    """Return the forms of a verb, and the settings of each.

    Args:
        usage: Text on the forms.
        forms: Dataclass of the settings of each form.
    """
    lines = [usage]
    for title, kind in forms.items():
        lines.append(f"Settings of {title}:")
        defaults = OmegaConf.structured(kind)
        for name, setting in settings(kind).items():
            default = "required" if OmegaConf.is_missing(defaults, name) else f"default {defaults[name]}"
            lines.append(f"  {name} ({default})\n      {setting.text}")
        lines.append("")
    return "\n".join(lines)
