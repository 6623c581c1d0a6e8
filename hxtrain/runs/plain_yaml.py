"""YAML texts that a run writes: shallow, without aliases. Others, over which the parser takes minutes, are refused."""

from __future__ import annotations

import yaml

from .plain import DEEPEST

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Loader of plain values: that of libyaml where PyYAML has it, which is 20 times as fast."""


def check_yaml(text: str | bytes) -> None:
    """Refuse a YAML text that no run writes, before its values are made.

    Raises:
        ValueError: The text has aliases, or is nested too deeply.
        yaml.YAMLError: The text is no YAML.
    """
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it has YAML aliases, which no run writes")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
