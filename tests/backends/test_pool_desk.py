"""The bookkeeping of a pool: turns, and what a claim gets."""

import time
from pathlib import Path

import pytest

from hxtrain.backends.pool.desk import PoolDesk
from hxtrain.backends.pool.state import restore, save
from hxtrain.backends.remote.claims import Claim, Grant, Wish
from hxtrain.backends.remote.leases import Origin
from hxtrain.backends.remote.protocol import Refusal
from hxtrain.backends.remote.wire import Exact


def desk_of(*chips: str) -> PoolDesk:
    desk = PoolDesk([f"tcp://{chip}" for chip in chips], 5.0, 0.0)
    for chip in chips:
        desk.answer(f"tcp://{chip}", {"chip": chip}, 512, "", 0.0)
    return desk


def claim(desk: PoolDesk, client: str, user: str, moment: float, **identity: str) -> Grant:
    label = Exact(f"{user}@host:{client}")
    return desk.claim(Claim(client * 8, label, Wish(identity)), Origin(user), label, moment)


def test_users_take_turns() -> None:
    desk = desk_of("A")
    first = claim(desk, "a", "alice", 0.0)
    for client in "bcd":
        claim(desk, client, "alice", 1.0)
    claim(desk, "e", "bob", 2.0)
    assert [member.client[0] for member in desk.order()] == ["e", "b", "c", "d"]
    assert first.lease is not None
    desk.release(first.lease, "alice", 3.0)
    assert claim(desk, "e", "bob", 3.0).address == "tcp://A"
    line = desk.order()
    assert desk.outlook(line, 0, 4.0) == (2.0, ""), "leases took 3 s, this one 1 s so far"
    assert desk.outlook(line, 1, 4.0) == (5.0, "")
    assert desk.outlook(line, 0, 7.0) == (None, "the lease of tcp://A has lasted 4 s, longer than the last 1")


def test_a_claim_leaves_the_chips_that_others_wait_for() -> None:
    desk = PoolDesk(["tcp://A", "tcp://B"], 5.0, 0.0)
    assert claim(desk, "a", "alice", 0.0).lease is None
    assert claim(desk, "b", "bob", 0.0, chip="A").lease is None
    desk.answer("tcp://A", {"chip": "A"}, 512, "", 1.0)
    desk.answer("tcp://B", {"chip": "B"}, 512, "", 1.0)
    assert claim(desk, "a", "alice", 1.0).address == "tcp://B"
    assert claim(desk, "b", "bob", 1.0, chip="A").address == "tcp://A"


def test_who_loses_a_server_waits_for_the_same_chip() -> None:
    desk = desk_of("A", "B")
    assert claim(desk, "a", "alice", 0.0).address == "tcp://A"
    for moment in (5.0, 10.0, 12.0):
        desk.answer("tcp://B", {"chip": "B"}, 512, "", moment)
        for lease in list(desk.leases.values()):
            desk.holder(lease.token, "alice", moment)
        desk.advance(moment)
    assert desk.lost == 1
    assert desk.leases == {}, "B is free, but is another chip"
    desk.answer("tcp://A", {"chip": "A"}, 512, "", 13.0)
    assert claim(desk, "a", "alice", 13.0, chip="A").address == "tcp://A"


def test_a_lease_for_an_earlier_wish_is_given_back() -> None:
    desk = desk_of("A", "B")
    assert claim(desk, "a", "alice", 0.0).address == "tcp://A"
    assert claim(desk, "a", "alice", 1.0, chip="B").address == "tcp://B"
    assert list(desk.leases) == ["tcp://B"]
    with pytest.raises(Refusal, match="no chip with chip C"):
        claim(desk, "b", "bob", 1.0, chip="C")


def test_a_refused_claim_leaves_the_queue_and_its_chip() -> None:
    desk = desk_of("A")
    assert claim(desk, "a", "alice", 0.0).address == "tcp://A"
    assert claim(desk, "b", "bob", 0.0).position == 1
    for client, user in (("a", "alice"), ("b", "bob")):
        with pytest.raises(Refusal, match="no chip with chip C"):
            claim(desk, client, user, 1.0, chip="C")
    assert (desk.queue, desk.leases) == ([], {}), "neither waits for what it wanted before"


def test_who_gives_up_has_neither_place_nor_chip() -> None:
    desk = desk_of("A")
    assert claim(desk, "a", "alice", 0.0).address == "tcp://A"
    assert claim(desk, "b", "bob", 0.0).position == 1
    withdrawal = Claim("b" * 8, Exact("bob@host:b"), Wish({}), is_withdrawn=True)
    with pytest.raises(Refusal, match="belongs to another key"):
        desk.claim(withdrawal, Origin("eve"), "eve", 1.0)
    assert len(desk.queue) == 1
    assert desk.claim(withdrawal, Origin("bob"), "bob", 1.0).lease is None
    assert desk.queue == []
    claim(desk, "b", "bob", 2.0)
    assert desk.claim(withdrawal, Origin("bob"), "bob", 3.0).position == 0
    desk.claim(Claim("a" * 8, Exact("alice@host:a"), Wish({}), is_withdrawn=True), Origin("alice"), "alice", 3.0)
    assert desk.leases == {}
    claim(desk, "a", "alice", 4.0)
    claim(desk, "b", "bob", 4.0)
    desk.advance(20.0)
    assert (desk.queue, desk.leases) == ([], {}), "nor who is silent"


