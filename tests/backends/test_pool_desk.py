"""The bookkeeping of a pool: turns, and what a claim gets."""

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
    assert desk.estimate(desk.order()[0], 4.0) == 2.0, "leases took 3 s, this one 1 s so far"


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


def test_a_restored_pool_goes_on_with_its_sums(tmp_path: Path) -> None:
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
