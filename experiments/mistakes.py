"""Texts on mistakes in a command line, in place of the error texts of Hydra and OmegaConf.

Hydra composes the settings first. The words are analysed only after an error, so that every line that Hydra
accepts is valid.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, get_args, get_origin

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException, SearchPathException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError
from yaml import YAMLError

from .schema import FIXED, SCHEMAS, SEVERAL, callbacks, choices, fault, groups, nodes, place, schema
from .settings import Setting, entries, is_dictionary, is_list, is_text, nearest, settings
from .verbs import VERBS, program
from .words import is_sweep, parsed, quote

ORIGINS = {"evaluate": "the checkpoint's", "prune": "the checkpoint's", "compare": "the checkpoint's"}
"""Commands whose network, encoder, loss and data set are determined elsewhere."""
REMARKS = {"chip": "any other chip: chip.name={value}", "distillation": "a teacher: distillation.teacher={value}"}
"""Further remedy for an unknown option of a group."""
TYPES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
PLURALS = {int: "whole numbers", float: "numbers", bool: "true or false", str: "texts"}
EXAMPLE = "trainer.epochs=3"
MANY = 30
"""Number of options above which an error refers to the help text."""


class MistakeError(ValueError):
    """A mistake in a command line; the text names the correct form."""


class Command:
    """A command line with the settings and groups of its command.

    Args:
        name: Name of the YAML file of the command, such as `train`.
        words: Settings and group options as typed, in order.
        options: Options of Hydra, such as `--multirun`.
    """

    def __init__(self, name: str, words: Sequence[str] = (), options: Sequence[str] = ()) -> None:
        self.name = name
        self.words = words
        self.options = options

    @property
    def program(self) -> str:
        """Name of the command in a shell."""
        return program(self.name)

    @cached_property
    def settings(self) -> Mapping[str, Setting]:
        """Settings of the command, by name."""
        return settings(schema(self.name))

    @property
    def callbacks(self) -> Collection[str]:
        """Names of what accompanies the runs of the command."""
        return callbacks(self.name)

    @property
    def groups(self) -> Mapping[str, Any]:
        """Groups of the command, with the default option of each."""
        return groups(self.name)


def explain(error: Exception, command: Command) -> str | None:
    """Return the text for a user on an error of composition; None for other errors."""
    composition_errors = (HydraException, OmegaConfBaseException, YAMLError)
    if not isinstance(error, composition_errors) and not str(error).startswith("Config group override must be"):
        return None
    return "; ".join(mistakes(command)) or _of_error(error, command)


def mistakes(command: Command) -> list[str]:
    """Return texts on the words of a command line that has a mistake, for all words that look wrong."""
    return list(dict.fromkeys(filter(None, (_word(command, index) for index in range(len(command.words))))))


def misused_groups(command: Command) -> list[str]:
    """Return texts on wrong choices of groups, some of which Hydra accepts silently."""
    overrides = [(word, parsed(word)) for word in command.words]
    group_overrides = [
        (word, override) for word, override in overrides if override and override.key_or_group in command.groups
    ]
    single_overrides = [
        (word, override) for word, override in group_overrides if not (override.package or override.is_sweep_override())
    ]
    return list(filter(None, (_group(command, override, word) for word, override in single_overrides)))


def unknown(key: str, command: str, backend: str = "") -> str:
    """Return a text on a key that is not a setting of a command.

    Args:
        key: Key such as `trainer.epoch`.
        command: Name of the YAML file of the command.
        backend: Name of the chosen backend.
    """
    names = settings(schema(command))
    owner, _, leaf = key.rpartition(".")
    if owner in names and is_dictionary(names[owner].kind):
        return _unknown_entry(owner, leaf, backend)
    if owner in names:
        return f"{key}: {owner} has no parts; write {owner}=VALUE"
    group = key.partition(".")[0]
    options = _owning_options(key)
    if key in names and options:
        return (
            f"{key} is not a setting of the chosen {group}, but of {', '.join(options)}; choose that, or leave it out"
        )
    is_tracker = group == "tracker" and group not in groups(command)
    close = [] if is_tracker else nearest(key, {*names, *groups(command)})
    if close:
        return f"{key} is not a setting; did you mean {_or(close)}?"
    is_elsewhere = is_tracker or key == group or (group not in groups(command) and bool(options))
    commands = [name for name in SCHEMAS if is_elsewhere and group in groups(name)]
    if command in ORIGINS and group in groups("train") and not is_tracker:
        return f"{key} is not a setting of {program(command)}: it is {ORIGINS[command]}"
    if commands:
        return f"{key} is not a setting of {program(command)}, but of {', '.join(map(program, commands))}"
    return f"{key} is not a setting of {program(command)}; {program(command)} --help lists them"


def _owning_options(key: str) -> list[str]:
    """Return the options of a key's group that have it as a setting, such as `rule=stdp`."""
    group, _, name = key.partition(".")
    return [f"{group}={option}" for option, node in nodes(group).items() if name in settings(node)]