def test_users_without_a_turn_come_first_and_those_behind_alternate() -> None:
    desk = desk_of("A")
    desk.turns["old"] = -1000.0  # before the machine was started
    claim(desk, "h", "holder", 0.0)
    for client, user in (("a", "old"), ("b", "old"), ("c", "new"), ("d", "new"), ("e", "new")):
        claim(desk, client, user, 1.0)
    assert [member.client[0] for member in desk.order()] == ["c", "a", "d", "b", "e"]


def test_waits_that_nothing_is_known_of_have_a_reason() -> None:
    desk = PoolDesk(["tcp://A", "tcp://B"], 5.0, 0.0)
    text = "no chip fits, but for those of servers that have not answered yet: tcp://A, tcp://B"
    assert claim(desk, "a", "alice", 0.0).reason == text
    desk.answer("tcp://A", {"chip": "A"}, 512, "", 0.0)
    assert claim(desk, "a", "alice", 0.0).lease is not None
    first = claim(desk, "b", "bob", 4.0, chip="A")
    assert first.reason == "no lease has ended yet; the lease of tcp://A has lasted 4 s"
    grant = claim(desk, "c", "cleo", 4.0, chip="C")
    assert (grant.estimate, grant.reason) == (None, text.replace("tcp://A, ", "")), "the server of B may have it"
    desk.advance(11.0)
    assert claim(desk, "b", "bob", 11.0, chip="A").reason.endswith("chips that fit are away: tcp://A for 0 s")
    desk.answer("tcp://A", {"chip": "A"}, 512, "zoe@lab:1", 11.0)
    assert claim(desk, "b", "bob", 11.0, chip="A").reason == "zoe@lab:1 has tcp://A without the pool"


@pytest.mark.parametrize(
    ("holder", "is_free"),
    [("ada@lab:12", True), ("key (ada@lab:12)", True), ("k (ada@la", True), ("ada@lab:123", False), ("eve", False)],
)
def test_who_gave_a_chip_back_is_told_from_strangers(holder: str, is_free: bool) -> None:
    desk = desk_of("A")
    label = Exact("ada@lab:12")
    grant = desk.claim(Claim("a" * 8, label, Wish({})), Origin(""), label, 0.0)
    assert grant.lease is not None
    desk.release(grant.lease, "", 1.0)
    desk.answer("tcp://A", {"chip": "A"}, 512, holder, 1.0)
    assert [berth.state for berth in desk.berths(1.0)] == ["free" if is_free else "elsewhere"]


def test_a_server_with_two_addresses_is_leased_once() -> None:
    desk = desk_of("A", "B")
    for chip in "AB":
        desk.answer(f"tcp://{chip}", {"chip": "A"}, 512, "", 0.0, "one")
    assert claim(desk, "a", "alice", 0.0).address == "tcp://A"
    assert claim(desk, "b", "bob", 0.0).lease is None
    assert [berth.holder for berth in desk.berths(0.0)] == ["alice@host:a", "the same server as tcp://A"]
    for moment in (4.0, 8.0, 12.0, 13.0):
        desk.answer("tcp://B", {"chip": "A"}, 512, "", moment, "one")
        claim(desk, "b", "bob", moment)
        desk.advance(moment)
    assert claim(desk, "b", "bob", 13.0).address == "tcp://B", "it does not answer at the other address any more"


def test_a_restored_pool_goes_on_with_its_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = desk_of("A")
    claim(desk, "first", "ada", 1.0)
    claim(desk, "second", "ben", 2.0)
    claim(desk, "second", "ben", 5.0)
    assert desk.queued_time > 0.0
    save(desk, tmp_path / "pool.json")
    restored = desk_of("A")
    assert restore(restored, tmp_path / "pool.json", 0.0)
    assert (restored.busy_time, restored.queued_time) == (desk.busy_time, desk.queued_time)
    assert restored.busy == desk.busy
    clock = time.time()
    monkeypatch.setattr(time, "time", lambda: clock - 1e9)
    assert restore(restored, tmp_path / "pool.json", 100.0)
    (lease,) = restored.leases.values()
    assert (lease.begin, restored.queue[0].since, restored.turns["ada"]) == (100.0, 100.0, 100.0), "no future times"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b'{"format": 1}', b"null"])
def test_what_is_no_state_is_refused_and_stays(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "pool.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"is not the state of a pool .*move it away to begin with free chips"):
        restore(desk_of("A"), file, 0.0)
    assert file.read_bytes() == content
