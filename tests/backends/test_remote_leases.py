"""One user at a time, the others in order."""

import threading
import time
from itertools import pairwise

import pytest
from backends_bench import CIRCUIT, READOUT_ONLY, WEIGHTS, stimulus
from remote_bench import CountingBackend, connected, serving

from hxtrain.backends import DeviceError
from hxtrain.backends.remote import LinkSettings, RemoteBackend, ask_status
from hxtrain.backends.remote.leases import Desk, Origin
from hxtrain.backends.remote.protocol import Ask, Place, Refusal
from hxtrain.backends.remote.wire import Exact

A = "a" * 8
B = "b" * 8
C = "c" * 8


def ask(desk: Desk, client: str, moment: float, idle: bool = True) -> Place:
    return desk.ask(Ask(client, Exact(f"label of {client}")), Origin(f"key of {client}"), moment, idle)


def test_first_come_first_served_with_estimates() -> None:
    desk = Desk(heartbeat_timeout=10.0, lease_time=60.0)
    held = ask(desk, A, 0.0).lease
    assert held is not None
    assert ask(desk, A, 1.0).lease == held, "asking again changes nothing"
    assert ask(desk, B, 5.0) == Place(None, 1, 55.0, 0.1)
    assert ask(desk, C, 6.0) == Place(None, 2, 114.0, 0.1)
    assert ask(desk, B, 7.0).position == 1, "asking again keeps the place"
    desk.release(held, f"key of {A}", 8.0, idle=True)
    assert ask(desk, C, 9.0).position == 1
    assert ask(desk, B, 9.0).lease not in (None, held)
    holder, queue = desk.clients(10.0)
    assert holder is not None
    assert (holder.label, holder.seconds) == (f"label of {B}", 2.0)
    assert [client.label for client in queue] == [f"label of {C}"]


@pytest.mark.parametrize("lease_time", [0.0, 5.0, 60.0])
def test_nobody_waits_longer_than_estimated_for_those_who_run_nothing(lease_time: float) -> None:
    desk = Desk(heartbeat_timeout=10.0, lease_time=lease_time)
    for client in (A, B):
        ask(desk, client, 0.0)
    estimate = ask(desk, C, 0.0).estimate
    turns = [[ask(desk, client, float(second)).lease for client in (A, B, C)] for second in range(int(estimate) + 1)]
    assert any(last is not None for _, _, last in turns)


def test_who_is_silent_loses_lease_or_place() -> None:
    desk = Desk(heartbeat_timeout=10.0, lease_time=60.0)
    held = ask(desk, A, 0.0).lease
    assert held is not None
    ask(desk, B, 0.0)
    ask(desk, C, 9.0)
    desk.advance(10.5, idle=True)  # A and B were last heard of at 0
    assert ask(desk, C, 10.1).lease is not None
    assert (desk.expired, desk.granted) == (1, 2)
    with pytest.raises(Refusal, match="this lease is over") as refusal:
        desk.holder(held, f"key of {A}", 11.0)
    assert refusal.value.code == "lease_lost"


def test_a_lease_ends_when_its_time_is_over_and_others_wait() -> None:
    desk = Desk(heartbeat_timeout=1000.0, lease_time=60.0)
    held = ask(desk, A, 0.0).lease
    assert held is not None
    desk.advance(500.0, idle=True)
    assert desk.lease is not None, "nobody waits"
    ask(desk, B, 501.0, idle=False)
    assert desk.lease.token == held, "a running batch is not interrupted"
    desk.advance(502.0, idle=True)
    assert desk.lease.token == held, "everyone has one run at least"
    desk.lease.jobs = 1
    desk.advance(503.0, idle=True)
    assert desk.lease.member.client == B
    assert ask(desk, A, 504.0).position == 1


def test_another_key_cannot_take_lease_or_place() -> None:
    desk = Desk(heartbeat_timeout=10.0, lease_time=60.0)
    held = ask(desk, A, 0.0).lease
    assert held is not None
    for act in (
        lambda: desk.holder(held, "thief", 1.0),
        lambda: desk.release(held, "thief", 1.0, True),
        lambda: desk.ask(Ask(A, Exact("thief")), Origin("thief"), 1.0, True),
    ):
        with pytest.raises(Refusal) as refusal:
            act()
        assert refusal.value.code == "not_authorised"
    assert desk.lease is not None


def test_the_queue_is_bounded() -> None:
    desk = Desk(heartbeat_timeout=10.0, lease_time=60.0, places=2)
    for client in (A, B, C):
        ask(desk, client, 0.0)
    assert ask(desk, "d" * 8, 0.0) == Place(None, 3, 180.0, 2.0)
    assert len(desk.queue) == 2


def test_two_clients_share_the_chip_fairly() -> None:
    """Each has a circuit of its own, which the server configures anew for every lease."""
    device = CountingBackend(lambda run: time.sleep(0.01))
    failures: list[BaseException] = []

    def work(address: str, number: int) -> None:
        circuit, weights = ((CIRCUIT, WEIGHTS), (READOUT_ONLY, {"input->readout": WEIGHTS["input->hidden"][:2]}))[
            number
        ]
        try:
            with connected(address) as device:
                device.configure(circuit)
                for i in range(8):
                    recording = device.run(weights, stimulus(clock=100 * number + i))
                    assert set(recording.traces) == {p.name for p in circuit.populations}
                    assert int(recording.traces["readout"].max()) == 100 * number + i
        except BaseException as error:
            failures.append(error)

    with serving(device, lease_time=0.0) as server:
        threads = [threading.Thread(target=work, args=(server.address, number)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    first, second = ([clock for clock in device.clocks if clock // 100 == number] for number in (0, 1))
    assert (first, second) == (list(range(8)), list(range(100, 108))), "each batch once, in order"
    owners = [clock // 100 for clock in device.clocks]
    assert sum(a != b for a, b in pairwise(owners)) >= 4, "they took turns"


def test_a_client_that_is_silent_gets_the_chip_back_later() -> None:
    device = CountingBackend()
    with serving(device, heartbeat_timeout=0.4) as server, connected(server) as first:
        first.configure(CIRCUIT)
        first.run(WEIGHTS, stimulus(clock=1))
        assert first._heart is not None
        time.sleep(1.0)
        assert len(device.circuits) == 1, "heartbeats keep an idle lease"
        first._heart.stop()  # as if its machine were suspended
        time.sleep(1.0)
        with connected(server) as second:
            second.configure(READOUT_ONLY)
        assert first.run(WEIGHTS, stimulus(clock=2)).traces["hidden"].max() == 2
    assert device.circuits == [CIRCUIT, READOUT_ONLY, CIRCUIT]


def test_patience_in_the_queue_ends() -> None:
    with serving(CountingBackend()) as server, connected(server):
        second = RemoteBackend(server.address, queue_patience=0.1)
        with pytest.raises(DeviceError, match=r"others have had the chip for 0.1 s \(place 1\)"):
            second.open()
        assert len(ask_status(LinkSettings(server.address)).queue) == 1
        second.close()