def no_hydra_setting(key: str, names: Collection[str], command: str) -> str:
    """Return a text on a key that is not a setting of Hydra.

    Args:
        key: Key such as `hydra.run.dri`.
        names: Names of the settings beside it.
        command: Name of the YAML file of the command.
    """
    owner = key.rpartition(".")[0]
    close = nearest(key, [f"{owner}.{name}" for name in names])
    remedy = f"did you mean {_or(close)}?" if close else f"{program(command)} --cfg hydra lists them"
    return f"{key} is not a setting of Hydra; {remedy}"


def _unknown_entry(owner: str, leaf: str, backend: str) -> str:
    names = sorted(entries(owner, backend) or ())
    close = nearest(f"{owner}.{leaf}", [f"{owner}.{name}" for name in names])
    remedy = f"did you mean {_or(close)}?" if close else f"choose among {', '.join(names) or 'none'}"
    return f"backend {backend!r} has no setting {leaf!r}; {remedy}" if owner.endswith("settings") else (
        f"{owner}.{leaf} is not a setting; {remedy}"
    )  # fmt: skip


def _word(command: Command, index: int) -> str | None:
    """Return a text on the mistake in a word, alone or with its neighbours; None for a correct word."""
    word = command.words[index]
    override = parsed(word)
    if override is None:
        return _syntax(command, index)
    if not override.key_or_group:
        previous = "".join(command.words[max(index - 1, 0) : index])
        return (
            None if previous and "=" not in previous else f"{word}: the name of a setting is missing, as in {EXAMPLE}"
        )
    key = override.key_or_group.replace("/", ".") if "@" not in word else override.key_or_group
    if override.package is not None or key.startswith("hydra"):
        return None
    if key in command.groups:
        return _group(command, override, word)
    if override.is_sweep_override() and not _is_multirun(command):
        return f"{word}: several values need --multirun{_one_value(command, word)}"
    if word[0] == "+" and word[1] != "+" and key in command.settings:
        return f"{key} is a setting already; write {word.lstrip('+')}, without +" if "." in key else None
    if word[0] == "~":
        return f"{word}: a setting cannot be removed; give it a value, or leave it out"
    if key in command.settings or any(name.startswith(f"{key}.") for name in command.settings):
        return None
    owner = key.rpartition(".")[0]
    if owner in command.settings and is_dictionary(command.settings[owner].kind):
        return None
    if "/" in override.key_or_group and key in command.settings:
        return f"write {key}={word.partition('=')[2]}"
    return unknown(key, command.name)


def _is_multirun(command: Command) -> bool:
    return is_sweep([*command.options, *command.words])


