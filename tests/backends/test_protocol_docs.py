"""docs/protocol.md lists the messages as they are."""

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from pool_bench import brokering
from remote_bench import CountingBackend, serving

from hxtrain.backends.pool import Berth, Waiter
from hxtrain.backends.remote import protocol as p
from hxtrain.backends.remote.claims import Wish
from hxtrain.backends.remote.reception import Reception

TEXT = (Path(__file__).parents[2] / "docs/protocol.md").read_text(encoding="utf-8")
MESSAGES, _, REST = TEXT.partition("## Messages")[2].partition("**A pool.**")
POOL, _, ADDITIONS = REST.partition("**Additions.**")
ROW = re.compile(r"^\| `(\w+)` \|(.*)\|(.*)\|(.*)\|$", re.M)
INNER = re.compile(r"\([^()]*\)")


def names(cell: str) -> list[str]:
    """Return the fields of a body; what is in brackets are details."""
    while INNER.search(cell):
        cell = INNER.sub("", cell)
    return re.findall(r"`(\w+)`", cell.partition(":")[0])


def fields_of(kind: type[Any]) -> list[str]:
    return [field.name for field in fields(kind)]


def bodies(reception: Reception) -> dict[str, tuple[type[Any], type[Any]]]:
    """Return the types of request and answer by operation."""
    kinds = {op: (answer.body, get_type_hints(answer.function)["return"]) for op, answer in reception._answers.items()}
    return {str(op): (request, p.Welcome if answer is bytes else answer) for op, (request, answer) in kinds.items()}


def assert_listed(text: str, expected: Mapping[str, tuple[type[Any], type[Any]]]) -> None:
    rows = {op: (names(request), names(answer)) for op, _, request, answer in ROW.findall(text)}
    assert rows == {op: (fields_of(request), fields_of(answer)) for op, (request, answer) in expected.items()}


def test_messages_are_listed_as_they_are(tmp_path: Path) -> None:
    with serving(CountingBackend()) as server, brokering([server.address], tmp_path) as broker:
        jobs = {"configure": (p.Configure, p.Configured), "run": (p.Run, p.Ran)}
        assert_listed(MESSAGES, {**bodies(server), **jobs})
        assert_listed(POOL, bodies(broker))
        assert {*bodies(server), *jobs, *bodies(broker)} == {*get_args(p.Operation)}


@pytest.mark.parametrize(
    ("text", "name", "kind"),
    [(POOL, "wish", Wish), (POOL, "chips", Berth), (POOL, "queue", Waiter), (MESSAGES, "holder", p.Client)],
)
def test_parts_of_messages_are_listed_as_they_are(text: str, name: str, kind: type[Any]) -> None:
    part = re.search(rf"`{name}` \(([^()]*)\)", text)
    assert part is not None
    assert re.findall(r"`(\w+)`", part[1]) == fields_of(kind)


def test_heads_codes_and_additions_are_listed_as_they_are() -> None:
    for kind in (p.Head, p.ReplyHead, p.Failure):
        assert f"`{{{', '.join(fields_of(kind))}}}`" in TEXT, kind
    codes = TEXT.partition("**Errors**")[2].partition("## Limits")[0]
    listed = [code for row in re.findall(r"^\| (`.*?) \|", codes, re.M) for code in re.findall(r"`(\w+)`", row)]
    assert sorted(listed) == sorted(get_args(p.Code))
    assert tuple(re.findall(r"^\| `(\w+)` \|", ADDITIONS.partition("**Runs.**")[0], re.M)) == p.ADDITIONS