def _syntax(command: Command, index: int) -> str | None:
    """Return the correct form of words that violate the grammar; None for further words of the same group."""
    words = command.words
    word = words[index]
    following = [*words[index + 1 :], "", ""]
    previous = words[index - 1] if index else ""
    if previous.endswith("=") and "=" not in word and previous != "=":
        return f"{previous} {word}: write {previous}{word}, without a space"
    if previous == "=" or (previous.endswith(",") and "=" not in word):
        return None
    if (
        "=" not in word
        and previous
        and "=" not in previous
        and previous.lstrip("-") in {*command.settings, *command.groups}
    ):
        return None
    joined = {"=": f"{word}={following[1]}"}.get(
        following[0], word + following[0] if following[0].startswith("=") else ""
    )
    bracket = _bracket(words[index:])
    if bracket:
        written = re.sub(r"(?<=\w) (?=\w)", ",", " ".join(bracket)).replace(" ", "")
        return f"{' '.join(bracket)}: write {written}, without spaces"
    if index and any(word in _bracket(words[start:]) for start in range(index)):
        return None
    if word.endswith(",") and following[0]:
        remedy = "" if _is_multirun(command) else ", and add --multirun"
        return f"{word} {following[0]}: write {word}{following[0]}, without a space{remedy}"
    if joined:
        return f"{joined.replace('=', ' = ', 1)}: write {joined}, without spaces"
    if "=" not in word:
        return _positional(command, word, following[0])
    key, _, value = word.partition("=")
    if value.startswith("="):
        return f"{word}: write {key}={value.lstrip('=')}, with a single ="
    if not re.fullmatch(r"[+~]*[\w./@]+", key):
        return f"{word}: {key!r} cannot be the name of a setting; write NAME=VALUE, such as {EXAMPLE}"
    if value[:1] in "[{" and _is_open(value):
        return f"{word}: a bracket is missing; write a list such as [1,2], a dictionary such as {{a:1}}"
    setting = command.settings.get(key.lstrip("+"))
    if setting is not None and not is_text(setting.kind):
        return f"{word} cannot be read; {key.lstrip('+')} is {type_text(setting.kind)}"
    return f"{word} cannot be read; if a text is meant, quote it: {_quoted(word)}"


def _is_open(value: str) -> bool:
    """Return whether brackets are missing in a value."""
    return value.count("[") + value.count("{") != value.count("]") + value.count("}")


def _bracket(words: Sequence[str]) -> Sequence[str]:
    """Return the words up to the one that closes the bracket of the first; spaces have taken them apart."""
    value = words[0].partition("=")[2]
    if value[:1] not in ("[", "{") or not _is_open(value):
        return ()
    for end, word in enumerate(words[1:], 2):
        if "=" in word:
            return ()
        if not _is_open("".join(words[:end])):
            return words[:end]
    return ()


def _one_value(command: Command, word: str) -> str:
    """Return how a word with commas is written as a single value, if its setting may have one."""
    key, _, value = word.partition("=")
    setting = command.settings.get(key.lstrip("+"))
    if setting is not None and is_list(setting.kind):
        return f"; one list is written {key}=[{value}]"
    if setting is not None and not is_text(setting.kind):
        return ""
    return f"; for one value with commas, quote it: {_quoted(word)}"


def _positional(command: Command, word: str, following: str) -> str:
    name = word.lstrip("-")
    if name in command.settings or name in command.groups:
        value = following if following and "=" not in following else "VALUE"
        return f"{word}{' ' + value if value == following else ''}: write {name}={value}"
    colon = re.fullmatch(r"([\w.]+):\s*(.+)", word)
    if colon and (colon[1] in command.settings or colon[1] in command.groups):
        return f"{word}: write {colon[1]}={colon[2]}"
    if word.endswith((".yaml", ".yml")):
        return f"{word}: a run is started again by run={word}"
    if "checkpoint" in command.settings and ("/" in word or word.endswith(".pt") or Path(word).exists()):
        return f"{word}: write checkpoint={quote(word)}"
    options = [f"{group}={word}" for group in command.groups if word in choices(command.name, group)]
    if options:
        return f"{word}: write {_or(options)}"
    if word in VERBS and word != command.name:
        return f"{word}: did you mean the command {program(word)}? A verb comes first"
    close = nearest(name, {*command.settings, *command.groups})
    suggestion = f"; did you mean {_or([f'{name}=VALUE' for name in close])}?" if close else ""
    return f"{word!r} is not a setting; write NAME=VALUE, such as {EXAMPLE}{suggestion}"


def _quoted(word: str) -> str:
    key, _, value = word.partition("=")
    text = f'"{value}"' if "${" in value else quote(value)
    return f"'{key}={text}'" if "'" not in text else f"{key}={text}"


def _group(command: Command, override: Override, word: str) -> str | None:
    """Return a text on a wrong choice of a group's option that is visible without reading a file; None otherwise."""
    group = override.key_or_group
    default = command.groups[group]
    if override.is_sweep_override():
        return None if _is_multirun(command) else f"{word}: several values need --multirun"
    value = override.value()
    if word.startswith("~"):
        return f"{word}: the group cannot be removed; {_choice(command, choices(command.name, group))}"
    if isinstance(value, dict):
        return None
    if isinstance(value, list) and not isinstance(default, list):
        return f"{word}: {group} takes one option; {_choice(command, choices(command.name, group))}"
    if not isinstance(value, str | list):
        return _no_option(command, group, str(override.get_value_element_as_str()))
    if word.startswith("+") and isinstance(value, str):
        if value not in choices(command.name, group):
            return _no_option(command, group, value)
        return f"{group} is a group already; write {group}={value}, without +"
    option_names = {*FIXED.get(group, ()), *(f"ann/{name}" for name in ("mnist16_teacher", "fashion16_teacher"))}
    for name in [value] if isinstance(value, str) else value:
        if name in option_names and name not in choices(command.name, group):
            return f"{group}={name} is for {program('ann')}; {_choice(command, choices(command.name, group))}"
    return None


def _choice(command: Command, names: Sequence[str]) -> str:
    """Return what there is to choose from; many names are left to the help text."""
    if len(names) > MANY:
        return f"choose one of the {len(names)} that {command.program} --help lists"
    return f"choose one of {', '.join(names)}"


def _no_option(command: Command, group: str, value: str, names: Sequence[str] | None = None) -> str:
    reason = fault(group, value)
    if reason is not None:
        return reason
    names = list(names or choices(command.name, group))
    if command.name == "ann" and group == "experiment":
        names = choices(command.name, group)
    match = [name for name in names if name.lower() == value.lower()] or nearest(value, names)
    suggestion = f"did you mean {_or([f'{group}={name}' for name in match])}? " if match else ""
    remark = REMARKS.get(group.removeprefix("other_"), "")
    remark_text = f"; {remark.format(value=value)}".replace("; any other chip: chip", f"; any other chip: {group}")
    return f"{group}={value} is not known; {suggestion}{_choice(command, names)}{remark_text if remark else ''}"


def _of_error(error: Exception, command: Command) -> str:
    """Return a text from the attributes of an error."""
    cause = error.__cause__ or error.__context__ or error
    place = re.match(r"In '([^']+)'", str(error))
    file = f" (in {place[1]}.yaml)" if place and isinstance(cause, OmegaConfBaseException) else ""
    if isinstance(error, SearchPathException):
        return f"--config-dir: {str(error).removeprefix('Additional config directory ')}; name a folder that is there"
    if isinstance(error, MissingConfigException):
        return _missing(error, command)
    whole = re.search(r"Merge error: \w+ is not a subclass of (\w+)\. value: (.*)", str(error))
    group = _group_of(whole[1], command) if whole else None
    if whole and group:
        entry = f"- override /{group}: {whole[2]}"
        return f"{group}: {whole[2]} sets a group; write `{entry}` in the list of defaults{file}"
    absent = re.match(r"In '([^']+)': Could not override '/?(\w+)'", str(error))
    if absent:
        return f"{unknown(absent[2], command.name)} (in {absent[1]}.yaml)"
    if isinstance(error, YAMLError) or isinstance(cause, YAMLError):
        return f"a YAML file cannot be read: {' '.join(str(cause).split())}"
    if isinstance(error, OverrideParseException):
        return f"{error.override} cannot be read; write NAME=VALUE, such as {EXAMPLE}"
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.full_key:
        return _missing_key(cause.full_key, command) + file
    if isinstance(cause, ValidationError) and cause.full_key:
        return _wrong_type(cause, command) + file
    return next(filter(None, _general(error, command)))


def _group_of(kind: str, command: Command) -> str | None:
    """Return the group with an option of a class, by the name of the class."""
    return next((name for name in command.groups if any(node.__name__ == kind for node in nodes(name).values())), None)


def _general(error: Exception, command: Command) -> Iterator[str | None]:
    for group, option in command.groups.items():
        if option == "???" and not any(word.startswith(f"{group}=") for word in command.words):
            yield f"{group}=NAME is missing; {_choice(command, choices(command.name, group))}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "To append" not in line]
    yield re.sub(r"^Could not override '([^']+)'.*", rf"\1 is not a setting of {command.program}", "; ".join(lines))
    yield type(error).__name__


def _missing(error: MissingConfigException, command: Command) -> str:
    group, _, value = str(error.missing_cfg_file).rpartition("/")
    if not group:
        return f"--config-name: there is no {value}.yaml; give --config-dir with the folder that holds it"
    return _no_option(command, group, value, error.options)


def _missing_key(key: str, command: Command) -> str:
    parts = key.split(".")
    if key in command.groups:  # whose options set no key of this name
        return f"a file of the group {key} must begin with the line `# @package _global_`"
    options = {place(name): name for name in nodes(parts[0])} if parts[0] in SEVERAL else {}
    if len(parts) > 1 and parts[1] in options:
        defaults = [*(command.groups.get(parts[0]) or ()), options[parts[1]]]
        return f"{key} is not chosen; choose it: {parts[0]}=[{','.join(defaults)}]"
    if parts[0] == "hydra":
        return no_hydra_setting(key, (), command.name)
    return unknown(key, command.name, _backend(command))


def _backend(command: Command) -> str:
    names = [word.partition("=")[2] for word in command.words if word.startswith(("backend=", "backend.name="))]
    default = command.groups.get("backend")
    return names[-1].removesuffix("_faulty") if names else str(default)


def _wrong_type(error: ValidationError, command: Command) -> str:
    key = re.sub(r"\[\d+\]", "", str(error.full_key))
    word = next((word.lstrip("+") for word in command.words if word.lstrip("+").startswith(f"{key}=")), "")
    value = word.partition("=")[2] if word else error.value
    setting = command.settings.get(key)
    if setting is None:
        inner = next((word for word in command.words if word.lstrip("+").startswith(f"{key}.")), None)
        return f"{inner or f'{key}={value}'} does not fit: {str(error.msg).splitlines()[0]}"
    nested = next((word for word in command.words if word.lstrip("+").startswith(f"{key}.")), None)
    if nested:
        return f"{nested}: {key} has no parts; write {key}=VALUE"
    text = f"{key}={value} must be {type_text(setting.kind)}"
    if is_dictionary(setting.kind) and ":" in str(value):  # bash expands {a:1,b:2} to words of their own
        return f"{text}; in a shell quote the whole: '{key}={{{value}}}'"
    return f"{text}; write {key}=[{value}]" if is_list(setting.kind) and not str(value).startswith("[") else text


def type_text(kind: Any) -> str:
    """Return the description of a type."""
    arguments = [argument for argument in get_args(kind) if argument is not type(None)]
    if type(None) in get_args(kind):
        return f"{type_text(arguments[0])}, or null"
    if get_origin(kind) is list:
        return f"a list of {PLURALS.get(arguments[0], 'entries')}"
    if get_origin(kind) is dict:
        return "a dictionary such as {name: 1}"
    return TYPES.get(kind, "of another kind")


def _or(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
